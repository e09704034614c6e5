"""Plans by subscription and saved cards, with tax and promotion codes: over real HTTP, by the core and the rail together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
import stripe

from ledger.domain.account import ACCOUNTS
from ledger.domain.journal import postings
from ledger.identifiers import Identifiers
from ledger.money import USD, Money
from ledger.testing.memory_log import MemoryLog
from rails.breakdown import Breakdown
from rails.contract import Order, PaymentRequestStatus, Refund
from rails.domain.state import PAYMENTS
from rails.domain.topup import TopupState
from rails.recurring import Offer
from rails.saved import MethodUnusable, SaveOrder
from rails.stripe.rail import CardRail
from rails.stripe.terms import CheckoutTerms, Tax
from rails.testing.harness import only_receipt
from rails.testing.memory_references import MemoryReferences
from tests.rails.stripe.outside import CardWorld, Inbox, Sandbox, running_sandbox
from tests.rails.stripe.test_subscribing import PRO, STARTER, Shop, shop_on
from tests.rails.stripe.test_tax import ON_TOP, WITHIN, promotion

UNTAXED = CheckoutTerms()


@pytest.fixture(scope="module")
async def sandbox(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """A sandbox of this module's own: here months pass for everybody in it."""
    async with running_sandbox(tmp_path_factory.mktemp("stripe"), inbox) as sandbox:
        yield sandbox


@asynccontextmanager
async def shopping(world: CardWorld, terms: CheckoutTerms) -> AsyncIterator[Shop]:
    """One person at a platform that sells on these terms."""
    rail = await world.start(MemoryReferences(), terms=terms)
    log = MemoryLog([ACCOUNTS, PAYMENTS], world.clock)
    try:
        yield shop_on(world, rail, log, Identifiers(world.clock).account())
    finally:
        await rail.close()


async def begin(shop: Shop, offer: Offer = STARTER, code: str = "") -> str:
    """Subscribed, with a code, and paid; Stripe's name of the subscription."""
    record = await shop.open(offer)
    if code:
        await shop.world.sandbox.control(f"checkout/{record.page_reference}/promotion", {"code": code})
    await shop.world.sandbox.pay(str(record.page_reference))
    return str((await shop.subscriptions.observe(record.subscription_id)).reference)


async def look(shop: Shop) -> None:
    """The platform asks about everything that the person has."""
    for record in await shop.subscriptions.of_account(shop.account_id):
        await shop.subscriptions.observe(record.subscription_id)
    for topup in await shop.payments.topups_of(shop.account_id):
        await shop.payments.observe(topup.payment_id)


async def paid(shop: Shop) -> list[Breakdown | None]:
    """How each payment came about, oldest first."""
    topups = await shop.payments.topups_of(shop.account_id)
    return [receipt.breakdown for topup in reversed(topups) for receipt in topup.received]


async def booked(shop: Shop, account: str) -> int:
    """What the journal has there, in cents; a debit is positive."""
    return sum(
        line.amount_minor
        for entry in await shop.log.events(shop.account_id)
        for line in postings(entry.event)
        if line.account == account and line.asset == USD
    )


@pytest.mark.parametrize(
    ("terms", "total", "parts"),
    [
        (ON_TOP, 960, Breakdown(price_minor=800, tax_minor=160, tax_on_top_minor=160)),
        (WITHIN, 800, Breakdown(price_minor=800, tax_minor=133)),
    ],
)
async def test_each_period_is_brought_once_and_its_tax_is_booked(
    world: CardWorld, sdk: stripe.StripeClient, terms: CheckoutTerms, total: int, parts: Breakdown
) -> None:
    # The price of the catalogue, as `stripe sync` would have made it.
    await say_of_price(sdk, terms.tax)
    async with shopping(world, terms) as shop:
        await begin(shop)
        await world.move_clock(timedelta(days=32))
        await look(shop)
        assert await shop.plan() == "starter"
        assert await paid(shop) == [parts, parts]
        topups = await shop.payments.topups_of(shop.account_id)
        assert {(t.state, t.amount_due.minor, t.amount_missing.minor) for t in topups} == {
            (TopupState.PAID, 800, 0)
        }
        assert await booked(shop, "Liabilities:Clearing:Card") == 2 * total
        assert await booked(shop, "Liabilities:Tax:Card") == -2 * parts.tax_minor
    await say_of_price(sdk, Tax.EXCLUSIVE)


async def say_of_price(sdk: stripe.StripeClient, tax: Tax) -> None:
    [price] = (await sdk.v1.prices.list_async({"lookup_keys": ["starter_month"]})).data
    await sdk.v1.prices.create_async(
        {
            "product": str(price.product),
            "currency": "usd",
            "unit_amount": 800,
            "recurring": {"interval": "month"},
            "lookup_key": "starter_month",
            "transfer_lookup_key": True,
            "tax_behavior": "inclusive" if tax is Tax.INCLUSIVE else "exclusive",
            "metadata": {"plan": "starter"},
        }
    )


async def test_a_code_takes_off_so_many_invoices_and_no_credits(
    world: CardWorld, sdk: stripe.StripeClient
) -> None:
    code = await promotion(sdk, "PLANONCE", percent_off=25)
    async with shopping(world, replace(ON_TOP, tax=Tax.OFF)) as shop:
        await begin(shop, PRO, code)
        assert await shop.credits() == 8_000
        await world.move_clock(timedelta(days=32))
        await look(shop)
        assert await paid(shop) == [Breakdown(price_minor=2_000, discount_minor=500), None]
        assert await booked(shop, "Liabilities:Clearing:Card") == 3_500


async def test_a_code_of_almost_everything_brings_all_credits(
    world: CardWorld, sdk: stripe.StripeClient
) -> None:
    code = await promotion(sdk, "PLANTWICE", percent_off=90, duration="forever")
    async with shopping(world, ON_TOP) as shop:
        await begin(shop, PRO, code)
        assert await paid(shop) == [
            Breakdown(price_minor=2_000, discount_minor=1_800, tax_minor=40, tax_on_top_minor=40)
        ]
        assert await shop.credits() == 8_000


async def test_a_change_costs_what_was_shown_with_tax_and_discount(
    world: CardWorld, sdk: stripe.StripeClient
) -> None:
    code = await promotion(sdk, "FOREVER", percent_off=50, duration="forever")
    async with shopping(world, ON_TOP) as shop:
        reference = await begin(shop, STARTER, code)
        await world.move_clock(timedelta(days=10))
        shown = await shop.rail.preview_change(reference, PRO, now=True)
        await shop.rail.change_plan(reference, PRO, at=shown.at, key="k")
        await look(shop)
        newest = (await sdk.v1.invoices.list_async({"subscription": reference, "limit": 1})).data[0]
        assert newest.amount_paid == shown.due_now.minor > 0
        assert shown.due_next == Money(1_200, USD), "half of 20 dollars, and the tax on it"
        assert await shop.plan() == "pro"
        (_, parts) = await paid(shop)
        assert parts is not None
        assert parts.paid_minor == shown.due_now.minor
        assert parts.tax_on_top_minor == parts.tax_minor > 0


async def test_a_scheduled_change_keeps_discount_and_tax(world: CardWorld, sdk: stripe.StripeClient) -> None:
    code = await promotion(sdk, "KEPT", percent_off=50, duration="forever")
    async with shopping(world, ON_TOP) as shop:
        reference = await begin(shop, PRO, code)
        shown = await shop.rail.preview_change(reference, STARTER, now=False)
        await shop.rail.change_plan(reference, STARTER, at=None, key="k")
        await world.move_clock(timedelta(days=32))
        await look(shop)
        assert await shop.plan() == "starter"
        (_, parts) = await paid(shop)
        assert parts == Breakdown(price_minor=800, discount_minor=400, tax_minor=80, tax_on_top_minor=80)
        assert shown.due_next.minor == parts.paid_minor


async def test_who_subscribed_before_is_taxed_from_the_next_change_on(world: CardWorld) -> None:
    async with shopping(world, UNTAXED) as shop:
        reference = await begin(shop)
        later = await world.start(MemoryReferences(), terms=ON_TOP)
        shown = await later.preview_change(reference, PRO, now=True)
        await later.change_plan(reference, PRO, at=shown.at, key="k")
        await look(shop)
        (before, after) = await paid(shop)
        assert before is None
        assert after is not None
        assert (after.paid_minor, after.tax_on_top_minor > 0) == (shown.due_now.minor, True)
        await later.close()


async def test_a_refund_of_a_period_takes_its_share_of_the_tax_along(world: CardWorld) -> None:
    async with shopping(world, ON_TOP) as shop:
        await begin(shop)
        seen = await shop.subscriptions.of_account(shop.account_id)
        observed = await shop.rail.observe_subscription(str(seen[0].reference))
        assert observed is not None
        invoice = observed.invoices[0].reference
        assert await shop.rail.refund(invoice, Money(480, USD), None, "k") is Refund.SENT
        await world.reverse_invoice(invoice)
        await look(shop)
        assert await shop.credits() < 2_000
        assert await booked(shop, "Liabilities:Tax:Card") == -160 + 80


# --- saved cards ------------------------------------------------------------------------------------


async def saved(rail: CardRail, world: CardWorld) -> str:
    ids = Identifiers(world.clock)
    page = await rail.save_method(
        SaveOrder(
            saving_id=ids.new("saving"),
            account_id=ids.account(),
            expires_at=world.clock() + timedelta(hours=1),
            return_url="https://llamasketch.test/account",
        )
    )
    await world.sandbox.control(f"setup/{page.reference}", {"last4": "4242"})
    found = await rail.observe_saving(page.reference)
    assert found.method is not None
    return found.method


def an_order(world: CardWorld) -> Order:
    ids = Identifiers(world.clock)
    return Order(
        payment_id=ids.payment(),
        account_id=ids.account(),
        ordinal=1,
        amount_due=Money(500, USD),
        description="500 images",
        expires_at=world.clock() + timedelta(hours=1),
        return_url="https://llamasketch.test/topups/x",
    )


@pytest.mark.parametrize(
    ("terms", "parts"),
    [
        (ON_TOP, Breakdown(price_minor=500, tax_minor=100, tax_on_top_minor=100)),
        (WITHIN, Breakdown(price_minor=500, tax_minor=83)),
    ],
)
async def test_a_saved_card_is_charged_with_the_tax_of_its_address(
    world: CardWorld, sdk: stripe.StripeClient, terms: CheckoutTerms, parts: Breakdown
) -> None:
    rail = await world.start(MemoryReferences(), terms=terms)
    method, order = await saved(rail, world), an_order(world)
    charged = await rail.charge(order, method)
    again = await rail.charge(order, method)
    seen = await rail.observe(charged.reference)
    assert (again.reference, seen.status) == (charged.reference, PaymentRequestStatus.CLOSED)
    receipt = only_receipt(seen)
    assert (receipt.breakdown, receipt.covers_minor) == (parts, 500)
    intent = (await sdk.v1.payment_intents.retrieve_async(charged.reference)).to_dict()
    calculation = (
        await sdk.v1.tax.calculations.retrieve_async(intent["hooks"]["inputs"]["tax"]["calculation"])
    ).to_dict()
    assert calculation["amount_total"] == intent["amount"] == parts.paid_minor
    assert calculation["customer_details"]["address"]["country"] == "DE"
    await rail.close()


async def test_a_card_without_an_address_is_not_charged_where_tax_is_due(
    world: CardWorld, sdk: stripe.StripeClient
) -> None:
    before = await world.start(MemoryReferences())
    method = await saved(before, world)
    rail = await world.start(MemoryReferences(), terms=ON_TOP)
    with pytest.raises(MethodUnusable):
        await rail.charge(an_order(world), method)
    page = await sdk.v1.payment_intents.list_async({"customer": method.partition("/")[0]})
    assert page.data == []
    await before.close()
    await rail.close()
