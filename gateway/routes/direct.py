"""The addresses that are asked for most, without what the framework does anew for every request.

For each request it looks through all routes, and walks the tree of what a route depends on. Both are the same each time,
so they are found out once here, from what the framework itself has made of a route's signature. What comes as it should
is answered here. Everything else (another method, a parameter or a body that is not as it should be) goes the
framework's way from the start: it is refused there, in the framework's words, and nothing has been done with it before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.routes.bounded import admitting, read_bounded
from gateway.routes.presenting import written

FREQUENT = (
    ("POST", "/v1/generations"),
    ("GET", "/v1/generations/{job_id}"),
    ("GET", "/v1/account"),
    ("GET", "/v1/statement"),
    ("GET", "/v1/session"),
    ("POST", "/v1/worker/claim"),
    ("POST", "/v1/worker/jobs/{job_id}/heartbeat"),
    ("POST", "/v1/worker/jobs/{job_id}/complete"),
)
"""What people and workers ask for with every image."""
PASSED_ON = "llamasketch.passed_on"
"""In the scope of a request that is left to the framework."""
_NOTHING: Mapping[str, str] = {}


class _Misfit(Exception):
    """The request is not as it should be: the framework says what is wrong with it."""


class Step(NamedTuple):
    """One thing that a route depends on, or the route itself."""

    call: Callable[..., Any]
    needs: Sequence[tuple[str, int]]
    """Its arguments that are results of earlier steps."""
    dependant: Dependant


@dataclass(frozen=True, slots=True)
class DirectRoute:
    """A route whose steps are known."""

    steps: Sequence[Step]
    body: tuple[str, type[BaseModel]] | None
    """The argument that is the body, and its model."""
    admit: Sequence[Callable[[Request], Any]]
    status: int

    @classmethod
    def of(cls, route: APIRoute) -> DirectRoute:
        """Raises `TypeError` for a route that depends on more than is understood here."""
        steps: list[Step] = []
        _collect(route.dependant, steps, {})
        bodies = route.dependant.body_params
        calls = {step.call for step in steps}
        body: tuple[str, type[BaseModel]] | None = None
        if bodies:
            (field,) = bodies
            model = field.field_info.annotation
            if not (isinstance(model, type) and issubclass(model, BaseModel)):
                raise TypeError(f"{field.name} is no model")
            body = field.name, model
        return cls(tuple(steps), body, admitting(calls), route.status_code or 200)

    async def answer(self, request: Request) -> Response:
        """What the route answers. Raises `_Misfit` before it is asked."""
        for admit in self.admit:
            await admit(request)
        body = None if self.body is None else await self._read(request, self.body[1])
        results: list[Any] = []
        for step in self.steps:
            values = {name: results[place] for name, place in step.needs}
            _add_parameters(values, step.dependant, request)
            if body is not None and self.body is not None and step is self.steps[-1]:
                values[self.body[0]] = body
            results.append(await step.call(**values))
        answer = results[-1]
        return answer if isinstance(answer, Response) else written(answer, self.status)

    @staticmethod
    async def _read(request: Request, model: type[BaseModel]) -> BaseModel:
        await read_bounded(request)
        if request.headers.get("content-type") != "application/json":
            raise _Misfit
        try:
            return model.model_validate_json(await request.body())
        except ValidationError as error:
            raise _Misfit from error


def _collect(dependant: Dependant, steps: list[Step], places: dict[Callable[..., Any], int]) -> int:
    """The place of a step, behind those of all that it needs."""
    call = dependant.call
    if call is None or not inspect.iscoroutinefunction(call):
        raise TypeError(f"{call} is no coroutine function")
    if call in places:
        return places[call]
    strange = (
        dependant.cookie_params,
        dependant.websocket_param_name,
        dependant.http_connection_param_name,
        dependant.response_param_name,
        dependant.background_tasks_param_name,
        dependant.security_scopes_param_name,
        dependant.concurrency,
        not dependant.use_cache,
        len(dependant.body_params) > 1,
    )
    if any(strange):
        raise TypeError(f"{call.__name__} takes what is not understood here")
    needs = [(need.name or "", _collect(need, steps, places)) for need in dependant.dependencies]
    places[call] = len(steps)
    steps.append(Step(call, tuple(needs), dependant))
    return places[call]


def _add_parameters(values: dict[str, Any], dependant: Dependant, request: Request) -> None:
    if dependant.request_param_name is not None:
        values[dependant.request_param_name] = request
    if dependant.path_params:
        _add(values, dependant.path_params, request.path_params)
    if dependant.query_params:
        _add(values, dependant.query_params, request.query_params)
    if dependant.header_params:
        _add(values, dependant.header_params, request.headers)


def _add(values: dict[str, Any], fields: Any, received: Mapping[str, Any]) -> None:
    found, errors = request_params_to_args(fields, received)
    if errors:
        raise _Misfit
    values.update(found)


class DirectRoutes(BaseRoute):
    """All of them, as one route that stands before the framework's own."""

    def __init__(self, framework: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        """Finds those of `FREQUENT` among these routes; `framework` looks through all. Raises `TypeError` for one that
        is not there, or not understood."""
        self._framework = framework
        self._exact: dict[tuple[str, str], DirectRoute] = {}
        self._patterns: list[tuple[str, Any, DirectRoute]] = []
        known = {
            (method, route.path): route
            for route in routes
            if isinstance(route, APIRoute)
            for method in route.methods or ()
        }
        for method, path in FREQUENT:
            route = known.get((method, path))
            if route is None:
                raise TypeError(f"there is no {method} {path}")
            if "{" in path:
                self._patterns.append((method, route.path_regex, DirectRoute.of(route)))
            else:
                self._exact[method, path] = DirectRoute.of(route)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See `BaseRoute.matches`."""
        if scope["type"] != "http" or PASSED_ON in scope:
            return Match.NONE, {}
        method, path = scope["method"], scope["path"]
        exact = self._exact.get((method, path))
        if exact is not None:
            return Match.FULL, {"path_params": _NOTHING, "endpoint": exact}
        for wanted, pattern, route in self._patterns:
            if wanted == method and (found := pattern.match(path)) is not None:
                return Match.FULL, {"path_params": found.groupdict(), "endpoint": route}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `BaseRoute.handle`."""
        request = Request(scope, receive, send)
        route: DirectRoute = scope["endpoint"]
        try:
            response = await route.answer(request)
        except _Misfit:
            scope[PASSED_ON] = True
            del scope["endpoint"], scope["path_params"]
            await self._framework(scope, _again(request, receive), send)
            return
        await response(scope, receive, send)


def _again(request: Request, receive: Receive) -> Receive:
    """The body that has been read, once more, and then what else comes."""
    rest = [request._body] if hasattr(request, "_body") else []  # noqa: SLF001 - as `read_bounded` leaves it

    async def receive_again() -> Any:
        if rest:
            return {"type": "http.request", "body": rest.pop(), "more_body": False}
        return await receive()

    return receive_again
