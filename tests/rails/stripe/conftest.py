"""One sandbox process per module; a calm world per test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rails.memory import MemoryReferences
from rails.stripe.rail import CardRail
from tests.rails.contract import Desk
from tests.rails.stripe.outside import CardWorld, Inbox, Relay, Sandbox


@pytest.fixture(scope="module")
async def inbox() -> AsyncIterator[Inbox]:
    inbox = Inbox()
    await inbox.start()
    yield inbox
    await inbox.stop()


@pytest.fixture(scope="module")
async def sandbox(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    folder: Path = tmp_path_factory.mktemp("stripe")
    sandbox = Sandbox(folder, f"http://127.0.0.1:{inbox.port}/v1/hooks/card")
    await sandbox.start()
    yield sandbox
    assert sandbox.stop() == 0


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
