"""The sandbox's subscriptions change: previews, proration, schedules, pauses, changes that wait for their money."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import stripe

from tests.rails.stripe.outside import Impossible, Inbox, Sandbox, running_sandbox
from tests.rails.stripe.test_billing import DAY_SECONDS, invoices, price, state, subscribe
from tests.rails.stripe.test_shapes import faults


@pytest.fixture(scope="module")
async def sandbox(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """A sandbox of this module's own: here whole years pass for everybody in it."""
    async with running_sandbox(tmp_path_factory.mktemp("stripe"), inbox) as sandbox:
        yield sandbox


async def now(sandbox: Sandbox) -> int:
    return int((await sandbox.control("clock"))["now"])


def item_of(subscription: dict[str, Any]) -> dict[str, Any]:
    (item,) = subscription["items"]["data"]
    return dict(item)


async def change(
    sdk: stripe.StripeClient, subscription: dict[str, Any], to: str, **more: Any
) -> dict[str, Any]:
    params: Any = {
        "items": [{"id": item_of(subscription)["id"], "price": to}],
        "proration_behavior": "always_invoice",
        **more,
    }
    return (await sdk.v1.subscriptions.update_async(subscription["id"], params)).to_dict()


async def preview(
    sdk: stripe.StripeClient, subscription: dict[str, Any], to: str, **more: Any
) -> dict[str, Any]:
    details: Any = {"items": [{"id": item_of(subscription)["id"], "price": to}], **more}
    asked = {"subscription": subscription["id"], "subscription_details": details}
    return (await sdk.v1.invoices.create_preview_async(asked)).to_dict()  # type: ignore[arg-type]


async def test_a_preview_shows_exactly_what_the_change_charges(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    subscription = await subscribe(sdk, sandbox, 800)
    pro, unlimited = await price(sdk, "Pro", 2_000), await price(sdk, "Unlimited", 4_000)
    for larger in (pro, unlimited):  # the second credits what the first was debited
        await sandbox.control("clock", {"advance_seconds": 7 * DAY_SECONDS + 11})
        at = await now(sandbox)
        shown = await preview(
            sdk, subscription, larger.id, proration_behavior="always_invoice", proration_date=at
        )
        await sandbox.control("clock", {"advance_seconds": 300})
        await change(sdk, subscription, larger.id, proration_date=at)
        charged = (await invoices(sdk, subscription))[0]
        assert charged["amount_paid"] == shown["amount_due"] > 0
        assert [line["amount"] for line in charged["lines"]["data"]] == [
            line["amount"] for line in shown["lines"]["data"]
        ]
        assert shown["id"].startswith("upcoming_")
    assert len(await invoices(sdk, subscription)) == 3


async def test_a_preview_changes_nothing(sandbox: Sandbox, sdk: stripe.StripeClient) -> None:
    subscription = await subscribe(sdk, sandbox, 800)
    pro = await price(sdk, "Pro", 2_000)
    next_one = await preview(sdk, subscription, pro.id, proration_behavior="none")
    assert next_one["amount_due"] == 2_000
    assert next_one["lines"]["data"][0]["period"]["start"] == item_of(subscription)["current_period_end"]
    found = (await sdk.v1.subscriptions.retrieve_async(subscription["id"])).to_dict()
    assert item_of(found)["price"]["unit_amount"] == 800
    assert len(await invoices(sdk, subscription)) == 1


async def test_a_smaller_price_at_once_leaves_a_credit_that_pays_the_next_invoice(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    subscription = await subscribe(sdk, sandbox, 4_000)
    starter = await price(sdk, "Starter", 800)
    await change(sdk, subscription, starter.id)
    newest = (await invoices(sdk, subscription))[0]
    assert (newest["total"], newest["amount_due"], newest["status"]) == (-3_200, 0, "paid")
    await sandbox.control("clock", {"advance_seconds": 32 * DAY_SECONDS})
    renewal = (await invoices(sdk, subscription))[0]
    assert (renewal["total"], renewal["amount_due"], renewal["status"]) == (800, 0, "paid")
    customer = await sdk.v1.customers.retrieve_async(subscription["customer"])
    assert customer.balance == -2_400


async def test_a_month_becomes_a_year_at_once(sandbox: Sandbox, sdk: stripe.StripeClient) -> None:
    subscription = await subscribe(sdk, sandbox, 800)
    product = await sdk.v1.products.create_async({"name": "Starter"})
    year = await sdk.v1.prices.create_async(
        {"currency": "usd", "unit_amount": 8_000, "product": product.id, "recurring": {"interval": "year"}}
    )
    changed = await change(sdk, subscription, year.id)
    credit, begun = (await invoices(sdk, subscription))[0]["lines"]["data"]
    assert credit["amount"] < 0
    assert (begun["amount"], begun["parent"]["subscription_item_details"]["proration"]) == (8_000, False)
    length = item_of(changed)["current_period_end"] - item_of(changed)["current_period_start"]
    assert length >= 365 * DAY_SECONDS


async def test_a_scheduled_price_begins_with_the_next_period(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    subscription = await subscribe(sdk, sandbox, 2_000)
    starter = await price(sdk, "Starter", 800)
    schedule = await sdk.v1.subscription_schedules.create_async({"from_subscription": subscription["id"]})
    assert list(faults(schedule, "schedule")) == []
    begun = schedule.phases[0]
    phases: Any = [
        {
            "items": [{"price": item_of(subscription)["price"]["id"], "quantity": 1}],
            "start_date": begun.start_date,
            "end_date": begun.end_date,
        },
        {
            "items": [{"price": starter.id, "quantity": 1}],
            "duration": {"interval": "month", "interval_count": 1},
            "proration_behavior": "none",
        },
    ]
    updated = await sdk.v1.subscription_schedules.update_async(
        schedule.id, {"phases": phases, "end_behavior": "release", "proration_behavior": "none"}
    )
    assert list(faults(updated, "schedule")) == []
    with pytest.raises(stripe.InvalidRequestError, match="managed by the subscription schedule"):
        await sdk.v1.subscriptions.update_async(subscription["id"], {"cancel_at_period_end": True})
    await sandbox.control("clock", {"advance_seconds": 32 * DAY_SECONDS})
    renewal = (await invoices(sdk, subscription))[0]
    assert (renewal["amount_paid"], renewal["billing_reason"]) == (800, "subscription_cycle")
    await sandbox.control("clock", {"advance_seconds": 31 * DAY_SECONDS})
    found = await sdk.v1.subscriptions.retrieve_async(subscription["id"], {"expand": ["schedule"]})
    assert found.schedule is None, "the schedule let go of it"


async def test_a_change_that_cannot_be_paid_waits_and_is_forgotten_after_a_day(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    subscription = await subscribe(sdk, sandbox, 800)
    pro = await price(sdk, "Pro", 2_000)
    await sandbox.control(f"subscriptions/{subscription['id']}/card", {"last4": "0341"})
    waits = await change(sdk, subscription, pro.id, payment_behavior="pending_if_incomplete")
    assert item_of(waits)["price"]["unit_amount"] == 800
    assert waits["pending_update"]["subscription_items"][0]["price"]["unit_amount"] == 2_000
    assert (waits["status"], (await invoices(sdk, subscription))[0]["status"]) == ("active", "open")
    await sandbox.control("clock", {"advance_seconds": 24 * 3_600})
    found = (await sdk.v1.subscriptions.retrieve_async(subscription["id"])).to_dict()
    assert found["pending_update"] is None
    assert (await invoices(sdk, subscription))[0]["status"] == "void"


async def test_a_change_takes_effect_when_its_invoice_is_paid_by_hand(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    subscription = await subscribe(sdk, sandbox, 800)
    pro = await price(sdk, "Pro", 2_000)
    await sandbox.control(f"subscriptions/{subscription['id']}/card", {"last4": "3184"})
    await change(sdk, subscription, pro.id, payment_behavior="pending_if_incomplete")
    invoice = (await invoices(sdk, subscription))[0]
    async with httpx.AsyncClient(trust_env=False, verify=False, follow_redirects=True) as browser:
        assert "Pay $" in (await browser.get(invoice["hosted_invoice_url"])).text
        answer = await browser.post(invoice["hosted_invoice_url"], data={"answer": "decline"})
        assert "Pay $" in answer.text
        answer = await browser.post(invoice["hosted_invoice_url"], data={"answer": "pay"})
        assert "nothing to pay" in answer.text
    found = (await sdk.v1.subscriptions.retrieve_async(subscription["id"])).to_dict()
    assert item_of(found)["price"]["unit_amount"] == 2_000
    assert found["pending_update"] is None
    with pytest.raises(Impossible):
        await sandbox.control(f"invoices/{invoice['id']}/pay", {"outcome": "paid"})


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [("keep_as_draft", "draft"), ("mark_uncollectible", "uncollectible"), ("void", "void")],
)
async def test_a_pause_collects_nothing_until_it_ends(
    sandbox: Sandbox, sdk: stripe.StripeClient, behaviour: str, status: str
) -> None:
    subscription = await subscribe(sdk, sandbox)
    paused: Any = {"pause_collection": {"behavior": behaviour}}
    await sdk.v1.subscriptions.update_async(subscription["id"], paused)
    await sandbox.control("clock", {"advance_seconds": 32 * DAY_SECONDS})
    assert [invoice["status"] for invoice in await invoices(sdk, subscription)] == [status, "paid"]
    await sdk.v1.subscriptions.update_async(subscription["id"], {"pause_collection": ""})
    await sandbox.control("clock", {"advance_seconds": 31 * DAY_SECONDS})
    assert (await invoices(sdk, subscription))[0]["status"] == "paid"
    assert await state(sdk, subscription) == "active"


async def test_dunning_may_end_unpaid_and_a_payment_by_hand_brings_it_back(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    subscription = await subscribe(sdk, sandbox)
    await sandbox.control("faults", {"fail_renewals": 4, "unpaid_at_last": True})
    await sandbox.control("clock", {"advance_seconds": 32 * DAY_SECONDS})
    for _ in range(4):
        await sandbox.control("clock", {"advance_seconds": 8 * DAY_SECONDS})
    assert await state(sdk, subscription) == "unpaid"
    failed = [invoice for invoice in await invoices(sdk, subscription) if invoice["status"] == "open"][-1]
    await sandbox.control(f"invoices/{failed['id']}/pay", {"outcome": "paid"})
    assert await state(sdk, subscription) == "active"


async def test_the_portal_changes_the_card_for_renewals_to_come(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    subscription = await subscribe(sdk, sandbox)
    portal = await sdk.v1.billing_portal.sessions.create_async({"customer": subscription["customer"]})
    async with httpx.AsyncClient(trust_env=False, verify=False, follow_redirects=True) as browser:
        answer = await browser.post(portal.url, data={"subscription": subscription["id"], "card": "0341"})
        assert "•••• 0341" in answer.text
        await sandbox.control("clock", {"advance_seconds": 32 * DAY_SECONDS})
        assert await state(sdk, subscription) == "past_due"
        await browser.post(portal.url, data={"subscription": subscription["id"], "card": "4242"})
    await sandbox.control("clock", {"advance_seconds": 4 * DAY_SECONDS})
    assert await state(sdk, subscription) == "active"


async def test_invoices_are_found_by_subscription_and_by_what_pays_them(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    subscription, _ = await subscribe(sdk, sandbox), await subscribe(sdk, sandbox)
    theirs = await sdk.v1.invoices.list_async(
        {"subscription": subscription["id"], "expand": ["data.payments"]}
    )
    (invoice,) = theirs.data
    assert invoice.payments is not None
    intent = str(invoice.payments.data[0].payment.payment_intent)
    found = await sdk.v1.invoice_payments.list_async(
        {"payment": {"type": "payment_intent", "payment_intent": intent}, "expand": ["data.invoice"]}
    )
    assert [entry.invoice.id for entry in found.data if isinstance(entry.invoice, stripe.Invoice)] == [
        invoice.id
    ]
