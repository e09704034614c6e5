"""Puts one stand-in together."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount, Route

from sandbox.common.clock import MovableClock
from sandbox.common.process import listen, serve
from sandbox.stripe import balance, billing, checkout, shapes
from sandbox.stripe.api import Api
from sandbox.stripe.context import API_VERSION, Context
from sandbox.stripe.control import Control
from sandbox.stripe.faults import Faults
from sandbox.stripe.pages import Pages, static_files
from sandbox.stripe.portal import PortalPages
from sandbox.stripe.stock import stock
from sandbox.stripe.store import Store
from sandbox.stripe.webhooks import Deliverer

SWEEP_SECONDS = 1.0
_CONFIGURED = "we_configured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one stand-in is set up."""

    data: Path
    public_url: str
    webhook_url: str | None
    webhook_secret: str
    catalogue: str = "[]"
    """What is sold by subscription: see `stock`."""
    first_retry_ms: int = 500


async def run(options: Options, port: int) -> None:
    """Serve the API, its pages and its control endpoints until a signal."""
    store = Store(options.data / "stripe.sqlite")
    context = Context(store, MovableClock(store, time.time), secrets.token_bytes, options.public_url)
    faults = Faults()
    deliverer = Deliverer(context, faults, first_retry_ms=options.first_retry_ms)
    context.wake = deliverer.wake
    _configure_endpoint(context, options)
    stock(context, options.catalogue)
    app = Starlette(
        routes=[
            Route("/v1/{path:path}", Api(context, faults).handle, methods=["GET", "POST", "DELETE"]),
            *Control(context, faults, deliverer).routes(),
            *Pages(context).routes(),
            *PortalPages(context, faults).routes(),
            Mount("/c/static", static_files()),
        ]
    )
    try:
        await serve(app, listen(port), (deliverer.run(), _sweep(context, faults)))
    finally:
        store.close()


def _configure_endpoint(context: Context, options: Options) -> None:
    """The endpoint from the command line takes the place of the one from an earlier start."""
    store = context.store
    existing = store.find("webhook_endpoint", _CONFIGURED)
    if options.webhook_url is None:
        if existing is not None:
            store.delete(_CONFIGURED)
        return
    endpoint = shapes.webhook_endpoint(
        context, options.webhook_url, ["*"], options.webhook_secret, API_VERSION
    )
    kept = {**endpoint, "id": _CONFIGURED, "secret": None, "_sandbox": {"secret": options.webhook_secret}}
    if existing is None:
        store.insert(kept)
    elif not hmac.compare_digest(existing["_sandbox"]["secret"], options.webhook_secret) or (
        existing["url"] != options.webhook_url
    ):
        store.save(kept)


async def _sweep(context: Context, faults: Faults) -> None:
    """What happens by itself in time, about every second."""
    while True:
        with context.store.transaction():
            expired = checkout.sweep(context)
            billing.sweep(context, faults)
            balance.sweep(context)
        if expired:
            context.wake()
        await asyncio.sleep(SWEEP_SECONDS)
