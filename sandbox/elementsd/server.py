"""elementsd's HTTP face (JSON-RPC with basic authentication) and the sandbox's control API."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.elementsd.addresses import parse_amount, parse_asset, parse_destination, parse_uri
from sandbox.elementsd.arguments import RPC_INVALID_REQUEST, RPC_METHOD_NOT_FOUND, RpcError
from sandbox.elementsd.node import Node
from sandbox.elementsd.params import LBTC_ASSET
from sandbox.elementsd.rpc import Rpc
from sandbox.elementsd.transactions import BadTransaction
from sandbox.elementsd.wallet import CannotPay, Wallet

T = TypeVar("T")
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
MAX_BATCH: Final = 10_000
WAIT_STEPS: Final = 200


@dataclass(slots=True)
class Faults:
    """What goes wrong with the next RPC calls."""

    error_500: int = 0
    """That many calls answer HTTP 500 without doing anything."""
    delay_ms: int = 0
    """Every call waits that long first."""
    down: bool = False
    """The connection is cut without an answer and nothing is done."""
    drop: int = 0
    """That many calls are done, and their answers lost."""


class Server:
    """Answers HTTP for one node. The node's work runs on one thread of its own."""

    def __init__(self, node: Node, wallet: Wallet, rpc: Rpc, *, user: str, password: str) -> None:
        self._node, self._wallet, self._rpc = node, wallet, rpc
        self._token = base64.b64encode(f"{user}:{password}".encode())
        self._thread = ThreadPoolExecutor(1, "node")
        self._log = structlog.get_logger()
        self.faults = Faults()
        self.changed = asyncio.Event()
        """Set when something came to wait in the mempool."""

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/", self._json_rpc, methods=["POST"]),
                Route("/sandbox/health", self._health),
                Route("/sandbox/info", self._info),
                Route("/sandbox/wait", self._wait, methods=["POST"]),
                Route("/sandbox/pay", self._control(self._pay), methods=["POST"]),
                Route("/sandbox/mine", self._control(self._mine), methods=["POST"]),
                Route("/sandbox/reorg", self._control(self._reorg), methods=["POST"]),
                Route("/sandbox/replace", self._control(self._replace), methods=["POST"]),
                Route("/sandbox/faults", self._control(self._set_faults), methods=["POST"]),
            ]
        )

    async def run(self, work: Callable[[], T]) -> T:
        """Do something with the node on its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Let the node's thread end."""
        self._thread.shutdown()

    # --- JSON-RPC ---

    async def _json_rpc(self, request: Request) -> Response:
        if self.faults.delay_ms:
            await asyncio.sleep(self.faults.delay_ms * 0.001)
        if self.faults.down:
            return _CutConnection()
        if self.faults.error_500 > 0:
            self.faults.error_500 -= 1
            return Response(status_code=500)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic" or not hmac.compare_digest(token.encode(), self._token):
            return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm="jsonrpc"'})
        body = await request.body()
        answer = await self.run(lambda: self._answer(body))
        if self._node.mempool:
            self.changed.set()
        if self.faults.drop > 0:
            self.faults.drop -= 1
            return _CutConnection()
        return answer

    def _answer(self, body: bytes) -> Response:
        try:
            if len(body) > MAX_BODY_BYTES:
                return Response(status_code=413)
            request = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return _json(_error(None, -32700, "Parse error"), 500)
        if isinstance(request, list):
            return _json([self._one(item)[0] for item in request[:MAX_BATCH]])
        answer, status = self._one(request)
        return _json(answer, status)

    def _one(self, request: Any) -> tuple[dict[str, Any], int]:
        if not isinstance(request, dict):
            return _error(None, RPC_INVALID_REQUEST, "Invalid Request object"), 400
        request_id, method, params = request.get("id"), request.get("method"), request.get("params")
        if not isinstance(method, str):
            text = "Missing method" if method is None else "Method must be a string"
            return _error(request_id, RPC_INVALID_REQUEST, text), 400
        if params is not None and not isinstance(params, list | dict):
            return _error(request_id, RPC_INVALID_REQUEST, "Params must be an array or object"), 400
        try:
            result = self._rpc.call(method, [] if params is None else params)
        except RpcError as error:
            status = 404 if error.code == RPC_METHOD_NOT_FOUND else 500
            return _error(request_id, error.code, error.message), status
        return {"result": result, "error": None, "id": request_id}, 200

    # --- the control API ---

    def _control(self, handler: Callable[[dict[str, Any]], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            try:
                body = msgspec.json.decode(await request.body() or b"{}")
                if not isinstance(body, dict):
                    raise ValueError("the body must be a JSON object")  # noqa: TRY004 — a client's fault
                answer = await self.run(lambda: handler(body))
            except (ValueError, CannotPay, BadTransaction, msgspec.DecodeError) as error:
                return _json({"error": str(error)}, 400)
            if self._node.mempool:
                self.changed.set()
            return _json(answer)

        return endpoint

    async def _health(self, _: Request) -> Response:
        return _json({"ok": True})

    async def _wait(self, request: Request) -> Response:
        """Answers when the chain has reached a height, or after ten seconds with what it has."""
        wanted = _count(msgspec.json.decode(await request.body()), "height", default=1)
        height = 0
        for _ in range(WAIT_STEPS):
            _, height = await self.run(lambda: self._node.tip)
            if height >= wanted:
                break
            await asyncio.sleep(0.05)
        return _json({"height": height})

    async def _info(self, _: Request) -> Response:
        return _json(await self.run(self._describe))

    def _describe(self) -> dict[str, Any]:
        tip, height = self._node.tip
        assets = {
            "L-BTC": LBTC_ASSET,
            "USDT": self._wallet.usdt[::-1].hex(),
            "JUNK": self._wallet.junk[::-1].hex(),
        }
        balances = {name: str(value) for name, value in self._wallet.balances().items()}
        waiting = len(self._node.mempool)
        return {"height": height, "tip": tip, "mempool": waiting, "assets": assets, "balances": balances}

    def _pay(self, body: dict[str, Any]) -> dict[str, Any]:
        if "uri" in body:
            asked = parse_uri(str(body["uri"]))
            address, units, asset = asked.address, asked.amount, asked.asset
        else:
            address = str(body.get("address", ""))
            units, asset = (
                parse_amount(str(body.get("amount", ""))),
                parse_asset(str(body.get("assetid", ""))),
            )
        if "amount" in body:
            units = parse_amount(str(body["amount"]))
        if "assetid" in body:
            asset = parse_asset(str(body["assetid"]))
        if body.get("unconfidential"):
            destination = parse_destination(address)
            address = destination.unconfidential if destination is not None else address
        junk, final = bool(body.get("junk")), bool(body.get("final"))
        return {"txid": self._wallet.pay(address, units, asset, junk=junk, final=final)}

    def _mine(self, body: dict[str, Any]) -> dict[str, Any]:
        blocks = _count(body, "blocks", default=1)
        return {"blocks": self._node.mine(blocks, empty=bool(body.get("empty")))}

    def _reorg(self, body: dict[str, Any]) -> dict[str, Any]:
        """Replace the newest `depth` blocks by `depth + 1` others.

        The transactions wait again, or with `drop` those of the purse are double-spent.
        """
        depth = _count(body, "depth", default=1)
        returned = self._node.disconnect(depth)
        dropped = []
        if body.get("drop"):
            for txid in returned:
                if txid in self._node.mempool:
                    self._wallet.replace(txid)
                    dropped.append(txid)
        hashes = self._node.mine(1, empty=not body.get("drop")) + self._node.mine(depth, empty=True)
        return {
            "blocks": hashes,
            "returned": [txid for txid in returned if txid not in dropped],
            "dropped": dropped,
        }

    def _replace(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"txid": self._wallet.replace(str(body.get("txid", "")))}

    def _set_faults(self, body: dict[str, Any]) -> dict[str, Any]:
        faults = msgspec.convert(body, Faults)
        self.faults = faults
        return msgspec.to_builtins(faults)  # type: ignore[no-any-return]


class _CutConnection(Response):
    """Announces a body and dies: the client sees the connection break without an answer."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _count(body: dict[str, Any], name: str, *, default: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1000:
        raise ValueError(f"{name} is a whole number from 1 to 1000")
    return value


def _error(request_id: Any, code: int, message: str) -> dict[str, Any]:
    return {"result": None, "error": {"code": code, "message": message}, "id": request_id}


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value) + b"\n", status_code=status, media_type="application/json")
