"""Waiting for what another process does and cannot tell us about. Everything else is awaited directly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SECONDS_MAX = 30.0
POLL_SECONDS = 0.01


async def eventually(condition: Callable[[], bool], what: str, seconds_max: float = SECONDS_MAX) -> None:
    """Return as soon as `condition()` holds; fail, saying `what`, if it never does."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds_max
    while not condition():
        assert loop.time() < deadline, f"never happened: {what}"
        await asyncio.sleep(POLL_SECONDS)
