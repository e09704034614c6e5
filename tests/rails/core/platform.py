"""A payment core over fakes, as tests of the core use it."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.domain.state import Account
from ledger.identifiers import Identifiers, Randomness
from ledger.log.categories import Categories
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from ledger.money import BTC, USD, USDT, Asset, Money
from ledger.testing.memory_log import MemoryLog
from rails.contract import Rail
from rails.domain.state import PAYMENTS
from rails.domain.topup import TopupState, TopupView
from rails.payments.runner import RailRunner, RunnerRules
from rails.payments.service import Payments
from rails.store.sql import SqlRailStore
from rails.testing.fake_capabilities import fake_capabilities
from rails.testing.fake_rail import FakeNetwork, FakeRail
from rails.testing.fixed_rates import FixedRates
from rails.testing.memory_store import MemoryRailStore
from tests.waiting import SECONDS_MAX

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
RULES = RunnerRules()
RETURN_URL = "https://llamasketch.test/topups/{payment_id}"


@dataclass
class Platform:
    """Everything of one running payment core, and the world around it."""

    clock: ManualClock
    ids: Identifiers
    network: FakeNetwork
    log: Any
    store: Any
    rates: FixedRates
    payments: Payments
    rails: dict[str, Rail]

    async def account(self, account_id: str) -> Account:
        """The account as the ledger has it."""
        state: Account = (await self.log.state(account_id)).state
        return state

    async def posted(self, account_id: str) -> int:
        """Its credits."""
        return (await self.account(account_id)).posted(self.clock())

    async def reference(self, payment_id: str) -> str:
        """The network's handle of a payment."""
        place = await self.store.reference(payment_id)
        assert place is not None
        assert place.reference is not None
        return str(place.reference)

    async def pay(self, payment_id: str, minor: int | None = None, asset: Asset | None = None) -> str:
        """A payer pays a payment; what is asked by default. Nobody notices yet."""
        reference = await self.reference(payment_id)
        due = self.network.way(reference).order.amount_due
        return await self.network.pay(reference, Money(minor or due.minor, asset or due.asset))


def make_platform(
    assets: tuple[Asset, ...] = (USD, BTC, USDT), randomness: Randomness = secrets.token_bytes
) -> Platform:
    """A core in memory; bitcoin costs 100,000 dollars. `randomness` makes its ids."""
    clock = ManualClock(START)
    log = MemoryLog([ACCOUNTS, PAYMENTS], clock)
    return assemble(clock, log, MemoryRailStore(log.tables), assets, randomness)


def assemble(
    clock: ManualClock,
    log: Any,
    store: Any,
    assets: tuple[Asset, ...] = (USD, BTC, USDT),
    randomness: Randomness = secrets.token_bytes,
) -> Platform:
    """A core over a given log and store."""
    ids = Identifiers(clock, randomness)
    network = FakeNetwork(clock)
    rail = FakeRail(network, capabilities=fake_capabilities(assets))
    rates = FixedRates(clock, {"USD": Fraction(1), "USDT": Fraction(1), "BTC": Fraction(100_000)})
    rails: dict[str, Rail] = {rail.name: rail}
    payments = Payments(log=log, store=store, rails=rails, rates=rates, ids=ids, clock=clock)
    return Platform(clock, ids, network, log, store, rates, payments, rails)


class _Postgres:
    """A log that writes by the sequencer and reads by the reader."""

    def __init__(self, sequencer: Sequencer, reader: PostgresLogReader) -> None:
        self.submit = sequencer.submit
        self.state = reader.state
        self.events = reader.events


@asynccontextmanager
async def on_postgres(url: str) -> AsyncIterator[Platform]:
    """A core on PostgreSQL, as one process of the platform has it."""
    clock = ManualClock(START)
    categories = Categories([ACCOUNTS, PAYMENTS])
    engine = create_async_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with open_datastore(url) as datastore:
        sequencer = Sequencer(LogRecorder(datastore), categories, clock)
        sequencer.start()
        async with AsyncConnectionPool(url, min_size=1, max_size=2, open=False) as pool:
            log = _Postgres(sequencer, PostgresLogReader(pool, categories))
            yield assemble(clock, log, SqlRailStore(engine))
        sequencer.stop()
    await engine.dispose()


async def opened(platform: Platform, account_id: str | None = None, **asked: Any) -> TopupView:
    """A top-up: of 500 credits if nothing else is asked, of somebody new if nobody is named."""
    return await platform.payments.open_topup(
        account_id or platform.ids.account(), "fake", return_url=RETURN_URL, **(asked or {"wanted": 500})
    )


async def settled(platform: Platform, topup: TopupView) -> TopupView:
    """All money is final, and we have asked."""
    await platform.network.settle()
    return await platform.payments.observe(topup.payment_id)


def runner_of(platform: Platform, rules: RunnerRules = RULES) -> RailRunner:
    """What follows the fake rail; nothing runs by itself yet."""
    return RailRunner(
        platform.payments,
        platform.rails["fake"],
        clock=platform.clock,
        rules=rules,
        randomness=random.Random(1),
    )


async def notifications_waiting(store: Any, rail: str = "fake") -> int:
    """How many wait, whenever they are due."""
    return len(await store.due_notifications(rail, START + timedelta(days=999), 1000))


async def until_state(platform: Platform, topup: TopupView, state: TopupState) -> TopupView:
    """Look again whenever the loop has run everything that is ready."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            seen = await platform.payments.topup(topup.payment_id)
            if seen.state is state:
                return seen
            await asyncio.sleep(0)
