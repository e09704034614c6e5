"""Whatever a rail says: a purchase is granted whole or not at all, and every unit of money is booked once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from ledger.domain.consideration import NOTHING
from ledger.domain.events import CreditsGranted, EarningScheduled
from ledger.domain.journal import postings
from ledger.domain.prepaying import prepaid_subscription
from ledger.domain.view import plan_in_force
from ledger.log.model import Event
from ledger.money import BTC, Money
from ledger.plans import FREE, PACKS, PLANS, Pack
from rails.domain import events
from rails.domain.buying import one_by_one, purchase_commands
from rails.domain.pricing import amount_up, credits_down
from rails.domain.purchases import Arrival, PackSold, PlanSold, Purchase, part_of, price_in, shares
from rails.domain.receipts import ReceiptStatus
from rails.domain.state import LATE_GRACE, Payment
from rails.domain.topup import TopupState, topup_state
from tests.effort import lives
from tests.rails.core.test_payment_properties import (
    OPENED,
    PAYMENT_ID,
    RATE,
    START,
    PaymentMachine,
    credited,
    observe,
    receipt,
)

COUNTED = (ReceiptStatus.SETTLED, ReceiptStatus.DISPUTED, ReceiptStatus.REVERSED)


def plan_sold(name: str, months: int = 1) -> PlanSold:
    return PlanSold(
        plan=PLANS[name].sold_for(months),
        months=months,
        subscription_id=prepaid_subscription(OPENED.account_id),
    )


def opened_for(purchase: Purchase) -> events.PaymentOpened:
    due, brings = price_in(purchase, RATE), purchase.credits
    return msgspec.structs.replace(OPENED, purchase=purchase, amount_due=due, credits=brings)


class PurchaseMachine(PaymentMachine):
    """The machine of a payment, for one that buys something."""

    __test__ = False

    @rule(tenths=st.integers(1, 25))
    def a_share_of_the_price_comes_and_we_ask(self, tenths: int) -> None:
        """Mostly what is asked, or parts of it that add up."""
        if len(self.receipts) < 5:
            due = self.opened.amount_due.minor
            money = receipt(len(self.receipts) + 1, max(1, due * tenths // 10), seen=self.clock())
            self.receipts[money.money_ref] = money
            self.we_ask()

    def _book(self, happened: Sequence[Event]) -> None:
        for event in one_by_one(happened):
            self._act(purchase_commands(PAYMENT_ID, self.payment, event, self.account, self.clock()))

    @invariant()
    def the_ledger_has_what_the_payment_says(self) -> None:
        """But for the one credit by which money of a daily plan stands that came back after it was earned."""
        bought = self.opened.purchase
        if bought is not None and bought.credits:
            assert self.account.posted(self.clock()) == credited(self.payment)
        else:
            assert self.account.posted(self.clock()) >= credited(self.payment)
        assert self.account.debt == 0

    @invariant()
    def every_unit_of_money_that_is_ours_is_booked_once(self) -> None:
        """But for less than two credits' worth of each receipt for plain credits, where it was taken back in part."""
        cleared = sum(
            line.amount_minor
            for event in self.booked
            for line in postings(event)
            if line.account == "Liabilities:Clearing:Fake" and line.asset == BTC
        )
        ours = sum(
            known.amount.minor - known.taken_minor
            for known in self.payment.receipts.values()
            if known.status in COUNTED and known.rate is not None and known.amount.asset == BTC
        )
        touched = [r for r in self.payment.receipts.values() if r.bought is None and r.rate is not None]
        assert abs(cleared - ours) <= len(touched) * amount_up(2, RATE, OPENED.price).minor

    @invariant()
    def a_purchase_is_bought_whole(self) -> None:
        groups: dict[str, list[events.PaymentSettled]] = {}
        for event in self.history:
            if isinstance(event, events.PaymentSettled) and event.bought is not None:
                groups.setdefault(event.bought.lot_id, []).append(event)
        purchase = self.opened.purchase
        assert purchase is not None
        assert self.payment.purchases == len(groups)
        assert len(groups) <= (1 if isinstance(purchase, PlanSold) else 5)
        for group in groups.values():
            assert sum(e.bought.credits for e in group if e.bought) == purchase.credits
            worth = sum((e.bought.worth for e in group if e.bought), start=NOTHING)
            assert worth.gross_minor >= (
                self.opened.amount_due.minor
                if group[0].rate_basis == "quote"
                else price_in(purchase, group[0].rate).minor
            )
            lots = [
                booked
                for booked in self.booked
                if isinstance(booked, CreditsGranted | EarningScheduled)
                and group[0].bought is not None
                and group[0].bought.lot_id
                in (getattr(booked, "lot_id", ""), getattr(booked, "schedule_id", ""))
            ]
            assert len(lots) == 1
            assert lots[0].consideration is not None
            assert lots[0].consideration.worth == worth

    @invariant()
    def a_plan_lasts_as_long_as_its_money_is_ours(self) -> None:
        if not isinstance(self.opened.purchase, PlanSold):
            return
        bought = [known for known in self.payment.receipts.values() if known.bought is not None]
        some = any(known.taken_minor < known.amount.minor for known in bought)
        name = plan_in_force(self.account, self.clock(), PLANS).name
        assert name == (self.opened.purchase.name if some else FREE)

    @invariant()
    def there_is_one_word_for_it(self) -> None:
        state = topup_state(self.payment)
        assert state is not TopupState.PAID or credited(self.payment) > 0 or self.payment.purchases


class PackMachine(PurchaseMachine):
    opened = opened_for(PackSold(pack=Pack(name="p", label="P", price_usd_minor=500, credits=700)))


class PassMachine(PurchaseMachine):
    opened = opened_for(
        PackSold(
            pack=Pack(name="s", label="S", price_usd_minor=300, credits=900, kind="pass", lasts_seconds=10**9)
        )
    )


class PlanMachine(PurchaseMachine):
    opened = opened_for(
        msgspec.structs.replace(
            plan_sold("starter", 12),
            plan=msgspec.structs.replace(PLANS["starter"].sold_for(12), price_usd_minor=800),
        )
    )


class DailyPlanMachine(PurchaseMachine):
    opened = opened_for(
        msgspec.structs.replace(
            plan_sold("unlimited", 12),
            plan=msgspec.structs.replace(PLANS["unlimited"].sold_for(12), price_usd_minor=900),
        )
    )


for machine in (PackMachine, PassMachine, PlanMachine, DailyPlanMachine):
    machine.TestCase.settings = settings(max_examples=lives(30), stateful_step_count=30, deadline=None)
TestPackMachine = PackMachine.TestCase
TestPassMachine = PassMachine.TestCase
TestPlanMachine = PlanMachine.TestCase
TestDailyPlanMachine = DailyPlanMachine.TestCase


@given(st.lists(st.integers(1, 4_000), max_size=6), st.sampled_from([PACKS["session"], PACKS["pack_500"]]))
def test_shares_of_a_purchase_sum_to_its_price_and_to_its_credits(minors: list[int], pack: Pack) -> None:
    arrivals = [
        Arrival(money_ref=f"m{n}", minor=minor, rate=RATE, in_time=True) for n, minor in enumerate(minors)
    ]
    due = Money(1_000, BTC)
    found = shares(PackSold(pack=pack), due, arrivals, already_bought=False)
    for group in {share.group for share in found.values()}:
        mine = [share for share in found.values() if share.group == group]
        assert sum(share.minor for share in mine) == 1_000
        assert sum(share.credits for share in mine) == pack.credits
    left = [a for a in arrivals if a.money_ref not in found]
    assert sum(a.minor for a in left) < 1_000


@given(st.integers(1, 10**9), st.integers(1, 100))
def test_the_parts_of_some_money_sum_to_it(minor: int, percent: int) -> None:
    _, happened = observe(Payment(opened=OPENED), [receipt(1, 10**10 + minor)], START)
    [settled] = [event for event in happened if isinstance(event, events.PaymentSettled)]
    part = part_of(settled.worth, settled.amount.minor * percent // 100, settled.amount.minor)
    rest = settled.worth - part
    assert not part.is_negative_somewhere()
    assert not rest.is_negative_somewhere()
    assert part + rest == settled.worth


def test_money_in_time_that_falls_short_becomes_credits_when_the_time_for_the_rest_is_over() -> None:
    payment = Payment(opened=PlanMachine.opened)
    short = receipt(1, PlanMachine.opened.amount_due.minor // 2)
    over = OPENED.quote_expires_at + LATE_GRACE
    payment, [waiting] = observe(payment, [short], over)
    assert isinstance(waiting, events.FundsShort)
    payment, [plain] = observe(payment, [short], over + timedelta(microseconds=1))
    assert isinstance(plain, events.PaymentSettled)
    assert (plain.bought, plain.credits) == (None, credits_down(short.amount, RATE, OPENED.price))
