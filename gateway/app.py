"""The application: routes, pages, errors, and the services behind them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from gateway.authentication import current_principal
from gateway.middleware import BodyLimit, RequestContext
from gateway.problems import Problem, install_problem_handlers, problem_of_http
from gateway.reference import install_reference
from gateway.routes import (
    account,
    events,
    generations,
    health,
    live,
    metrics,
    objects,
    session,
    topups,
    worker,
)
from gateway.services import running_services
from gateway.settings import Settings
from gateway.web.pages import Pages, build_router, load_pages
from ledger.clock import Clock, system_clock
from rails.contract import RailPlugin
from rails.registry import installed_plugins

NODE_MODULES = Path(__file__).resolve().parents[1] / "node_modules"
DESCRIPTION = """
Sketches in, images out, paid per image delivered. Begin with `POST /v1/visitors`: 20 free images a day.

Amounts of credits are whole numbers; money is `{"amount_minor", "asset"}` in minor units. Errors are
`application/problem+json` with a stable `code`. Send an `Idempotency-Key` with every POST and repeat
it freely: the same key and body always mean the same thing.
"""


def create_app(
    settings: Settings,
    *,
    clock: Clock = system_clock,
    environ: Mapping[str, str] | None = None,
    plugins: Sequence[RailPlugin] | None = None,
    node_modules: Path = NODE_MODULES,
) -> FastAPI:
    """Build the application. Nothing is connected before its lifespan begins.

    `environ` configures the rails (by default the process's environment), `plugins` are the rails
    that may be configured (by default all that are installed).
    """
    version = importlib.metadata.version("llamasketch")
    pages = load_pages(
        sandbox=settings.embedded,
        node_modules=node_modules,
        version=version,
        image_origins=[settings.object_store_endpoint] if settings.object_store_endpoint else [],
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_services(
            settings,
            clock,
            os.environ if environ is None else environ,
            installed_plugins() if plugins is None else plugins,
        ) as services:
            app.state.services = services
            yield

    app = FastAPI(
        title="LlamaSketch",
        version=version,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        # A redirect would lead to whatever the Host header says.
        redirect_slashes=False,
        responses={"4XX": {"description": "A problem document (RFC 9457)."}},
    )
    install_problem_handlers(app)
    _answer_browsers_with_pages(app, pages)
    for module in (account, generations, live, topups, events, session, worker, health, metrics):
        app.include_router(module.router)
    if not settings.object_store_url:
        app.include_router(objects.router)
    if settings.embedded:
        # Imported by name, since a production image has no sandbox package at all.
        wallet = importlib.import_module("sandbox.wallet.routes")
        app.include_router(wallet.build_router(current_principal, Problem))
        app.add_api_route("/.well-known/jwks.json", _jwks, include_in_schema=False)
    _show_pages(app, pages, settings)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestContext)
    return app


def _show_pages(app: FastAPI, pages: Pages, settings: Settings) -> None:
    # The reference is made from the routes above, so it comes after them.
    install_reference(app, pages, settings)
    app.include_router(build_router(pages, sandbox=settings.embedded))


async def _jwks(request: Request) -> dict[str, Any]:
    issuer = request.app.state.services.people.issuer
    return {"keys": []} if issuer is None else dict(issuer.jwks())


def _answer_browsers_with_pages(app: FastAPI, pages: Pages) -> None:
    """A person gets a page where a program gets a problem document."""

    async def missing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        wants_page = "text/html" in request.headers.get("accept", "")
        if wants_page and not request.url.path.startswith("/v1/"):
            return pages.error(error.status_code)
        return problem_of_http(error).response()

    app.add_exception_handler(HTTPException, missing)
