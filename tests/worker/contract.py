"""What the real application promises to answer, held against what the worker's gateway double answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.routing import Match

from gateway.http.codes import STATUS
from gateway.http.problems import MEDIA_TYPE
from gateway.routes.shapes import ProblemOut
from gateway.routes.worker import router


def wrong_with(method: str, path: str, status: int, content_type: str, body: bytes) -> str | None:
    """How this answer differs from every answer that the application could give; None if it does not."""
    route = _route(method, path)
    if route is None:
        return "the application has no such route"
    if status >= 400:
        return _wrong_with_problem(status, content_type, body)
    if status == (route.status_code or 200):
        model = route.response_model
    elif status in route.responses:
        model = None
    else:
        return f"{route.path} never answers {status}"
    if model is None:
        return "a body where there is none" if body else None
    return _wrong_with_body(model, body)


def _route(method: str, path: str) -> APIRoute | None:
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
    routes = (route for route in router.routes if isinstance(route, APIRoute))
    return next((route for route in routes if route.matches(scope)[0] is Match.FULL), None)


def _wrong_with_problem(status: int, content_type: str, body: bytes) -> str | None:
    if content_type != MEDIA_TYPE:
        return f"a problem is not sent as {content_type}"
    wrong = _wrong_with_body(ProblemOut, body)
    if wrong is not None:
        return wrong
    code = msgspec.json.decode(body)["code"]
    return None if STATUS.get(code) == status else f"{code} is no problem with status {status}"


def _wrong_with_body(model: type[BaseModel], body: bytes) -> str | None:
    try:
        shown = model.model_validate_json(body)
    except ValidationError as error:
        return str(error)
    # The protocol's models pass over what they do not know; the application sends nothing but what they name.
    unknown = _unknown(shown, msgspec.json.decode(body)) if model is not ProblemOut else None
    return f"unknown members: {unknown}" if unknown else None


def _unknown(shown: BaseModel, sent: Mapping[str, Any]) -> list[str]:
    found = [name for name in sent if name not in type(shown).model_fields]
    for name in type(shown).model_fields:
        inner = getattr(shown, name)
        if isinstance(inner, BaseModel) and isinstance(sent.get(name), Mapping):
            found += [f"{name}.{one}" for one in _unknown(inner, sent[name])]
    return found
