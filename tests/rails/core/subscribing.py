"""A platform with one subscriber on the fake network, with the log and the rows in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.domain.state import Account
from ledger.domain.view import plan_in_force
from ledger.identifiers import AccountId, Identifiers
from ledger.plans import PLANS, Plan
from ledger.testing.memory_log import MemoryLog
from rails.domain.state import PAYMENTS
from rails.payments.service import Payments
from rails.recurring import Offer
from rails.subscriptions.record import SubscriptionRecord
from rails.subscriptions.service import Subscriptions
from rails.subscriptions.usage import Uses
from rails.testing.fake_rail import FakeNetwork, FakeRail
from rails.testing.fixed_rates import FixedRates
from rails.testing.memory_store import MemoryRailStore
from rails.testing.memory_subscriptions import MemorySubscriptionStore
from rails.testing.memory_uses import MemoryUseStore

STARTER, PRO, UNLIMITED = (Offer(plan=name, length="month") for name in ("starter", "pro", "unlimited"))
RETURN_URL = "https://llamasketch.test/account?subscription={subscription_id}"
MONTH, GRACE = timedelta(days=31), timedelta(days=1)


@dataclass
class Town:
    """A platform with one subscriber, and the world around it."""

    clock: ManualClock
    network: FakeNetwork
    log: MemoryLog
    subscriptions: Subscriptions
    payments: Payments
    account_id: AccountId
    ids: Identifiers
    uses: Uses
    plans: Mapping[str, Plan]

    async def account(self) -> Account:
        state: Account = (await self.log.state(self.account_id)).state
        return state

    async def credits(self) -> int:
        return (await self.account()).posted(self.clock())

    async def plan(self) -> str:
        return plan_in_force(await self.account(), self.clock(), self.plans).name

    async def open(self, offer: Offer = STARTER, key: str | None = None) -> SubscriptionRecord:
        return await self.subscriptions.subscribe(
            self.account_id, "fake", offer, return_url=RETURN_URL, key=key
        )

    async def begin(self, offer: Offer = STARTER) -> SubscriptionRecord:
        """Subscribe and pay; the platform has looked."""
        record = await self.open(offer)
        await self.network.subscriptions.pay(page_of(record))
        return await self.subscriptions.observe(record.subscription_id)

    async def renew(self, record: SubscriptionRecord) -> SubscriptionRecord:
        """The period is over, and the platform has looked."""
        self.clock.advance(MONTH)
        await self.network.subscriptions.renew(name_of(record))
        return await self.subscriptions.observe(record.subscription_id)

    async def upgrade(self, record: SubscriptionRecord, offer: Offer, key: str = "up") -> SubscriptionRecord:
        shown, _, _ = await self.subscriptions.preview(record.subscription_id, offer)
        return await self.subscriptions.change(record.subscription_id, offer, at=shown.at, key=key)

    def again(self) -> Town:
        """The platform after a crash: nothing is kept but the log and its rows."""
        return town_on(self.clock, self.network, self.log, self.account_id, self.ids, self.plans)


def town_on(
    clock: ManualClock,
    network: FakeNetwork,
    log: MemoryLog,
    account_id: AccountId,
    ids: Identifiers,
    plans: Mapping[str, Plan] = PLANS,
) -> Town:
    rails = {"fake": FakeRail(network)}
    subscriptions = Subscriptions(
        log=log,
        reader=log,
        store=MemorySubscriptionStore(log.tables),
        rails=rails,  # type: ignore[arg-type]
        ids=ids,
        clock=clock,
        plans=plans,
    )
    uses = Uses(
        log=log,
        store=MemoryUseStore(log.tables),
        subscriptions=MemorySubscriptionStore(log.tables),
        rails=rails,  # type: ignore[arg-type]
        ids=ids,
        clock=clock,
    )
    payments = Payments(
        log=log,
        store=MemoryRailStore(log.tables),
        rails=rails,  # type: ignore[arg-type]
        rates=FixedRates(clock, {}),
        ids=ids,
        clock=clock,
        elsewhere=subscriptions.deal_with,
    )
    return Town(clock, network, log, subscriptions, payments, account_id, ids, uses, plans)


def new_town() -> Town:
    clock = ManualClock(datetime(2026, 1, 5, 12, tzinfo=UTC))
    network = FakeNetwork(clock)
    network.subscriptions.prices = {STARTER: 800, PRO: 2_000, UNLIMITED: 4_000}
    log = MemoryLog([ACCOUNTS, PAYMENTS], clock)
    ids = Identifiers(clock)
    return town_on(clock, network, log, ids.account(), ids)


def page_of(record: SubscriptionRecord) -> str:
    assert record.page_reference is not None
    return record.page_reference


def name_of(record: SubscriptionRecord) -> str:
    assert record.reference is not None
    return record.reference


async def invoice_of(town: Town, record: SubscriptionRecord) -> str:
    seen = town.network.subscriptions.observe(name_of(record))
    assert seen is not None
    return seen.invoices[-1].reference


async def unpaid(town: Town, record: SubscriptionRecord) -> str:
    return await invoice_of(town, record)
