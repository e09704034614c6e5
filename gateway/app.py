"""The application: routes, pages, errors, and the services behind them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from gateway.auth.networks import Origins
from gateway.bounds.bodies import BodyLimit, HeldBodies
from gateway.http.middleware import RequestContext
from gateway.http.problems import Problem, install_problem_handlers, problem_of_http
from gateway.reference.openapi import ROUTERS
from gateway.reference.page import install_reference
from gateway.routes import (
    metrics,
    objects,
)
from gateway.routes.direct import DirectRoutes
from gateway.settings import Settings
from gateway.web.pages import Pages, build_router, load_pages
from gateway.wiring.dependencies import PeopleDep, current_principal, http_of, payments_of
from gateway.wiring.services import running_services
from ledger.clock import Clock, system_clock
from rails.contract import RailPlugin
from rails.payments.registry import installed_plugins

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
    images_at = settings.object_store_public_endpoint or settings.object_store_endpoint
    pages = load_pages(
        sandbox=settings.embedded,
        node_modules=node_modules,
        version=version,
        image_origins=[images_at] if images_at else [],
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
    _include_routes(app, settings)
    _show_pages(app, pages, settings)
    app.router.routes.insert(0, DirectRoutes(app.router, _each(list(app.routes))))
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    app.add_middleware(
        BodyLimit,
        seconds_max=settings.body_seconds,
        held=HeldBodies(settings.body_bytes, settings.body_bytes_address),
        origins=Origins(settings.trusted_proxies),
    )
    app.add_middleware(RequestContext, tls=settings.public_url.startswith("https"))
    return app


def _include_routes(app: FastAPI, settings: Settings) -> None:
    for router in (*ROUTERS, metrics.router):
        app.include_router(router)
    if not settings.object_store_url:
        app.include_router(objects.router)
    if settings.embedded:
        for entry in importlib.metadata.entry_points(group="llamasketch.embedded_routers"):
            # An image of the API alone has no sandbox.
            if find_spec(entry.module.partition(".")[0]) is None:
                continue
            app.include_router(entry.load()(current_principal, payments_of, http_of, _refused))
        app.add_api_route("/.well-known/jwks.json", _jwks, include_in_schema=False)


def _show_pages(app: FastAPI, pages: Pages, settings: Settings) -> None:
    # The reference is made from the routes above, so it comes after them.
    install_reference(app, pages, settings)
    app.include_router(build_router(pages, sandbox=settings.embedded))


def _refused(status: int, code: str, detail: str) -> Problem:
    """How a plugged-in router says no: its codes are its own."""
    return Problem(code, detail, status=status)


async def _jwks(people: PeopleDep) -> dict[str, Any]:
    return {"keys": []} if people.issuer is None else people.issuer.jwks()


def _methods_at(request: Request) -> list[str]:
    """What may be asked of this address: the framework names the methods of one of its routes alone."""
    return sorted(
        {method for route in _each(request.app.routes) for method in _methods(route, request.scope)}
    )


def _each(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from _each(included.routes)


def _methods(route: BaseRoute, scope: Scope) -> set[str]:
    matches = isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE
    return set(getattr(route, "methods", None) or ()) if matches else set()


def _answer_browsers_with_pages(app: FastAPI, pages: Pages) -> None:
    """A person gets a page where a program gets a problem document."""

    async def missing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            error.headers = {**(error.headers or {}), "Allow": ", ".join(_methods_at(request))}
        wants_page = "text/html" in request.headers.get("accept", "")
        if wants_page and not request.url.path.startswith("/v1/"):
            page = pages.error(error.status_code)
            page.headers.update(error.headers or {})
            return page
        return problem_of_http(error).response()

    app.add_exception_handler(HTTPException, missing)
