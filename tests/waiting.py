"""Waiting for what another process does and cannot tell us about. Everything else is awaited directly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

SECONDS_MAX = 60.0
"""For what takes no time on a machine that is at rest. It may stall for seconds, and run twenty times as slowly."""
POLL_SECONDS = 0.01
POLL_SECONDS_MAX = 0.08
"""Whoever asks all the time takes the processor from what is waited for."""

Answer = TypeVar("Answer")


async def eventually(condition: Callable[[], bool], what: str, seconds_max: float = SECONDS_MAX) -> None:
    """Return as soon as `condition()` holds; fail, saying `what`, if it never does."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds_max
    while not condition():
        assert loop.time() < deadline, f"never happened: {what}"
        await asyncio.sleep(POLL_SECONDS)


async def until(
    ask: Callable[[], Awaitable[Answer]],
    wanted: Callable[[Answer], bool],
    what: str,
    *,
    seconds_max: float = SECONDS_MAX,
    pause_seconds: float = POLL_SECONDS,
) -> Answer:
    """Ask again and again until the answer is `wanted`, and return it; fail, saying `what`, if it never is."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds_max
    while not wanted(answer := await ask()):
        assert loop.time() < deadline, f"never happened: {what}; the last answer was {answer!r:.500}"
        await asyncio.sleep(pause_seconds)
        pause_seconds = max(pause_seconds, min(pause_seconds * 2, POLL_SECONDS_MAX))
    return answer
