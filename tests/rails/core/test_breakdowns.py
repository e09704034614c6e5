"""Tax and discounts: tax on top buys nothing, a discount costs no credits, and net, tax and fee are the money to the unit."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from ledger.domain.journal import postings
from ledger.money import BTC, USD, Money, Rate
from ledger.plans import PACKS, Pack
from rails.breakdown import Breakdown
from rails.contract import FundsReceipt, ReceiptState
from rails.domain import events
from rails.domain.purchases import PackSold
from rails.domain.reading import worth_of
from rails.domain.state import Payment, arrived_minor
from rails.domain.topup import TopupState, topup_state
from tests.effort import lives
from tests.rails.core.test_payment_properties import OPENED, START, observe
from tests.rails.core.test_purchase_properties import COUNTED, PurchaseMachine, opened_for, plan_sold

PAR = Rate(1, 1, USD, USD)
DOLLARS = msgspec.structs.replace(
    OPENED, rate=PAR, amount_due=Money(500, USD), purchase=PackSold(pack=PACKS["pack_500"])
)


@st.composite
def breakdowns(draw: st.DrawFn, price: int | None = None) -> Breakdown:
    """Whatever a provider may say of a price: discounts but for all of it, tax within it, on top of it, or both."""
    if price is None:
        price = draw(st.integers(1, 10_000_000))
    discount = draw(st.integers(0, price - 1))
    on_top = draw(st.integers(0, price))
    within = draw(st.integers(0, price - discount))
    return Breakdown(
        price_minor=price, discount_minor=discount, tax_minor=on_top + within, tax_on_top_minor=on_top
    )


def paid(parts: Breakdown, number: int = 1, *, fee: int | None = None, back: int = 0) -> FundsReceipt:
    return FundsReceipt(
        money_ref=f"fake:{number}",
        amount=Money(parts.paid_minor, USD),
        state=ReceiptState.REVERSED if back else ReceiptState.SETTLED,
        first_seen_at=START,
        fee=None if fee is None else Money(fee, USD),
        reversed_amount=Money(back, USD) if back else None,
        breakdown=parts,
    )


@given(breakdowns(), st.integers(0, 10**8))
def test_a_part_of_a_bill_adds_up_and_takes_no_more_than_its_share(parts: Breakdown, minor: int) -> None:
    part = parts.of(minor)
    assert part.paid_minor == minor
    assert part.is_sound()
    assert part.tax_minor <= parts.tax_minor
    assert part.discount_minor <= parts.discount_minor
    assert parts.of(parts.paid_minor) == parts


@given(breakdowns(), st.integers(0, 10**8))
def test_net_tax_and_fee_are_the_money(parts: Breakdown, fee: int) -> None:
    amount = Money(parts.paid_minor, USD)
    worth = worth_of(amount, Money(fee, USD), PAR, parts)
    assert not worth.is_negative_somewhere()
    assert worth.gross_minor == worth.usd_minor + worth.tax_usd_minor == amount.minor
    assert (worth.tax_minor, worth.tax_usd_minor) == (parts.tax_minor, parts.tax_minor)


@pytest.mark.parametrize(
    "parts",
    [
        Breakdown(price_minor=500, tax_minor=100, tax_on_top_minor=100),
        Breakdown(price_minor=500, discount_minor=100, tax_minor=80, tax_on_top_minor=80),
        Breakdown(price_minor=500, discount_minor=499),
        Breakdown(price_minor=500, tax_minor=83),
    ],
)
def test_what_was_asked_is_bought_whatever_tax_and_discount_made_of_it(parts: Breakdown) -> None:
    for opened in (DOLLARS, msgspec.structs.replace(DOLLARS, purchase=None)):
        payment, happened = observe(Payment(opened=opened), [paid(parts, fee=40)], START)
        [settled] = [event for event in happened if isinstance(event, events.PaymentSettled)]
        assert (settled.credits, settled.breakdown) == (500, parts)
        assert settled.worth.gross_minor == parts.paid_minor
        assert topup_state(payment) is TopupState.PAID
        assert arrived_minor(payment, "USD") == 500


def test_the_same_money_without_its_proof_buys_what_it_is_worth_alone() -> None:
    for minor, waits in ((400, True), (600, False)):
        bare = FundsReceipt(
            money_ref="fake:1", amount=Money(minor, USD), state=ReceiptState.SETTLED, first_seen_at=START
        )
        payment, _ = observe(Payment(opened=DOLLARS), [bare], START)
        assert (topup_state(payment) is TopupState.UNDERPAID) == waits


def test_parts_that_do_not_add_up_are_no_receipt() -> None:
    whole = Breakdown(price_minor=500, tax_minor=100, tax_on_top_minor=100)
    broken = (
        msgspec.structs.replace(whole, tax_on_top_minor=0),
        Breakdown(price_minor=600, tax_minor=601),
        Breakdown(price_minor=600, tax_minor=-1),
        Breakdown(price_minor=500, discount_minor=-100),
    )
    for parts in broken:
        with pytest.raises(ValueError, match="do not add up"):
            FundsReceipt(
                money_ref="fake:1",
                amount=Money(600, USD),
                state=ReceiptState.SETTLED,
                first_seen_at=START,
                breakdown=parts,
            )


@given(breakdowns(price=500), st.lists(st.integers(1, 400), min_size=1, max_size=4))
def test_refunds_of_a_taxed_and_discounted_payment_take_tax_and_net_to_the_cent(
    parts: Breakdown, steps: list[int]
) -> None:
    assume(parts.paid_minor > 1)
    payment, happened = observe(Payment(opened=DOLLARS), [paid(parts, fee=40)], START)
    back, at = 0, START
    for step in [*steps, parts.paid_minor]:
        back, at = min(back + step, parts.paid_minor), at + timedelta(minutes=1)
        payment, more = observe(payment, [paid(parts, fee=40, back=back)], at)
        happened = [*happened, *more]
        known = payment.receipts["fake:1"]
        assert known.worth_out.gross_minor == back
        assert not (known.worth - known.worth_out).is_negative_somewhere()
    known = payment.receipts["fake:1"]
    assert known.worth_out == known.worth
    assert known.credits_left == 0
    assert arrived_minor(payment, "USD") == 0


class TaxedMachine(PurchaseMachine):
    """The machine of a payment that buys something, for money with tax in it, or with a discount."""

    __test__ = False

    @rule(data=st.data())
    def the_price_comes_with_tax_and_discount_and_we_ask(self, data: st.DataObject) -> None:
        if len(self.receipts) < 5:
            parts = data.draw(breakdowns(price=self.opened.amount_due.minor))
            ref = f"fake:{len(self.receipts) + 1}"
            self.receipts[ref] = FundsReceipt(
                money_ref=ref,
                amount=Money(parts.paid_minor, BTC),
                state=ReceiptState.SETTLED,
                first_seen_at=self.clock(),
                breakdown=parts,
            )
            self.we_ask()

    @invariant()
    def the_tax_that_is_ours_to_pay_on_is_booked(self) -> None:
        booked = -sum(
            line.amount_minor
            for event in self.booked
            for line in postings(event)
            if line.account == "Liabilities:Tax:Fake" and line.asset == BTC
        )
        ours = sum(
            known.worth.tax_minor - known.worth_out.tax_minor
            for known in self.payment.receipts.values()
            if known.status in COUNTED and known.rate is not None and known.amount.asset == BTC
        )
        assert booked == ours

    @invariant()
    def a_purchase_is_bought_whole(self) -> None:
        """Its price is there, counted without tax on top and with what a discount took off."""
        for receipt in self.payment.receipts.values():
            if receipt.bought is not None and receipt.breakdown is not None:
                assert receipt.bought.worth.tax_minor <= receipt.breakdown.tax_minor
                assert receipt.covers_minor >= receipt.breakdown.price_minor


class TaxedPackMachine(TaxedMachine):
    opened = opened_for(PackSold(pack=Pack(name="p", label="P", price_usd_minor=500, credits=700)))


class TaxedPlanMachine(TaxedMachine):
    opened = opened_for(plan_sold("pro"))


class TaxedDailyPlanMachine(TaxedMachine):
    opened = opened_for(plan_sold("unlimited"))


TestTaxedPack = TaxedPackMachine.TestCase
TestTaxedPlan = TaxedPlanMachine.TestCase
TestTaxedDailyPlan = TaxedDailyPlanMachine.TestCase
for machine in (TestTaxedPack, TestTaxedPlan, TestTaxedDailyPlan):
    machine.settings = settings(max_examples=lives(15), stateful_step_count=20, deadline=None)
