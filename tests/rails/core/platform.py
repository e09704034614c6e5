"""A payment core over fakes, as tests of the core use it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.domain.state import Account
from ledger.identifiers import Identifiers
from ledger.log.memory import MemoryLog
from ledger.money import BTC, USD, USDT, Asset, Money
from rails.contract import Rail
from rails.fake import FakeNetwork, FakeRail, fake_capabilities
from rails.payment_state import PAYMENTS
from rails.rates import FixedRates
from rails.service import Payments
from rails.store_memory import MemoryRailStore

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
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


def make_platform(assets: tuple[Asset, ...] = (USD, BTC, USDT)) -> Platform:
    """A core in memory; bitcoin costs 100,000 dollars."""
    clock = ManualClock(START)
    log = MemoryLog([ACCOUNTS, PAYMENTS], clock)
    return assemble(clock, log, MemoryRailStore(log.tables), assets)


def assemble(
    clock: ManualClock, log: Any, store: Any, assets: tuple[Asset, ...] = (USD, BTC, USDT)
) -> Platform:
    """A core over a given log and store."""
    ids = Identifiers(clock)
    network = FakeNetwork(clock)
    rail = FakeRail(network, capabilities=fake_capabilities(assets))
    rates = FixedRates(clock, {"USD": Fraction(1), "USDT": Fraction(1), "BTC": Fraction(100_000)})
    rails: dict[str, Rail] = {rail.name: rail}
    payments = Payments(log=log, store=store, rails=rails, rates=rates, ids=ids, clock=clock)
    return Platform(clock, ids, network, log, store, rates, payments, rails)
