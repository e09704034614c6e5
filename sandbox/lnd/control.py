"""The sandbox's HTTP control API: the payer's wallet, blocks, the clock, and faults."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from sandbox.lnd.errors import LndError, PaymentRefused
from sandbox.lnd.node import Node
from sandbox.lnd.wallet import Payment

_NODE: web.AppKey[Node] = web.AppKey("node", Node)
MAX_BLOCKS = 10_000
MAX_CLOCK_STEP_SECONDS = 400 * 86_400


def build(node: Node) -> web.Application:
    """The application; serve it on loopback only."""
    app = web.Application(middlewares=[_problems], client_max_size=64 * 1024)
    app[_NODE] = node
    app.add_routes(
        [
            web.get("/sandbox/health", _health),
            web.get("/sandbox/invoice", _invoice),
            web.post("/sandbox/pay", _pay),
            web.get("/sandbox/faults", _faults),
            web.post("/sandbox/faults", _set_faults),
            web.post("/sandbox/blocks", _blocks),
            web.post("/sandbox/clock", _clock),
            web.post("/sandbox/streams/end", _end_streams),
            web.post("/sandbox/wallet/invoice", _wallet_invoice),
            web.get("/sandbox/wallet/invoice", _wallet_received),
            web.post("/sandbox/payments/resolve", _resolve),
        ]
    )
    return app


@web.middleware
async def _problems(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except PaymentRefused as error:
        return web.json_response({"error": error.text}, status=error.status)
    except LndError as error:
        return web.json_response({"error": error.text}, status=409)
    except (ValueError, KeyError, TypeError) as error:
        return web.json_response({"error": f"bad request: {error}"}, status=400)
    return response


async def _body(request: web.Request) -> dict[str, Any]:
    body = json.loads(await request.read() or b"{}")
    if not isinstance(body, dict):
        raise TypeError("a JSON object is wanted")
    return body


def _integer(body: dict[str, Any], name: str, default: int | None = None, *, most: int | None = None) -> int:
    value = body.get(name, default)
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < 0
        or (most is not None and value > most)
    ):
        raise ValueError(f"{name} must be a whole number in range")
    return value


async def _health(request: web.Request) -> web.Response:
    node = request.app[_NODE]
    return web.json_response(
        {"ok": True, "node_id": node.node_id, "height": node.registry.height, "now": int(node.clock())}
    )


async def _invoice(request: web.Request) -> web.Response:
    return web.json_response(request.app[_NODE].wallet.describe(request.query["bolt11"]))


async def _pay(request: web.Request) -> web.Response:
    body = await _body(request)
    payment = Payment(
        text=str(body["bolt11"]),
        amount_msat=_integer(body, "amount_msat") if "amount_msat" in body else None,
        parts=_integer(body, "parts", 1),
        send_parts=_integer(body, "send_parts") if "send_parts" in body else None,
        even_if_expired=body.get("even_if_expired") is True,
    )
    return web.json_response(request.app[_NODE].wallet.pay(payment))


async def _faults(request: web.Request) -> web.Response:
    return web.json_response(request.app[_NODE].faults.as_dict())


async def _set_faults(request: web.Request) -> web.Response:
    faults = request.app[_NODE].faults
    faults.change(await _body(request))
    return web.json_response(faults.as_dict())


async def _blocks(request: web.Request) -> web.Response:
    count = _integer(await _body(request), "count", 1, most=MAX_BLOCKS)
    return web.json_response({"height": request.app[_NODE].registry.mine(count)})


async def _clock(request: web.Request) -> web.Response:
    node = request.app[_NODE]
    node.clock.advance(_integer(await _body(request), "advance_seconds", most=MAX_CLOCK_STEP_SECONDS))
    node.registry.tick()
    node.wake.set()
    return web.json_response({"now": int(node.clock()), "offset_seconds": node.clock.offset_seconds})


async def _end_streams(request: web.Request) -> web.Response:
    request.app[_NODE].feed.end_all()
    return web.json_response({})


async def _wallet_invoice(request: web.Request) -> web.Response:
    body = await _body(request)
    text = request.app[_NODE].payer.wallet_invoice(
        _integer(body, "amount_msat", 0), str(body.get("description", ""))
    )
    return web.json_response({"bolt11": text}, status=201)


async def _wallet_received(request: web.Request) -> web.Response:
    node = request.app[_NODE]
    payment_hash = bytes.fromhex(node.payer.decode(request.query["bolt11"]).payment_hash)
    known = node.store.wallet_invoice(payment_hash)
    if known is None:
        return web.json_response({"error": "the sandbox wallet made no such invoice"}, status=404)
    return web.json_response({"amount_msat": known[1], "received_msat": known[2]})


async def _resolve(request: web.Request) -> web.Response:
    body, node = await _body(request), request.app[_NODE]
    payment_hash = bytes.fromhex(str(body["payment_hash"]))
    payment = node.payer.resolve(payment_hash, _integer(body, "fee_limit_msat", 10**6))
    node.feed.announce(payment_hash)
    return web.json_response({"status": int(payment.status)})
