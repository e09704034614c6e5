"""Routes that ask who it is before they read what was sent, and that read no body without bounds.

The framework reads and parses a body before it asks for anything that a route depends on: a stranger without a token
could have megabytes parsed for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from gateway.http.problems import Problem
from gateway.wiring.dependencies import ADMITTING, Admit

PARTS_MAX = 4096
"""Brackets and commas of a body, those inside its strings included."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


async def read_bounded(request: Request) -> None:
    """Read the body. Raises `Problem` 413 as soon as what has come would make more objects than any body of ours
    needs: the rest of it is not read."""
    parts, found = [], 0
    async for part in request.stream():
        found += sum(part.count(mark) for mark in (b"[", b"{", b","))
        if found > PARTS_MAX:
            raise Problem("body_too_complex")
        parts.append(part)
    request._body = b"".join(parts)  # noqa: SLF001 - where `Request.body` looks


class BoundedRoute(APIRoute):
    """A route that first lets in, or refuses, whoever asks."""

    def get_route_handler(self) -> Handler:
        """As the framework's, behind our questions."""
        handle = super().get_route_handler()
        admitted = admitting(set(_calls(self.dependant)))

        async def bounded(request: Request) -> Response:
            for admit in admitted:
                await admit(request)
            if self.body_field is not None:
                await read_bounded(request)
            return await handle(request)

        return bounded


def admitting(calls: AbstractSet[Callable[..., Any]]) -> Sequence[Admit]:
    """How a route that depends on these asks who it is, before anything else."""
    return [admit for dependency, admit in ADMITTING if dependency in calls]


def _calls(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    for part in dependant.dependencies:
        if part.call is not None:
            yield part.call
        yield from _calls(part)
