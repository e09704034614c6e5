"""One sandbox process for all tests that do not mind a long history; a calm world per test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import stripe

from rails.stripe.rail import CardRail
from rails.stripe.transport import HttpxTransport
from rails.testing.harness import RailHarness
from rails.testing.memory_references import MemoryReferences
from tests.rails.stripe.outside import KEY, CardWorld, Inbox, Relay, Sandbox, running_inbox, running_sandbox


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
    await sandbox.control("forget", {})
    await world.stock()
    yield world
    await world.calm()
    await relay.stop()


@pytest.fixture
async def harness(world: CardWorld) -> AsyncIterator[RailHarness]:
    references = MemoryReferences()
    harness = RailHarness(world=world, rail=await world.start(references), references=references)
    yield harness
    await harness.rail.close()


@pytest.fixture
def rail(harness: RailHarness) -> CardRail:
    assert isinstance(harness.rail, CardRail)
    return harness.rail


@pytest.fixture
async def sdk(sandbox: Sandbox, world: CardWorld) -> AsyncIterator[stripe.StripeClient]:
    """Stripe's own client of the sandbox."""
    transport = HttpxTransport(httpx.AsyncClient(trust_env=False, verify=False))
    yield stripe.StripeClient(KEY, base_addresses={"api": sandbox.url}, http_client=transport)
    await transport.close_async()
