"""Use beyond a plan: reported once, billed with the next invoice, and paid for, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.domain.applying import capture_in, grant_in, hold_in, release_in
from ledger.domain.commands import CaptureHold, GrantCredits, HoldCredits, ReleaseHold
from ledger.domain.events import OverageBilled
from ledger.domain.lots import Source
from ledger.domain.refusals import InsufficientCredits
from ledger.domain.view import plan_in_force
from ledger.identifiers import Identifiers
from ledger.log.model import Transaction, UnitOfWork
from ledger.plans import PLANS
from ledger.testing.memory_log import MemoryLog
from processes import overage
from rails.contract import RailUnavailable, ReceiptState
from rails.domain.purchases import PlanSold
from rails.domain.state import PAYMENTS
from rails.recurring import Invoice, Offer, SubscriptionStatus
from rails.store.usage import REPORTED, WRITTEN_OFF
from rails.subscriptions.record import SubscriptionRecord
from rails.subscriptions.refusals import OverageByTheMonth
from rails.subscriptions.usage import CountsDiffer, UseUnclear
from rails.testing.fake_rail import FakeNetwork
from rails.testing.fake_subscriptions import FakeSubscriptions
from rails.testing.memory_uses import MemoryUseStore
from tests.ledger.world import paid
from tests.rails.core.subscribing import PRO, STARTER, UNLIMITED, Town, name_of, town_on

LIMIT, EACH = 50, 3
SOLD = {
    **PLANS,
    "pro": msgspec.structs.replace(PLANS["pro"], overage_limit=LIMIT, overage_usd_minor=EACH),
}
YEAR = Offer(plan="starter", length="year")


@pytest.fixture
def town() -> Town:
    return city()


def city() -> Town:
    clock = ManualClock(datetime(2026, 1, 5, 12, tzinfo=UTC))
    network = FakeNetwork(clock)
    network.subscriptions.prices = {STARTER: 800, PRO: 2_000, UNLIMITED: 4_000, YEAR: 8_000}
    network.subscriptions.overage = {"pro": EACH}
    log = MemoryLog([replace(ACCOUNTS, on_event=overage.on_account_event), PAYMENTS], clock)
    ids = Identifiers(clock)
    return town_on(clock, network, log, ids.account(), ids, SOLD)


def store(town: Town) -> MemoryUseStore:
    return MemoryUseStore(town.log.tables)


async def act(town: Town, work: Callable[[UnitOfWork], None]) -> None:
    await town.log.submit(
        Transaction(
            key=town.ids.command(),
            actor="test",
            body=["act", str(town.clock()), town.ids.command()],
            streams=(town.account_id,),
            decide=work,
        )
    )


async def draw(town: Town, credits_: int, *, fails: bool = False) -> None:
    """An image of so many credits, delivered or failed."""
    hold_id = town.ids.new("hold")
    deadline = town.clock() + timedelta(minutes=5)
    asked = HoldCredits(hold_id=hold_id, job_id=f"job_{hold_id}", credits=credits_, deadline=deadline)

    def decide(uow: UnitOfWork) -> None:
        hold_in(uow, town.account_id, asked, SOLD)
        if fails:
            release_in(uow, town.account_id, ReleaseHold(hold_id=hold_id))
        else:
            capture_in(uow, town.account_id, CaptureHold(hold_id=hold_id))

    await act(town, decide)


async def use_up(town: Town) -> None:
    await draw(town, await town.credits())


async def report_all(town: Town) -> None:
    for row in store(town).waiting():
        await town.uses.visit(row)


async def owed(town: Town) -> int:
    return (await town.account()).status.overage_owed


async def billed(town: Town) -> list[OverageBilled]:
    kept = [envelope.event for envelope in await town.log.events(town.account_id)]
    return [event for event in kept if isinstance(event, OverageBilled)]


async def begun(town: Town) -> SubscriptionRecord:
    record = await town.begin(PRO)
    await use_up(town)
    return record


async def test_use_beyond_the_plan_is_owed_reported_billed_with_the_renewal_and_paid(town: Town) -> None:
    record = await begun(town)
    assert record.overage_usd_minor == EACH
    await draw(town, 7)
    await draw(town, 5)
    assert (await owed(town), await town.credits()) == (12, 0)
    await report_all(town)
    assert [row["state"] for row in store(town).all()] == [REPORTED, REPORTED]
    await town.renew(record)
    assert (await owed(town), await town.credits()) == (0, 8_000)
    (event,) = await billed(town)
    assert (event.credits, event.consideration.worth.gross_minor) == (12, 12 * EACH)
    (lot,) = [lot for lot in (await town.account()).lots if lot.terms.consideration is not None]
    assert lot.terms.consideration is not None
    assert lot.terms.consideration.worth.gross_minor == 2_000


async def test_what_failed_is_owed_by_nobody(town: Town) -> None:
    await begun(town)
    await draw(town, 7, fails=True)
    account = await town.account()
    assert (account.status.overage_owed, account.usage.overage, await town.credits()) == (0, 0, 0)
    assert not store(town).all()


async def test_nobody_owes_more_than_the_limit_whatever_periods_come(town: Town) -> None:
    record = await begun(town)
    await draw(town, LIMIT)
    with pytest.raises(InsufficientCredits):
        await draw(town, 1)
    await report_all(town)
    town.network.subscriptions.set_card(name_of(record), works=False)
    after = await town.renew(record)
    assert after.status is SubscriptionStatus.PAST_DUE
    with pytest.raises(InsufficientCredits):
        await draw(town, 1)
    invoice = invoices(town, name_of(record))[-1]
    await town.network.subscriptions.pay_invoice(invoice.reference)
    await town.subscriptions.observe(record.subscription_id)
    assert (await owed(town), await town.credits()) == (0, 8_000)


async def test_a_pack_goes_before_what_is_billed(town: Town) -> None:
    await begun(town)
    bought = GrantCredits(lot_id=town.ids.lot(), credits=10, source=Source.PAYMENT, consideration=paid(10))
    await act(town, lambda uow: grant_in(uow, town.account_id, bought) and None)
    await draw(town, 12)
    assert await owed(town) == 2


@pytest.mark.parametrize("lost", [False, True])
async def test_a_use_that_is_reported_again_counts_once(town: Town, lost: bool) -> None:
    record = await begun(town)
    await draw(town, 4)
    (row,) = store(town).waiting()
    if lost:
        town.network.answers_to_lose = 1
        with pytest.raises(RailUnavailable):
            await town.uses.visit(row)
    await town.uses.visit(row)
    await town.again().uses.visit(row)
    assert await town.uses.compare({"subscription_id": record.subscription_id}) is None
    await town.renew(record)
    assert [event.credits for event in await billed(town)] == [4]


@pytest.mark.parametrize("counted", [False, True])
async def test_who_was_not_sure_for_a_day_asks_for_the_count_first(town: Town, counted: bool) -> None:
    record = await begun(town)
    await draw(town, 4)
    (row,) = store(town).waiting()
    if counted:
        town.network.answers_to_lose = 1
    else:
        await town.network.set_down(True)
    with pytest.raises(RailUnavailable):
        await town.uses.visit(row)
    await town.network.set_down(False)
    town.clock.advance(timedelta(hours=30))
    known = town.network.subscriptions._all[name_of(record)].uses
    kept = {f"forgotten {name}": use for name, use in known.items()}  # the rail knows no such name any more
    known.clear()
    known.update(kept)
    (row,) = store(town).waiting()
    await town.uses.visit(row)
    assert sum(credits_ for credits_, _ in known.values()) == 4
    assert [row["state"] for row in store(town).all()] == [REPORTED]


async def test_a_count_that_fits_neither_is_left_to_people(town: Town) -> None:
    record = await begun(town)
    await draw(town, 4)
    (row,) = store(town).waiting()
    town.network.answers_to_lose = 1
    with pytest.raises(RailUnavailable):
        await town.uses.visit(row)
    town.clock.advance(timedelta(hours=30))
    known = town.network.subscriptions._all[name_of(record)].uses
    known[row["use_id"]] = (3, town.clock())
    (row,) = store(town).waiting()
    with pytest.raises(UseUnclear):
        await town.uses.visit(row)
    await store(town).reported(row["use_id"])
    with pytest.raises(CountsDiffer):
        await town.uses.compare({"subscription_id": record.subscription_id})


async def test_the_last_invoice_of_what_ends_is_looked_for_and_settles(town: Town) -> None:
    record = await begun(town)
    await draw(town, 9)
    await report_all(town)
    await town.subscriptions.cancel(record.subscription_id)
    town.clock.advance(timedelta(days=31))
    await town.network.subscriptions.renew(name_of(record))
    row = town.log.tables["rail_subscriptions", record.subscription_id]
    await town.subscriptions.visit(row)
    assert (await owed(town), await town.plan()) == (0, "free")
    (event,) = await billed(town)
    assert event.consideration.worth.gross_minor == 9 * EACH
    assert row["watched"]
    town.clock.advance(timedelta(days=22))
    after = await town.subscriptions.observe(record.subscription_id)
    assert not after.watched


async def test_use_that_nothing_bills_any_more_is_written_off(town: Town) -> None:
    record = await begun(town)
    await draw(town, 9)
    await town.network.subscriptions.end(name_of(record))
    await town.subscriptions.observe(record.subscription_id)
    await report_all(town)
    assert [row["state"] for row in store(town).all()] == [WRITTEN_OFF]
    assert await owed(town) == 0
    (event,) = await billed(town)
    assert event.consideration.worth.gross_minor == 0


async def test_an_upgrade_within_the_period_begins_to_bill_and_a_smaller_plan_bills_what_was_before(
    town: Town,
) -> None:
    record = await town.begin(STARTER)
    await use_up(town)
    with pytest.raises(InsufficientCredits):
        await draw(town, 1)
    town.clock.advance(timedelta(days=10))
    await town.upgrade(record, PRO)
    await use_up(town)
    await draw(town, 6)
    await report_all(town)
    record = await town.subscriptions.change(record.subscription_id, STARTER, at=None, key="down")
    assert record.next_plan == "starter"
    await town.renew(record)
    assert (await owed(town), await town.plan(), await town.credits()) == (0, "starter", 2_000)
    await use_up(town)
    with pytest.raises(InsufficientCredits):
        await draw(town, 1)


async def test_another_length_waits_until_the_plan_has_ended(town: Town) -> None:
    record = await begun(town)
    with pytest.raises(OverageByTheMonth):
        await town.subscriptions.preview(record.subscription_id, YEAR)


async def test_a_plan_that_is_paid_ahead_ends_with_its_credits() -> None:
    assert SOLD["pro"].sold_for(12).overage_limit == 0
    sold = PlanSold(plan=SOLD["pro"].cut_off(), months=1, subscription_id="prepaid")
    assert (sold.plan.overage_limit, sold.plan.overage_usd_minor) == (0, 0)


async def test_a_subscription_from_before_bills_nothing_beyond(town: Town) -> None:
    town.network.subscriptions.overage = {}
    record = await begun(town)
    assert record.overage_usd_minor == 0
    assert plan_in_force(await town.account(), town.clock(), SOLD).overage_limit == 0
    with pytest.raises(InsufficientCredits):
        await draw(town, 1)


@pytest.mark.parametrize("state", [ReceiptState.REVERSED, ReceiptState.DISPUTED])
async def test_money_that_goes_back_leaves_what_was_used_as_a_debt(town: Town, state: ReceiptState) -> None:
    record = await begun(town)
    await draw(town, 9)
    await report_all(town)
    await town.renew(record)
    invoice = invoices(town, name_of(record))[-1]
    (money_ref,) = town.network.way(invoice.reference).receipts
    await town.network.change(invoice.reference, money_ref, state)
    await town.payments.deal_with("fake", invoice.reference)
    account = await town.account()
    assert (account.debt, account.status.overage_owed, await town.credits()) == (9, 0, 0)
    await town.network.change(invoice.reference, money_ref, ReceiptState.SETTLED)
    await town.payments.deal_with("fake", invoice.reference)
    assert ((await town.account()).debt, await town.credits()) == (0, 8_000)


async def test_money_for_more_than_is_owed_becomes_credits(town: Town) -> None:
    record = await begun(town)
    await draw(town, 4)
    await report_all(town)
    known = town.network.subscriptions._all[name_of(record)].uses
    known["somebody else's"] = (6, town.clock())
    await town.renew(record)
    assert (await owed(town), await town.credits()) == (0, 8_000 + 6)
    (event,) = await billed(town)
    assert event.consideration.worth.gross_minor == 4 * EACH


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("draw"), st.integers(1, 30)),
            st.tuples(st.just("fail"), st.integers(1, 30)),
            st.sampled_from(
                [
                    (what, n)
                    for what in ("report", "renew", "lose", "card", "pay", "down", "crash")
                    for n in (0, 1)
                ]
            ),
        ),
        max_size=25,
    )
)
def test_whatever_happens_what_was_drawn_beyond_is_paid_once_or_owed(steps: list[tuple[str, int]]) -> None:
    asyncio.run(live(steps))


async def live(steps: list[tuple[str, int]]) -> None:
    life = Life(city())
    await life.begin()
    for what, amount in steps:
        await getattr(life, what)(amount)
        await life.look()
        assert await owed(life.town) <= LIMIT
    await life.end()


class Life:
    """One subscriber, and all that may happen to their use."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.down_now = False
        self.name = ""
        self.subscription_id = ""

    @property
    def provider(self) -> FakeSubscriptions:
        return self.town.network.subscriptions

    async def begin(self) -> None:
        record = await begun(self.town)
        self.name, self.subscription_id = name_of(record), record.subscription_id

    async def draw(self, amount: int, *, fails: bool = False) -> None:
        try:
            await draw(self.town, amount, fails=fails)
        except InsufficientCredits:
            assert await self.town.credits() < amount

    async def fail(self, amount: int) -> None:
        await self.draw(amount, fails=True)

    async def report(self, _: int) -> None:
        for row in store(self.town).waiting():
            with contextlib.suppress(RailUnavailable):
                await self.town.uses.visit(row)

    async def lose(self, _: int) -> None:
        self.town.network.answers_to_lose = 1

    async def down(self, _: int) -> None:
        self.down_now = not self.down_now
        await self.town.network.set_down(self.down_now)

    async def crash(self, _: int) -> None:
        self.town = self.town.again()

    async def card(self, amount: int) -> None:
        self.provider.set_card(self.name, works=amount == 1)

    async def pay(self, _: int) -> None:
        for invoice in invoices(self.town, self.name):
            await self.provider.pay_invoice(invoice.reference)

    async def renew(self, _: int) -> None:
        self.town.clock.advance(timedelta(days=31))
        await self.provider.renew(self.name)

    async def look(self) -> None:
        """What is paid is known, and all that a period brings is used."""
        if not self.down_now:
            await self.town.subscriptions.observe(self.subscription_id)
        if await self.town.credits():
            await use_up(self.town)

    async def end(self) -> None:
        """Everything is reported, billed and paid."""
        await self.town.network.set_down(False)
        self.town.network.answers_to_lose = 0
        await report_all(self.town)
        self.provider.set_card(self.name, works=True)
        await self.pay(0)
        await self.renew(0)
        await self.town.subscriptions.observe(self.subscription_id)
        used = sum(row["credits"] for row in store(self.town).all())
        settled = await billed(self.town)
        assert sum(event.credits for event in settled) == used
        assert sum(event.consideration.worth.gross_minor for event in settled) == used * EACH
        assert await owed(self.town) == 0
        assert await self.town.uses.compare({"subscription_id": self.subscription_id}) is None


def invoices(town: Town, name: str) -> Sequence[Invoice]:
    seen = town.network.subscriptions.observe(name)
    assert seen is not None
    return seen.invoices
