"""elementsd's JSON-RPC over HTTP with basic authentication, and the control API of the stand-in."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.common.control import Answer, Refused, Values, get, post, to_json, whole
from sandbox.common.faults import Faults
from sandbox.elementsd.addresses import parse_amount, parse_asset, parse_destination, parse_uri
from sandbox.elementsd.arguments import RPC_IN_WARMUP, RPC_INVALID_REQUEST, RPC_METHOD_NOT_FOUND, RpcError
from sandbox.elementsd.node import Node
from sandbox.elementsd.params import LBTC_ASSET, asset_id
from sandbox.elementsd.rpc import Rpc
from sandbox.elementsd.transactions import BadTransaction
from sandbox.elementsd.wallet import CannotPay, Wallet

T = TypeVar("T")
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
MAX_BATCH: Final = 10_000
WAIT_STEPS: Final = 200


class RpcFaults(Faults):
    """What goes wrong with the next RPC calls."""

    error_500: int = 0
    """That many calls answer HTTP 500 without doing anything."""
    delay_ms: int = 0
    """Every call waits that long first."""
    down: bool = False
    """The connection is cut without an answer and nothing is done."""
    drop: int = 0
    """That many calls are done, and their answers lost."""
    busy: int = 0
    """That many calls find the work queue full."""
    warming_up: bool = False
    """Every call is refused while the block index is read."""


class Server:
    """Answers HTTP for one node. The node's work runs on one thread of its own."""

    def __init__(self, node: Node, wallet: Wallet, rpc: Rpc, *, user: str, password: str) -> None:
        self._node, self._wallet, self._rpc = node, wallet, rpc
        self._token = base64.b64encode(f"{user}:{password}".encode())
        self._thread = ThreadPoolExecutor(1, "node")
        self._log = structlog.get_logger()
        self.faults = RpcFaults()
        self.changed = asyncio.Event()
        """Set when a transaction entered the mempool."""

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/", self._json_rpc, methods=["POST"]),
                get("/sandbox/health", lambda _: {"ok": True}),
                get("/sandbox/info", self._on_thread(self._info)),
                post("/sandbox/wait", self._wait),
                post("/sandbox/pay", self._on_thread(self._pay)),
                post("/sandbox/mine", self._on_thread(self._mine)),
                post("/sandbox/reorg", self._on_thread(self._reorg)),
                post("/sandbox/replace", self._on_thread(self._replace)),
                post("/sandbox/rewind", self._on_thread(self._rewind)),
                post("/sandbox/catch-up", self._on_thread(self._catch_up)),
                post("/sandbox/state", self._on_thread(self._state)),
                post("/sandbox/faults", lambda values: self.faults.change({"reset": True, **values})),
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
        if self.faults.take("error_500"):
            return Response(status_code=500)
        if self.faults.take("busy"):
            return Response("Work queue depth exceeded", status_code=503)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic" or not hmac.compare_digest(token.encode(), self._token):
            return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm="jsonrpc"'})
        body = await request.body()
        answer = await self.run(lambda: self._answer(body))
        if self._node.mempool:
            self.changed.set()
        if self.faults.take("drop"):
            return _CutConnection()
        return answer

    def _answer(self, body: bytes) -> Response:
        try:
            if len(body) > MAX_BODY_BYTES:
                return Response(status_code=413)
            request = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return to_json(_error(None, -32700, "Parse error"), 500)
        if isinstance(request, list):
            return to_json([self._one(item)[0] for item in request[:MAX_BATCH]])
        answer, status = self._one(request)
        return to_json(answer, status)

    def _one(self, request: Any) -> tuple[dict[str, Any], int]:
        if not isinstance(request, dict):
            return _error(None, RPC_INVALID_REQUEST, "Invalid Request object"), 400
        version = request.get("jsonrpc", "1.0")
        if version not in ("1.0", "2.0"):
            text = (
                "JSON-RPC version not supported"
                if isinstance(version, str)
                else "jsonrpc field must be a string"
            )
            return _error(request.get("id"), RPC_INVALID_REQUEST, text), 400
        answer, status = self._answer_one(request)
        if version == "1.0":
            return answer, status
        kept = "result" if answer["error"] is None else "error"
        return {"jsonrpc": "2.0", kept: answer[kept], "id": answer["id"]}, 200

    def _answer_one(self, request: dict[str, Any]) -> tuple[dict[str, Any], int]:
        request_id, method, params = request.get("id"), request.get("method"), request.get("params")
        if self.faults.warming_up:
            return _error(request_id, RPC_IN_WARMUP, "Loading block index…"), 500
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

    def _on_thread(self, work: Callable[[Values], Any]) -> Answer:
        async def answer(values: Values) -> Any:
            try:
                found = await self.run(lambda: work(values))
            except (CannotPay, BadTransaction) as error:
                raise Refused(str(error), 400) from error
            if self._node.mempool:
                self.changed.set()
            return found

        return answer

    async def _wait(self, values: Values) -> dict[str, int]:
        """Answers when the chain has reached a height, or after ten seconds with what it has."""
        wanted, height = whole(values, "height", least=1), 0
        for _ in range(WAIT_STEPS):
            _, height = await self.run(lambda: self._node.tip)
            if height >= wanted:
                break
            await asyncio.sleep(0.05)
        return {"height": height}

    def _info(self, _: Values) -> dict[str, Any]:
        tip, height = self._node.tip
        wallet = self._wallet
        return {
            "height": height,
            "tip": tip,
            "mempool": len(self._node.mempool),
            "assets": {"L-BTC": LBTC_ASSET, "USDT": asset_id(wallet.usdt), "JUNK": asset_id(wallet.junk)},
            "balances": {asset: str(value) for asset, value in wallet.balances().items()},
        }

    def _pay(self, values: Values) -> dict[str, Any]:
        """To a `uri`, or to an `address`; `amount` and `assetid` override those of the URI."""
        named = {name: str(values[name]) for name in ("address", "amount", "assetid") if name in values}
        asked = (parse_uri(str(values["uri"])) if "uri" in values else {}) | named
        address = asked.get("address", "")
        units, asset = parse_amount(asked.get("amount", "")), parse_asset(asked.get("assetid", ""))
        if values.get("unconfidential"):
            destination = parse_destination(address)
            address = destination.unconfidential if destination is not None else address
        junk, final = bool(values.get("junk")), bool(values.get("final"))
        return {"txid": self._wallet.pay(address, units, asset, junk=junk, final=final)}

    def _mine(self, values: Values) -> dict[str, Any]:
        blocks = whole(values, "blocks", 1, least=1, most=1000)
        return {"blocks": self._node.mine(blocks, empty=bool(values.get("empty")))}

    def _reorg(self, values: Values) -> dict[str, Any]:
        """Replace the newest `depth` blocks by `depth + 1` others.

        The transactions return to the mempool, or with `drop` those of the wallet are double-spent.
        """
        depth = whole(values, "depth", 1, least=1, most=1000)
        returned = self._node.disconnect(depth)
        dropped = []
        if values.get("drop"):
            for txid in returned:
                if txid in self._node.mempool:
                    self._wallet.replace(txid)
                    dropped.append(txid)
        hashes = self._node.mine(1, empty=not values.get("drop")) + self._node.mine(depth, empty=True)
        return {
            "blocks": hashes,
            "returned": [txid for txid in returned if txid not in dropped],
            "dropped": dropped,
        }

    def _rewind(self, values: Values) -> dict[str, Any]:
        """Know `depth` blocks less than before, and nothing of what waits."""
        self._node.rewind(whole(values, "depth", 1, least=1, most=1000))
        return self._info(values)

    def _catch_up(self, values: Values) -> dict[str, Any]:
        """Learn them again."""
        self._node.catch_up()
        return self._info(values)

    def _state(self, values: Values) -> dict[str, Any]:
        """What a starting or pruned node says of itself: `syncing`, `mempool_loading`, `pruned_below`."""
        node = self._node
        node.syncing = bool(values.get("syncing"))
        node.mempool_loading = bool(values.get("mempool_loading"))
        node.pruned_below = whole(values, "pruned_below", 0, least=0, most=10_000_000)
        return {
            "syncing": node.syncing,
            "mempool_loading": node.mempool_loading,
            "pruned_below": node.pruned_below,
        }

    def _replace(self, values: Values) -> dict[str, Any]:
        return {"txid": self._wallet.replace(str(values.get("txid", "")))}


class _CutConnection(Response):
    """Announces a body and dies: the client sees the connection break without an answer."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _error(request_id: Any, code: int, message: str) -> dict[str, Any]:
    return {"result": None, "error": {"code": code, "message": message}, "id": request_id}
