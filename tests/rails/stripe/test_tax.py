"""Tax and promotion codes through Checkout: what the rail asks for, and what it believes of the answers."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import stripe

from ledger.money import USD, Money
from rails.breakdown import Breakdown
from rails.contract import FundsReceipt, PaymentRequestStatus, RailProtocolError
from rails.stripe import breakdowns
from rails.stripe.terms import CheckoutTerms, Tax
from rails.testing.harness import RailHarness, only_receipt
from rails.testing.memory_references import MemoryReferences
from tests.rails.stripe.outside import CardWorld, Impossible, Inbox, Sandbox, running_sandbox

ON_TOP = CheckoutTerms(tax=Tax.EXCLUSIVE, tax_code="txcd_10103001", promotion_codes=True)
WITHIN = CheckoutTerms(tax=Tax.INCLUSIVE, promotion_codes=True)
CODES_ALONE = CheckoutTerms(promotion_codes=True)


@pytest.fixture(scope="module")
async def sandbox(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """A sandbox of this module's own: what happens here is read again by nobody who listens from the beginning."""
    async with running_sandbox(tmp_path_factory.mktemp("stripe"), inbox) as sandbox:
        yield sandbox


@asynccontextmanager
async def selling(world: CardWorld, terms: CheckoutTerms) -> AsyncIterator[RailHarness]:
    """The rail on these terms."""
    references = MemoryReferences()
    rail = await world.start(references, terms=terms)
    try:
        yield RailHarness(world=world, rail=rail, references=references)
    finally:
        await rail.close()


async def promotion(sdk: stripe.StripeClient, code: str, **coupon: Any) -> str:
    """A promotion code with a coupon of its own."""
    made = await sdk.v1.coupons.create_async({"duration": "once", **coupon})
    params: Any = {"promotion": {"type": "coupon", "coupon": made.id}, "code": code}
    return str((await sdk.v1.promotion_codes.create_async(params)).code)


async def bought(harness: RailHarness, world: CardWorld, code: str = "") -> FundsReceipt:
    """A pack of 500 cents, paid."""
    page = await harness.open(harness.order(minor=500))
    if code:
        await world.sandbox.control(f"checkout/{page.reference}/promotion", {"code": code})
    await world.pay(page)
    return only_receipt(await harness.rail.observe(page.reference))


async def test_tax_on_top_is_told_apart_from_the_price(world: CardWorld) -> None:
    async with selling(world, ON_TOP) as harness:
        receipt = await bought(harness, world)
    assert receipt.amount == Money(600, USD)
    assert receipt.breakdown == Breakdown(price_minor=500, tax_minor=100, tax_on_top_minor=100)
    assert receipt.covers_minor == 500


async def test_tax_within_the_price_is_told_and_the_price_is_paid(world: CardWorld) -> None:
    async with selling(world, WITHIN) as harness:
        receipt = await bought(harness, world)
    assert receipt.amount == Money(500, USD)
    assert receipt.breakdown == Breakdown(price_minor=500, tax_minor=83)
    assert receipt.covers_minor == 500


@pytest.mark.parametrize(
    ("terms", "amount", "parts"),
    [
        (CODES_ALONE, 400, Breakdown(price_minor=500, discount_minor=100)),
        (ON_TOP, 480, Breakdown(price_minor=500, discount_minor=100, tax_minor=80, tax_on_top_minor=80)),
        (WITHIN, 400, Breakdown(price_minor=500, discount_minor=100, tax_minor=67)),
    ],
)
async def test_a_promotion_code_takes_off_the_price_and_the_tax_is_on_the_rest(
    world: CardWorld, sdk: stripe.StripeClient, terms: CheckoutTerms, amount: int, parts: Breakdown
) -> None:
    code = await promotion(sdk, f"TAX{amount}{terms.tax.value}", percent_off=20)
    async with selling(world, terms) as harness:
        receipt = await bought(harness, world, code.lower())
    assert (receipt.amount.minor, receipt.breakdown, receipt.covers_minor) == (amount, parts, 500)


async def test_without_the_setting_nothing_is_asked_and_no_code_is_taken(
    harness: RailHarness, world: CardWorld
) -> None:
    page = await harness.open(harness.order(minor=500))
    session = (await world.sandbox.api("GET", f"checkout/sessions/{page.reference}")).json()
    assert (session["automatic_tax"]["enabled"], session["allow_promotion_codes"]) == (False, None)
    with pytest.raises(Impossible):
        await world.sandbox.control(f"checkout/{page.reference}/promotion", {"code": "ANY"})
    await world.pay(page)
    assert only_receipt(await harness.rail.observe(page.reference)).breakdown is None


async def test_the_session_asks_for_tax_by_the_code_of_what_is_sold(world: CardWorld) -> None:
    async with selling(world, ON_TOP) as harness:
        page = await harness.open(harness.order(minor=500))
        session = (
            await world.sandbox.api("GET", f"checkout/sessions/{page.reference}?expand[]=line_items")
        ).json()
        [item] = session["line_items"]["data"]
        product = (await world.sandbox.api("GET", f"products/{item['price']['product']}")).json()
    assert session["automatic_tax"]["enabled"] is session["allow_promotion_codes"] is True
    assert (item["price"]["tax_behavior"], product["tax_code"]) == ("exclusive", "txcd_10103001")


async def test_a_code_that_takes_off_everything_is_set_aside_with_its_reason(
    world: CardWorld, sdk: stripe.StripeClient
) -> None:
    code = await promotion(sdk, "ALLFREE", percent_off=100)
    async with selling(world, CODES_ALONE) as harness:
        page = await harness.open(harness.order(minor=500))
        await world.sandbox.control(f"checkout/{page.reference}/promotion", {"code": code})
        await world.pay(page)
        with pytest.raises(RailProtocolError, match="nothing was paid"):
            await harness.rail.observe(page.reference)


async def test_a_delayed_payment_on_its_way_covers_the_price(world: CardWorld) -> None:
    async with selling(world, ON_TOP) as harness:
        page = await harness.open(harness.order(minor=500))
        await world.sandbox.pay(page.reference, "processing")
        seen = only_receipt(await harness.rail.observe(page.reference))
        assert (seen.amount.minor, seen.covers_minor) == (600, 500)


async def test_refunds_and_disputes_leave_the_parts_as_they_were(world: CardWorld) -> None:
    async with selling(world, ON_TOP) as harness:
        page = await harness.open(harness.order(minor=500))
        await world.pay(page)
        await world.sandbox.control("refund", {"session": page.reference, "amount": 150})
        await world.dispute(page)
        observed = await harness.rail.observe(page.reference)
    receipt = only_receipt(observed)
    assert observed.status is PaymentRequestStatus.CLOSED
    assert receipt.reversed_amount == Money(600, USD)
    assert receipt.breakdown == Breakdown(price_minor=500, tax_minor=100, tax_on_top_minor=100)


# --- what is believed -------------------------------------------------------------------------------

SESSION: dict[str, Any] = {
    "amount_subtotal": 500,
    "amount_total": 480,
    "total_details": {"amount_discount": 100, "amount_shipping": 0, "amount_tax": 80},
}
INVOICE: dict[str, Any] = {
    "subtotal": 800,
    "total": 768,
    "amount_shipping": 0,
    "total_taxes": [{"amount": 128, "tax_behavior": "exclusive"}],
    "total_discount_amounts": [{"amount": 160, "discount": "di_1"}],
    "discounts": ["di_1"],
}
CHARGE: dict[str, Any] = {
    "amount": 600,
    "amount_details": {"tax": {"total_tax_amount": 100}},
    "metadata": {"tax_behavior": "exclusive"},
}


def changed(value: dict[str, Any], path: str, to: Any) -> dict[str, Any]:
    found = copy.deepcopy(value)
    *parents, last = path.split(".")
    inner: Any = found
    for name in parents:
        inner = inner[int(name) if name.isdecimal() else name]
    inner[last] = to
    return found


def test_what_adds_up_is_believed() -> None:
    assert breakdowns.of_session(SESSION) == Breakdown(
        price_minor=500, discount_minor=100, tax_minor=80, tax_on_top_minor=80
    )
    assert breakdowns.of_invoice(INVOICE) == Breakdown(
        price_minor=800, discount_minor=160, tax_minor=128, tax_on_top_minor=128
    )
    assert breakdowns.of_charge(CHARGE) == Breakdown(price_minor=500, tax_minor=100, tax_on_top_minor=100)
    both = changed(
        INVOICE, "total_taxes", [*INVOICE["total_taxes"], {"amount": 40, "tax_behavior": "inclusive"}]
    )
    assert breakdowns.of_invoice(both) == Breakdown(
        price_minor=800, discount_minor=160, tax_minor=168, tax_on_top_minor=128
    )
    assert breakdowns.of_invoice(changed(INVOICE, "total", -5)) is None
    credited = changed(INVOICE, "total_taxes", [{"amount": -160, "tax_behavior": "exclusive"}])
    credited = changed(changed(credited, "total_taxes.0.amount", -32), "total", 608)
    assert breakdowns.of_invoice(credited) == Breakdown(price_minor=768, discount_minor=160)
    of_a_line = changed(changed(INVOICE, "discounts", []), "subtotal", 640)
    assert breakdowns.of_invoice(of_a_line) == Breakdown(price_minor=640, tax_minor=128, tax_on_top_minor=128)


@pytest.mark.parametrize(
    ("of", "value", "path", "to"),
    [
        (breakdowns.of_session, SESSION, "amount_total", 400 + 81),
        (breakdowns.of_session, SESSION, "amount_total", 500),
        (breakdowns.of_session, SESSION, "total_details.amount_discount", 0),
        (breakdowns.of_session, SESSION, "total_details.amount_discount", -100),
        (breakdowns.of_session, SESSION, "total_details.amount_tax", None),
        (breakdowns.of_session, SESSION, "total_details.amount_tax", 80.0),
        (breakdowns.of_session, SESSION, "total_details.amount_shipping", 5),
        (breakdowns.of_session, SESSION, "amount_total", "480"),
        (breakdowns.of_invoice, INVOICE, "total", 767),
        (breakdowns.of_invoice, INVOICE, "total", 1_000),
        (breakdowns.of_invoice, INVOICE, "total_discount_amounts", []),
        (breakdowns.of_invoice, INVOICE, "total_taxes.0.amount", 127),
        (breakdowns.of_invoice, INVOICE, "total_taxes.0.tax_behavior", "other"),
        (breakdowns.of_invoice, INVOICE, "total_taxes.0.amount", -1),
        (breakdowns.of_invoice, INVOICE, "amount_shipping", 10),
        (breakdowns.of_charge, CHARGE, "metadata.tax_behavior", "none"),
        (breakdowns.of_charge, CHARGE, "amount_details.tax.total_tax_amount", 601),
        (breakdowns.of_charge, CHARGE, "amount_details.tax.total_tax_amount", True),
    ],
)
def test_what_does_not_add_up_is_not_believed(
    of: Callable[[dict[str, Any]], Breakdown | None], value: dict[str, Any], path: str, to: Any
) -> None:
    with pytest.raises((RailProtocolError, ValueError)):
        of(changed(value, path, to))
