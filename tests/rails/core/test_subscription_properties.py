"""Whatever a provider, its payers, time and crashes do: money alone grants, each of it once, and nothing paid is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.domain.events import CreditsGranted, SubscriptionRenewed, SubscriptionStarted
from ledger.identifiers import Identifiers
from ledger.testing.memory_log import MemoryLog
from rails.contract import RailUnavailable, ReceiptState
from rails.domain.state import PAYMENTS
from rails.domain.topup import payment_of
from rails.payments.service import UnknownReference
from rails.recurring import ChangeRefused, Invoice, InvoiceStatus, SubscriptionObservation, SubscriptionStatus
from rails.subscriptions.record import SubscriptionRecord
from rails.subscriptions.refusals import (
    ChangeWaits,
    NotRunning,
    PlanUnchanged,
    PreviewStale,
    SubscriptionExists,
    TooManyPages,
)
from rails.testing.fake_rail import FakeNetwork
from tests.effort import lives
from tests.rails.core.subscribing import PRO, STARTER, UNLIMITED, Town, page_of, town_on
from tests.rails.core.test_subscription_lengths import PRO_YEAR, STARTER_YEAR

OFFERS = st.sampled_from([STARTER, PRO, UNLIMITED, STARTER_YEAR, PRO_YEAR])
PLACES = st.integers(0, 3)
REFUSED = (
    ChangeRefused,
    ChangeWaits,
    NotRunning,
    PlanUnchanged,
    PreviewStale,
    RailUnavailable,
    SubscriptionExists,
    TooManyPages,
)


class Subscribers(RuleBasedStateMachine):
    """One account, any number of subscriptions, a provider that goes on by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        clock = ManualClock(datetime(2026, 1, 5, 12, tzinfo=UTC))
        network = FakeNetwork(clock)
        prices = {STARTER: 800, PRO: 2_000, UNLIMITED: 4_000, STARTER_YEAR: 8_000, PRO_YEAR: 20_000}
        network.subscriptions.prices = prices
        log = MemoryLog([ACCOUNTS, PAYMENTS], clock)
        ids = Identifiers(clock, random.Random(1).randbytes)
        self.town: Town = town_on(clock, network, log, ids.account(), ids)
        self.keys = 0

    def teardown(self) -> None:
        # Money that had gone back before anybody looked was never ours: in the end all of it is there.
        for _, invoice in self.paid():
            for money_ref in list(self.town.network.way(invoice.reference).receipts):
                self.do(self.town.network.change(invoice.reference, money_ref, ReceiptState.SETTLED))
        self.look_at_all()
        for _, invoice in self.paid():
            if invoice.due.minor:
                self.runner.run(self.town.payments.deal_with("fake", invoice.reference))
        self.all_that_was_paid_is_booked()
        self.runner.close()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result, or None if it was refused by name."""
        try:
            return self.runner.run(work)
        except REFUSED:
            return None

    def records(self) -> list[SubscriptionRecord]:
        return list(self.runner.run(self.town.subscriptions.of_account(self.town.account_id)))

    def one(self, place: int) -> SubscriptionRecord:
        found = self.records()
        return found[place % len(found)]

    def seen(self, record: SubscriptionRecord) -> SubscriptionObservation | None:
        return self.town.network.subscriptions.observe(f"fake-sub-{record.subscription_id}")

    def at_provider(self, record: SubscriptionRecord, act: str, *arguments: Any, **named: Any) -> None:
        seen = self.seen(record)
        if seen is not None and seen.reference is not None and seen.status is not SubscriptionStatus.ENDED:
            method = getattr(self.town.network.subscriptions, act)
            self.do(method(f"fake-sub-{record.subscription_id}", *arguments, **named))

    # --- people --------------------------------------------------------------------------------

    @rule(offer=OFFERS)
    def somebody_subscribes(self, offer: Any) -> None:
        self.do(self.town.open(offer))

    @precondition(lambda self: self.records())
    @rule(place=PLACES)
    def pays_the_page(self, place: int) -> None:
        record = self.one(place)
        if record.page_reference is not None:
            seen = self.town.network.subscriptions.observe(page_of(record))
            if seen is not None and seen.status is SubscriptionStatus.OPENING:
                self.do(self.town.network.subscriptions.pay(page_of(record)))

    @precondition(lambda self: self.records())
    @rule(place=PLACES, offer=OFFERS, minutes=st.integers(0, 20))
    def changes(self, place: int, offer: Any, minutes: int) -> None:
        name = self.one(place).subscription_id
        shown = self.do(self.town.subscriptions.preview(name, offer))
        self.town.clock.advance(timedelta(minutes=minutes))
        self.keys += 1
        for _ in range(2):  # sent twice
            at = shown[0].at if shown else None
            self.do(self.town.subscriptions.change(name, offer, at=at, key=str(self.keys)))

    @precondition(lambda self: self.records())
    @rule(place=PLACES, act=st.sampled_from(["cancel", "resume"]))
    def cancels_or_resumes(self, place: int, act: str) -> None:
        self.do(getattr(self.town.subscriptions, act)(self.one(place).subscription_id))

    @precondition(lambda self: self.records())
    @rule(place=PLACES)
    def pays_by_hand(self, place: int) -> None:
        seen = self.seen(self.one(place))
        for invoice in seen.invoices if seen else ():
            self.do(self.town.network.subscriptions.pay_invoice(invoice.reference))

    # --- the provider and time -----------------------------------------------------------------

    @precondition(lambda self: self.records())
    @rule(place=PLACES, works=st.booleans())
    def puts_a_card(self, place: int, works: bool) -> None:
        record = self.one(place)
        if self.seen(record) is not None:
            self.town.network.subscriptions.set_card(f"fake-sub-{record.subscription_id}", works=works)

    @precondition(lambda self: self.records())
    @rule(place=PLACES, days=st.integers(1, 40))
    def a_period_ends(self, place: int, days: int) -> None:
        self.town.clock.advance(timedelta(days=days))
        self.at_provider(self.one(place), "renew")

    @precondition(lambda self: self.records())
    @rule(place=PLACES, act=st.sampled_from(["try_again", "end"]))
    def it_is_tried_again_or_ended(self, place: int, act: str) -> None:
        seen = self.seen(self.one(place))
        if seen is not None and seen.invoices:
            self.at_provider(self.one(place), act)

    @precondition(lambda self: self.records())
    @rule(place=PLACES, offer=OFFERS)
    def the_dashboard_switches_without_charging(self, place: int, offer: Any) -> None:
        self.at_provider(self.one(place), "switch_at_once", offer)

    @precondition(lambda self: self.paid())
    @rule(
        place=PLACES,
        state=st.sampled_from([ReceiptState.DISPUTED, ReceiptState.REVERSED, ReceiptState.SETTLED]),
    )
    def money_goes_or_comes_back(self, place: int, state: ReceiptState) -> None:
        paid = self.paid()
        _, invoice = paid[place % len(paid)]
        for money_ref in list(self.town.network.way(invoice.reference).receipts):
            self.do(self.town.network.change(invoice.reference, money_ref, state))
        with contextlib.suppress(UnknownReference):  # where it has not been looked at yet
            self.do(self.town.payments.deal_with("fake", invoice.reference))

    # --- us ------------------------------------------------------------------------------------

    @precondition(lambda self: self.records())
    @rule(place=PLACES, by_page=st.booleans())
    def a_notification_is_followed(self, place: int, by_page: bool) -> None:
        record = self.one(place)
        if record.page_reference is not None:
            reference = record.page_reference if by_page else f"fake-sub-{record.subscription_id}"
            self.do(self.town.payments.deal_with("fake", reference))

    @precondition(lambda self: self.records())
    @rule(place=PLACES)
    def the_sweep_comes_by(self, place: int) -> None:
        self.do(self.town.subscriptions.visit(self.one(place).to_row()))

    @rule(answers=st.integers(0, 1))
    def we_crash_and_an_answer_is_lost(self, answers: int) -> None:
        self.town.network.answers_to_lose = answers
        self.town = self.town.again()

    def look_at_all(self) -> None:
        """Everything has been asked about once more."""
        self.town.network.answers_to_lose = 0
        for record in self.records():
            if record.page_reference is not None:
                self.runner.run(self.town.subscriptions.observe(record.subscription_id))

    # --- what is always so ---------------------------------------------------------------------

    def paid(self) -> list[tuple[SubscriptionRecord, Invoice]]:
        return [
            (record, invoice)
            for record in self.records()
            for invoice in (getattr(self.seen(record), "invoices", ()))
            if invoice.status is InvoiceStatus.PAID
        ]

    def rows(self) -> list[dict[str, Any]]:
        return [row for (table, _), row in self.town.log.tables.items() if table == "rail_payments"]

    @invariant()
    def nothing_is_booked_that_was_not_paid(self) -> None:
        due = {f"fake:{invoice.reference}": invoice.due.minor for _, invoice in self.paid()}
        money: dict[str, int] = {}
        for row in self.rows():
            for receipt in payment_of(row).receipts.values():
                assert receipt.money_ref not in money, "credited to two payments"
                money[receipt.money_ref] = receipt.amount.minor
        assert money.items() <= due.items()

    @invariant()
    def each_period_and_lot_is_granted_once(self) -> None:
        granted = [each.event for each in self.town.log.log if isinstance(each.event, CreditsGranted)]
        assert len({event.lot_id for event in granted}) == len(granted)
        begun = [
            (each.event.subscription_id, each.event.period_start)
            for each in self.town.log.log
            if isinstance(each.event, SubscriptionStarted | SubscriptionRenewed)
        ]
        assert len(set(begun)) == len(begun)

    def all_that_was_paid_is_booked(self) -> None:
        """After everything was asked about: the same money and the same periods on both sides."""
        booked = {
            money_ref: receipt.amount.minor
            for row in self.rows()
            for money_ref, receipt in payment_of(row).receipts.items()
        }
        paid = self.paid()
        assert booked == {
            f"fake:{invoice.reference}": invoice.due.minor for _, invoice in paid if invoice.due.minor
        }
        periods = {
            (record.subscription_id, line.starts_at)
            for record, invoice in paid
            for line in invoice.lines
            if not line.proration
        }
        begun = {
            (each.event.subscription_id, each.event.period_start)
            for each in self.town.log.log
            if isinstance(each.event, SubscriptionStarted | SubscriptionRenewed)
        }
        assert begun == periods
        for record in self.records():
            seen = self.town.network.subscriptions.observe(record.page_reference or "")
            if seen is not None:
                assert record.status is seen.status


TestSubscribers = Subscribers.TestCase
TestSubscribers.settings = settings(max_examples=lives(30), stateful_step_count=30, deadline=None)
