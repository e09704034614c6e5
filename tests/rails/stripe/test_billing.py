"""The sandbox's subscriptions: first invoice, renewals in time, dunning, changes, the portal."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest
import stripe

from sandbox.stripe.periods import period_end
from tests.rails.stripe.outside import Sandbox

DAY_SECONDS = 86_400


async def price(sdk: stripe.StripeClient, name: str, cents: int) -> stripe.Price:
    product = await sdk.v1.products.create_async({"name": name})
    return await sdk.v1.prices.create_async(
        {"currency": "usd", "unit_amount": cents, "product": product.id, "recurring": {"interval": "month"}}
    )


async def subscribe(sdk: stripe.StripeClient, sandbox: Sandbox, cents: int = 800) -> dict[str, Any]:
    starter = await price(sdk, "Starter", cents)
    session = await sdk.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "customer_email": "a@example.org",
            "line_items": [{"price": starter.id, "quantity": 1}],
            "success_url": "https://shop.example/ok",
            "subscription_data": {"metadata": {"account_id": "acct_1"}},
        }
    )
    await sandbox.pay(session.id)
    paid = await sdk.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["subscription"]})
    assert (paid.status, paid.payment_status) == ("complete", "paid")
    subscription = paid.subscription
    assert isinstance(subscription, stripe.Subscription)
    return subscription.to_dict()


async def state(sdk: stripe.StripeClient, subscription: dict[str, Any]) -> str:
    return (await sdk.v1.subscriptions.retrieve_async(subscription["id"])).status


async def invoices(sdk: stripe.StripeClient, subscription: dict[str, Any]) -> list[dict[str, Any]]:
    page = await sdk.v1.invoices.list_async({"customer": subscription["customer"], "limit": 100})
    return [invoice.to_dict() for invoice in page.data]


async def test_a_paid_checkout_starts_a_subscription_with_a_paid_invoice(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    subscription = await subscribe(sdk, sandbox)
    assert (subscription["status"], subscription["billing_mode"]["type"]) == ("active", "flexible")
    assert subscription["metadata"] == {"account_id": "acct_1"}
    assert "current_period_end" not in subscription  # it is on the items
    (invoice,) = await invoices(sdk, subscription)
    assert (invoice["status"], invoice["amount_paid"], invoice["billing_reason"]) == (
        "paid",
        800,
        "subscription_create",
    )
    assert invoice["parent"]["subscription_details"]["subscription"] == subscription["id"]
    period = invoice["lines"]["data"][0]["period"]
    assert period["end"] == subscription["items"]["data"][0]["current_period_end"]
    payments = await sdk.v1.invoice_payments.list_async({"invoice": invoice["id"]})
    assert payments.data[0].payment.type == "payment_intent"


async def test_time_renews_once_per_period(sandbox: Sandbox, sdk: stripe.StripeClient) -> None:
    subscription = await subscribe(sdk, sandbox)
    await sandbox.control("clock", {"advance_seconds": 95 * DAY_SECONDS})
    await sandbox.control("clock", {"advance_seconds": 1})
    periods = [invoice["lines"]["data"][0]["period"] for invoice in await invoices(sdk, subscription)]
    assert len(periods) == 4
    assert all(new["start"] == old["end"] for new, old in pairwise(periods))


async def test_a_failed_renewal_is_retried_and_recovers(sandbox: Sandbox, sdk: stripe.StripeClient) -> None:
    subscription = await subscribe(sdk, sandbox)
    await sandbox.control("faults", {"fail_renewals": 1})
    await sandbox.control("clock", {"advance_seconds": 32 * DAY_SECONDS})
    assert await state(sdk, subscription) == "past_due"
    assert (await invoices(sdk, subscription))[0]["status"] == "open"
    await sandbox.control("clock", {"advance_seconds": 4 * DAY_SECONDS})
    assert await state(sdk, subscription) == "active"
    assert [invoice["status"] for invoice in await invoices(sdk, subscription)] == ["paid", "paid"]


async def test_dunning_ends_in_cancellation(sandbox: Sandbox, sdk: stripe.StripeClient) -> None:
    subscription = await subscribe(sdk, sandbox)
    await sandbox.control("faults", {"fail_renewals": 10})
    await sandbox.control("clock", {"advance_seconds": 32 * DAY_SECONDS})
    for _ in range(3):  # after 3, 5 and 7 days
        assert await state(sdk, subscription) == "past_due"
        await sandbox.control("clock", {"advance_seconds": 8 * DAY_SECONDS})
    assert await state(sdk, subscription) == "canceled"


async def test_an_upgrade_is_charged_for_the_time_that_is_left(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    subscription = await subscribe(sdk, sandbox, 800)
    pro = await price(sdk, "Pro", 2000)
    item = subscription["items"]["data"][0]["id"]
    await sdk.v1.subscriptions.update_async(
        subscription["id"],
        {"items": [{"id": item, "price": pro.id}], "proration_behavior": "always_invoice"},
    )
    newest = (await invoices(sdk, subscription))[0]
    credit, charge = newest["lines"]["data"]
    assert credit["amount"] < 0 < charge["amount"]
    assert credit["parent"]["subscription_item_details"]["proration"] is True
    assert newest["total"] == credit["amount"] + charge["amount"]
    assert newest["status"] == "paid"


async def test_a_cancelled_plan_runs_to_the_end_of_its_period_and_may_resume(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    subscription = await subscribe(sdk, sandbox)
    for flag in (True, False, True):
        changed = await sdk.v1.subscriptions.update_async(subscription["id"], {"cancel_at_period_end": flag})
        assert changed.cancel_at_period_end is flag
        assert (changed.cancel_at is not None) is flag
    assert await state(sdk, subscription) == "active"
    await sandbox.control("clock", {"advance_seconds": 32 * DAY_SECONDS})
    assert await state(sdk, subscription) == "canceled"
    assert len(await invoices(sdk, subscription)) == 1


async def test_an_unpaid_first_invoice_expires_after_23_hours(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    starter = await price(sdk, "Starter", 800)
    session = await sdk.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "line_items": [{"price": starter.id, "quantity": 1}],
            "success_url": "https://shop.example/ok",
        }
    )
    await sandbox.pay(session.id, "declined")
    found = await sdk.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["subscription"]})
    assert isinstance(found.subscription, stripe.Subscription)
    assert found.subscription.status == "incomplete"
    await sandbox.control("clock", {"advance_seconds": 24 * 3600})
    assert await state(sdk, found.subscription.to_dict()) == "incomplete_expired"


async def test_the_portal_cancels_and_resumes(sandbox: Sandbox, sdk: stripe.StripeClient) -> None:
    subscription = await subscribe(sdk, sandbox)
    portal = await sdk.v1.billing_portal.sessions.create_async({"customer": subscription["customer"]})
    async with httpx.AsyncClient(trust_env=False, verify=False, follow_redirects=True) as browser:
        page = await browser.get(portal.url)
        assert "Starter" in page.text
        form = {"subscription": subscription["id"], "action": "cancel"}
        assert "Keep the plan" in (await browser.post(portal.url, data=form)).text
        form["action"] = "resume"
        assert "Keep the plan" not in (await browser.post(portal.url, data=form)).text
        stranger = await subscribe(sdk, sandbox)
        await browser.post(portal.url, data={"subscription": stranger["id"], "action": "cancel"})
    assert (await sdk.v1.subscriptions.retrieve_async(stranger["id"])).cancel_at_period_end is False


@pytest.mark.parametrize(
    ("start", "anchor", "end"),
    [
        ("2027-01-31", "2027-01-31", "2027-02-28"),
        ("2027-02-28", "2027-01-31", "2027-03-31"),
        ("2028-01-31", "2028-01-31", "2028-02-29"),
        ("2026-12-15", "2026-12-15", "2027-01-15"),
    ],
)
def test_months_keep_the_day_of_the_anchor(start: str, anchor: str, end: str) -> None:
    def at(day: str) -> int:
        return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())

    monthly = {"recurring": {"interval": "month", "interval_count": 1}}
    assert period_end(at(start), at(anchor), monthly) == at(end)
