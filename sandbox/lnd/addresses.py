"""Lightning addresses of the sandbox wallet: `anything@127.0.0.1:<control port>`.

Protocol source: LUD-06 and LUD-16. Served beside the control API, without encryption.
"""

from __future__ import annotations

import hashlib
import json

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sandbox.lnd.node import Node

LEAST_MSAT, MOST_MSAT = 1_000, 10**10
_CALLBACK = "/lnurlp/{name}/invoice"


def routes(node: Node) -> list[Route]:
    """Who can be paid, and an invoice for it."""

    async def who(request: Request) -> JSONResponse:
        name = request.path_params["name"]
        callback = str(request.base_url).rstrip("/") + _CALLBACK.format(name=name)
        return JSONResponse(
            {
                "tag": "payRequest",
                "callback": callback,
                "minSendable": LEAST_MSAT,
                "maxSendable": MOST_MSAT,
                "metadata": _metadata(name, request.url.netloc),
            }
        )

    async def invoice(request: Request) -> JSONResponse:
        amount = request.query_params.get("amount", "")
        if not amount.isdecimal() or not LEAST_MSAT <= int(amount) <= MOST_MSAT:
            return JSONResponse({"status": "ERROR", "reason": "amount is out of range"})
        metadata = _metadata(request.path_params["name"], request.url.netloc)
        digest = hashlib.sha256(metadata.encode()).digest()
        return JSONResponse({"pr": node.payer.wallet_invoice(int(amount), "", digest), "routes": []})

    return [Route("/.well-known/lnurlp/{name}", who), Route(_CALLBACK, invoice)]


def _metadata(name: str, host: str) -> str:
    return json.dumps([["text/identifier", f"{name}@{host}"], ["text/plain", "The sandbox wallet"]])
