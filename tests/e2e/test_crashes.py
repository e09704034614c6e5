"""kill -9 of every process in turn, under load; then of everything at once. Nothing is lost and nothing is done twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.program import Customer, Load
from tests.e2e.stack import PROCESSES, Stack
from tests.waiting import SECONDS_MAX, eventually

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FIRST = {"postgres"}
"""Whose death is tried each time; the others' in `make test-thorough`."""


@pytest_asyncio.fixture(scope="module")
async def shaken() -> AsyncIterator[Stack]:
    """A stack of this module's own, to be mistreated."""
    stack = Stack()
    try:
        await stack.start()
        yield stack
    finally:
        await stack.dispose()


@pytest_asyncio.fixture(scope="module")
async def load(shaken: Stack) -> AsyncIterator[Load]:
    """Customers who go on painting and paying whatever happens."""
    async with Load(shaken) as load:
        yield load


@pytest.mark.parametrize(
    "name",
    [name if name in FIRST else pytest.param(name, marks=pytest.mark.thorough) for name in PROCESSES],
)
async def test_the_stack_recovers_by_itself_from_the_death_of(name: str, shaken: Stack, load: Load) -> None:
    await load.under_way()
    await shaken.kill_child(name)
    async with Customer(shaken) as somebody, asyncio.timeout(SECONDS_MAX):
        await somebody.begin()
        await somebody.paint_until_it_ends("a llama after the storm")
        await somebody.top_up("lightning")
    assert set(shaken.children()) == set(PROCESSES)


async def test_every_job_ended_once_and_every_payment_was_credited_once(shaken: Stack, load: Load) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        await load.finish()
    assert load.painted + load.failed > 0
    for customer in load.customers:
        await customer.adds_up()
    code, report = await shaken.llamasketch("verify")
    assert (code, report["ok"]) == (0, True), report


async def test_after_the_death_of_the_supervisor_nothing_runs_on_and_nothing_is_lost(
    shaken: Stack, load: Load
) -> None:
    async with Customer(shaken) as customer:
        await customer.begin()
        job = await customer.paint_until_it_ends("a llama to remember")
        await customer.top_up("card")
        open_bill = await customer.open("lightning")
        pending = await customer.open("liquid")
        await customer.pay(pending)
        running_job = await customer.request("a llama in the making")
        before = await customer.image(job)
        await shaken.stop(signal.SIGKILL)
        await eventually(lambda: not shaken.belongings(), "no process outlives the supervisor")
        await shaken.start()
        async with asyncio.timeout(SECONDS_MAX):
            assert await customer.image(job) == before
            await customer.ends(running_job)
            await customer.credited(pending)
            await customer.pay(open_bill)
            await customer.credited(open_bill)
            await customer.adds_up()
    code, report = await shaken.llamasketch("verify")
    assert (code, report["ok"]) == (0, True), report


async def test_an_orderly_stop_leaves_nothing_behind(shaken: Stack) -> None:
    assert await shaken.stop(signal.SIGINT) == 0
    await eventually(lambda: not shaken.belongings(), "everything has stopped")
