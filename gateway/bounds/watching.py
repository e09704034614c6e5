"""The application with one request, as far as its turn goes: whether it does something, waits, or is done."""

from __future__ import annotations

import types
from collections.abc import Callable, Generator
from typing import Any, Protocol

from uvicorn._types import ASGI3Application, Scope

from gateway.bounds.turns import Turn, Turns


class Served(Protocol):
    """The connection that a request came by."""

    @property
    def whole(self) -> bool:
        """Whether all of the request has come."""

    def answering(self, status: int) -> None:
        """An answer begins."""

    async def another_turn(self) -> Turn:
        """Wait for one, since the body is here for which the first one was given up."""


class Watched:
    """The application, whose turn ends when it waits for the client, answers, or has ended."""

    def __init__(self, app: ASGI3Application, connection: Served, turns: Turns, turn: Turn) -> None:
        self._app = app
        self._connection = connection
        self._turns = turns
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """ASGI."""

        async def receiving() -> Any:
            if self._connection.whole:
                return await receive()
            self._turns.end(self._turn)
            message = await receive()
            if message["type"] == "http.request" and not message["more_body"]:
                self._turn = await self._connection.another_turn()
            return message

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._connection.answering(message["status"])
            await send(message)
            self._turns.end(self._turn)

        try:
            await _in_steps(self._app(scope, receiving, sending), self._goes_on)
        finally:
            self._turns.end(self._turn)

    def _goes_on(self) -> None:
        self._turns.goes_on(self._turn)


@types.coroutine
def _in_steps(coroutine: Any, on_step: Callable[[], None]) -> Generator[Any, Any, None]:
    """Wait for a coroutine, and call `on_step` before each of its steps."""
    sent, thrown = None, None
    try:
        while True:
            on_step()
            waits = coroutine.send(sent) if thrown is None else coroutine.throw(thrown)
            sent, thrown = None, None
            try:
                sent = yield waits
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the coroutine's
                thrown = error
    except StopIteration:
        return
