"""The HTTP side of the stand-in feeds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sandbox.common import control
from sandbox.rates.prices import Prices


def build(prices: Prices) -> Starlette:
    """The application: three feeds, and their control API under `/sandbox`."""

    async def answer(feed: str, shape: Callable[[], dict[str, object]]) -> Response:
        faults = prices.faults[feed]
        prices.reads[feed] += 1
        await asyncio.sleep(faults.delay_ms / 1000)
        if faults.down:
            return PlainTextResponse("Service Unavailable", status_code=503)
        if faults.garbage:
            return PlainTextResponse("<html>maintenance</html>", media_type="text/html")
        return JSONResponse(shape())

    async def coinbase(_: Request) -> Response:
        return await answer("coinbase", prices.as_coinbase)

    async def kraken(request: Request) -> Response:
        match request.query_params.get("pair"):
            case "XBTUSD" | "XXBTZUSD":
                return await answer("kraken", prices.as_kraken)
            case "USDTUSD" | "USDTZUSD":
                return await answer("kraken", partial(prices.as_kraken, of_usdt=True))
            case _:
                return JSONResponse({"error": ["EQuery:Unknown asset pair"]})

    async def bitstamp(_: Request) -> Response:
        return await answer("bitstamp", prices.as_bitstamp)

    async def coinbase_usdt(_: Request) -> Response:
        return await answer("coinbase", partial(prices.as_coinbase, of_usdt=True))

    async def bitstamp_usdt(_: Request) -> Response:
        return await answer("bitstamp", partial(prices.as_bitstamp, of_usdt=True))

    return Starlette(
        routes=[
            Route("/v2/prices/BTC-USD/spot", coinbase),
            Route("/v2/prices/USDT-USD/spot", coinbase_usdt),
            Route("/0/public/Ticker", kraken),
            Route("/api/v2/ticker/btcusd/", bitstamp),
            Route("/api/v2/ticker/usdtusd/", bitstamp_usdt),
            control.post("/sandbox/faults", prices.set_faults),
            control.get("/sandbox/health", lambda _: {"ok": True, "reads": prices.reads}),
        ]
    )
