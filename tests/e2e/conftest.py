"""The whole product, as a newcomer starts it, and browsers in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import httpx
import pytest_asyncio
from playwright.async_api import Browser

from tests.e2e.people import Person
from tests.e2e.stack import Stack
from tests.waiting import SECONDS_MAX

Arrive: TypeAlias = Callable[..., Awaitable[Person]]


@pytest_asyncio.fixture(scope="package")
async def stack() -> AsyncIterator[Stack]:
    """The process tree, for all tests that leave it standing."""
    stack = Stack()
    try:
        await stack.start()
        yield stack
    finally:
        await stack.dispose()


@pytest_asyncio.fixture
async def arrive(chromium: Browser, stack: Stack) -> AsyncIterator[Arrive]:
    """`await arrive()`: somebody new. At the end no console may have shown a fault."""
    people: list[Person] = []

    async def make(**options: Any) -> Person:
        context = await chromium.new_context(
            **{"viewport": {"width": 1280, "height": 860}, "reduced_motion": "reduce", **options}
        )
        context.set_default_timeout(SECONDS_MAX * 1000)
        person = Person(stack, context, await context.new_page())
        person.watch(person.page)
        people.append(person)
        return person

    yield make
    for person in people:
        await person.context.close()
    assert [fault for person in people for fault in person.faults] == []


@pytest_asyncio.fixture
async def visitor(arrive: Arrive) -> Person:
    """Somebody who has never been here."""
    return await arrive()


@pytest_asyncio.fixture
async def paint_seconds(stack: Stack) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
    """`await worker(20)`: from now on it paints twenty times slower. Undone afterwards."""
    async with httpx.AsyncClient(base_url=stack.setting("SANDBOX_COMFYUI_CONTROL_URL")) as http:

        async def slow(factor: float) -> None:
            (await http.post("/sandbox/faults", json={"slow": factor})).raise_for_status()

        yield slow
        (await http.post("/sandbox/faults", json={"reset": True})).raise_for_status()
