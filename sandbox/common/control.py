"""Control endpoints: JSON in, JSON out, and one sentence under `error` where something is refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Values = dict[str, Any]
"""The members of a request: its JSON body or its query, and the parameters of its path."""
Answer = Callable[[Values], Any]
"""Answers the JSON value, or an awaitable of it. Raises `Refused`, or `ValueError` for 400."""
MAX_BODY_BYTES = 64 * 1024


class Refused(Exception):
    """The stand-in does not do this; the message is the reason."""

    def __init__(self, text: str, status: int = 409) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


def get(path: str, answer: Answer) -> Route:
    """A route that reads."""

    async def endpoint(request: Request) -> Response:
        return await _answered(answer, {**request.query_params, **request.path_params})

    return Route(path, endpoint)


def post(path: str, answer: Answer) -> Route:
    """A route that changes something. An empty body is an empty object."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await request.body()
            values = msgspec.json.decode(body or b"{}", type=Values) if len(body) <= MAX_BODY_BYTES else None
        except msgspec.DecodeError:
            values = None
        if values is None:
            return to_json({"error": "the body must be a JSON object of at most 64 KiB"}, 400)
        return await _answered(answer, {**values, **request.path_params})

    return Route(path, endpoint, methods=["POST"])


async def _answered(answer: Answer, values: Values) -> Response:
    try:
        found = answer(values)
        return to_json(await found if inspect.isawaitable(found) else found)
    except Refused as error:
        return to_json({"error": error.text}, error.status)
    except ValueError as error:
        return to_json({"error": str(error)}, 400)


def to_json(value: Any, status: int = 200) -> Response:
    """A response with a JSON body."""
    return Response(msgspec.json.encode(value) + b"\n", status, media_type="application/json")


def text(values: Values, name: str) -> str:
    """A string that must be there. Raises `ValueError`."""
    value = values.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is missing")  # noqa: TRY004 -- a client's fault
    return value


def whole(
    values: Mapping[str, Any], name: str, default: int | None = None, *, least: int = 0, most: int = 10**18
) -> int:
    """A whole number in range. Raises `ValueError`."""
    value = values.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} is a whole number from {least} to {most}")
    return value
