"""How the money of an invoice pays for it: one payment or several, with use beyond a plan or without."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.money import USD, Money
from ledger.plans import PLANS
from rails.breakdown import Breakdown
from rails.contract import FundsReceipt, ReceiptState
from rails.domain.invoiced import OverageInvoiced, PeriodInvoiced, invoice_shares
from rails.domain.purchases import Arrival
from rails.quotes.rates import rate_to_usd
from rails.recurring import InvoiceStatus
from tests.rails.core.subscribing import PRO, STARTER, Town, name_of

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
PAR = rate_to_usd(Fraction(1), USD)


def arrivals(*minors: int) -> list[Arrival]:
    return [
        Arrival(money_ref=f"m{place}", minor=minor, rate=PAR, in_time=True)
        for place, minor in enumerate(minors)
    ]


def period(credits_: int = 0, minor: int = 0) -> PeriodInvoiced:
    return PeriodInvoiced(
        subscription_id="s",
        plan=PLANS["pro"],
        starts_at=NOW,
        ends_at=NOW + timedelta(days=31),
        overage_credits=credits_,
        overage_minor=minor,
    )


@given(
    minors=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    overage=st.integers(0, 300),
    beyond=st.integers(0, 400),
    short=st.integers(0, 4),
)
def test_the_parts_of_an_invoice_sum_to_it(minors: list[int], overage: int, beyond: int, short: int) -> None:
    whole = sum(minors)
    due = whole + min(short, len(minors) - 1)
    beyond = min(beyond, due) if overage else 0
    overage = overage if beyond else 0
    shares = invoice_shares(period(overage, beyond), due, arrivals(*minors))
    assert sum(share.credits for share in shares.values()) in (8_000, 0)
    assert sum(share.credits for share in shares.values()) == 8_000 or beyond >= whole
    assert sum(share.overage for share in shares.values()) == overage
    assert all(0 <= share.minor <= minor for share, minor in zip(shares.values(), minors, strict=True))


@pytest.mark.parametrize(("due", "minors"), [(2_000, (999, 999)), (2_000, (1_998,)), (2, (1,))])
def test_too_little_money_pays_for_nothing(due: int, minors: tuple[int, ...]) -> None:
    assert invoice_shares(period(), due, arrivals(*minors)) == {}


def test_nothing_but_use_is_all_use() -> None:
    use = OverageInvoiced(subscription_id="s", overage_credits=5, overage_minor=15)
    [share] = invoice_shares(use, 15, arrivals(15)).values()
    assert (share.minor, share.credits, share.overage) == (0, 0, 5)


async def test_an_invoice_paid_by_several_payments_brings_its_plan_once(town: Town) -> None:
    """Of the price of 2,000 each says that it pays for a rounded part: together they miss a cent."""
    record = await town.open(PRO)
    assert record.page_reference is not None
    provider = town.network.subscriptions
    await provider.pay(record.page_reference)
    seen = provider.observe(record.page_reference)
    assert seen is not None
    [invoice] = seen.invoices
    assert invoice.status is InvoiceStatus.PAID
    way = town.network.way(invoice.reference)
    [whole] = way.receipts.values()
    way.receipts.clear()
    for part, price in ((700, 699), (1_300, 1_300)):
        way.receipts[f"part {part}"] = FundsReceipt(
            money_ref=f"part {part}",
            amount=Money(part, USD),
            state=ReceiptState.SETTLED,
            first_seen_at=whole.first_seen_at,
            external_ref=f"pi_{part}",
            breakdown=Breakdown(
                price_minor=price, discount_minor=0, tax_minor=part - price, tax_on_top_minor=part - price
            ),
        )
    await town.subscriptions.observe(record.subscription_id)
    assert (await town.plan(), await town.credits()) == ("pro", 8_000)
    lots = (await town.account()).lots
    assert [lot.terms.consideration.worth.gross_minor for lot in lots if lot.terms.consideration] == [2_000]


async def test_an_upgrade_brings_what_was_shown_however_late_its_payment_is_heard_of(town: Town) -> None:
    record = await town.begin(STARTER)
    town.clock.advance(timedelta(days=10))
    town.network.subscriptions.set_card(name_of(record), works=False)
    shown, more, _ = await town.subscriptions.preview(record.subscription_id, PRO)
    await town.subscriptions.change(record.subscription_id, PRO, at=shown.at, key="up")
    town.clock.advance(timedelta(hours=20))
    seen = town.network.subscriptions.observe(name_of(record))
    assert seen is not None
    await town.network.subscriptions.pay_invoice(seen.invoices[-1].reference)
    town.clock.advance(timedelta(days=5))
    await town.subscriptions.observe(record.subscription_id)
    assert (await town.plan(), await town.credits()) == ("pro", 2_000 + more)


async def test_a_period_that_costs_nothing_brings_nothing_and_hinders_nothing(town: Town) -> None:
    """An invoice of $0, as of a trial that somebody set at the provider."""
    town.network.subscriptions.prices[PRO] = 0
    record = await town.begin(PRO)
    assert (await town.plan(), await town.credits()) == ("free", 0)
    town.network.subscriptions.prices[PRO] = 2_000
    await town.renew(record)
    assert (await town.plan(), await town.credits()) == ("pro", 8_000)
