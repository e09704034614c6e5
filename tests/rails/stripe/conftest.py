"""One sandbox process for all tests that do not mind a long history; a calm world per test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rails.memory import MemoryReferences
from rails.stripe.rail import CardRail
from tests.rails.contract import Desk
from tests.rails.stripe.outside import CardWorld, Inbox, Relay, Sandbox, running_inbox, running_sandbox


@pytest.fixture(scope="session")
async def inbox() -> AsyncIterator[Inbox]:
    async with running_inbox() as inbox:
        yield inbox


@pytest.fixture(scope="session")
async def sandbox(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    async with running_sandbox(tmp_path_factory.mktemp("stripe"), inbox) as sandbox:
        yield sandbox


@pytest.fixture
async def world(sandbox: Sandbox, inbox: Inbox) -> AsyncIterator[CardWorld]:
    relay = Relay(sandbox.port)
    await relay.start()
    world = CardWorld(sandbox, relay, inbox)
    yield world
    await world.calm()
    await relay.stop()


@pytest.fixture
async def desk(world: CardWorld) -> AsyncIterator[Desk]:
    references = MemoryReferences()
    desk = Desk(world=world, rail=await world.start(references), references=references)
    yield desk
    await desk.rail.close()


@pytest.fixture
def rail(desk: Desk) -> CardRail:
    assert isinstance(desk.rail, CardRail)
    return desk.rail
