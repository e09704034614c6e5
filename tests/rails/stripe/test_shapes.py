"""Every object of the sandbox has the fields that the pinned SDK knows, no more, and none missing.

The SDK's classes are generated from Stripe's own specification of the pinned version: a field
annotated as optional may be null or left out, every other one must be there.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import stripe

from tests.rails.stripe.outside import Sandbox

PACK = {
    "mode": "payment",
    "success_url": "https://shop.example/ok",
    "line_items[0][quantity]": "1",
    "line_items[0][price_data][currency]": "usd",
    "line_items[0][price_data][unit_amount]": "2000",
    "line_items[0][price_data][product_data][name]": "2000 images",
}
PLAN = {
    **PACK,
    "mode": "subscription",
    "customer_email": "a@example.org",
    "line_items[0][price_data][recurring][interval]": "month",
}


def faults(value: Any, path: str) -> Iterator[str]:
    """Where an object differs from its class."""
    if isinstance(value, list):
        for index, entry in enumerate(value):
            yield from faults(entry, f"{path}[{index}]")
    if not isinstance(value, stripe.StripeObject):
        return
    annotations = {} if type(value) is stripe.StripeObject else _annotations(type(value))
    fields = value._data
    for name, annotation in annotations.items():
        if annotation != "Optional" and fields.get(name) is None:
            yield f"{path}.{name} is missing"
    for name, inner in fields.items():
        if annotations and name not in annotations:
            yield f"{path}.{name} is unheard of"
        yield from faults(inner, f"{path}.{name}")


def _annotations(cls: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("stripe.") and base is not stripe.StripeObject:
            for name, annotation in inspect.get_annotations(base).items():
                text = annotation if isinstance(annotation, str) else str(annotation)
                optional = text.startswith(("Optional", "typing.Optional")) or "NoneType]" in text[-10:]
                if not name.startswith("_") and "ClassVar" not in text:
                    found[name] = "Optional" if optional else text
    if issubclass(cls, stripe.ListObject):
        found.update(object="str", url="str", has_more="bool", data="list")
    return found


async def everything(sandbox: Sandbox, sdk: stripe.StripeClient) -> None:
    """Make one of each object happen."""
    for outcome in ("declined", "challenge", "paid"):
        made = (await sandbox.api("POST", "checkout/sessions", data=PACK)).json()["id"]
        await sandbox.pay(made, outcome)
    await sandbox.control("refund", {"session": made, "amount": 100})
    await sandbox.control("dispute", {"session": made})
    await sandbox.control("dispute", {"session": made, "status": "won"})
    await sandbox.api("POST", "checkout/sessions", data=PACK)
    customer = (await sandbox.api("POST", "customers", data={})).json()["id"]
    setup = {
        "mode": "setup",
        "currency": "usd",
        "customer": customer,
        "success_url": "https://shop.example/ok",
    }
    for last4 in ("4242", "3184", "0341"):
        saving = (await sandbox.api("POST", "checkout/sessions", data=setup)).json()
        await sandbox.control(f"setup/{saving['id']}", {"last4": last4})
        saved = (await sandbox.api("GET", f"setup_intents/{saving['setup_intent']}")).json()
        charge = {"amount": "500", "currency": "usd", "customer": customer, "confirm": "true"}
        charge |= {"payment_method": saved["payment_method"], "off_session": "true"}
        await sandbox.api("POST", "payment_intents", data=charge)
    await sandbox.api("POST", f"payment_methods/{saved['payment_method']}/detach", data={})
    await sandbox.api("POST", "checkout/sessions", data=setup)
    plan = (await sandbox.api("POST", "checkout/sessions", data=PLAN)).json()["id"]
    await sandbox.pay(plan)
    subscription = (await sandbox.api("GET", f"checkout/sessions/{plan}")).json()["subscription"]
    schedule = {"from_subscription": subscription}
    assert (await sandbox.api("POST", "subscription_schedules", data=schedule)).status_code == 200


async def test_every_object_has_the_fields_of_the_pinned_version(
    sandbox: Sandbox, sdk: stripe.StripeClient
) -> None:
    await everything(sandbox, sdk)
    found: list[str] = []
    v1 = sdk.v1
    services: dict[str, Any] = {
        "checkout.sessions": v1.checkout.sessions,
        "payment_intents": v1.payment_intents,
        "payment_methods": v1.payment_methods,
        "charges": v1.charges,
        "balance_transactions": v1.balance_transactions,
        "refunds": v1.refunds,
        "disputes": v1.disputes,
        "customers": v1.customers,
        "products": v1.products,
        "prices": v1.prices,
        "subscriptions": v1.subscriptions,
        "invoices": v1.invoices,
        "invoice_payments": v1.invoice_payments,
        "subscription_schedules": v1.subscription_schedules,
        "webhook_endpoints": v1.webhook_endpoints,
        "events": v1.events,
    }
    for name, service in services.items():
        page = await service.list_async({"limit": 50})
        assert page.data, name
        for value in page.data:
            found += faults(value, name)
    assert sorted(set(found)) == []


async def test_the_line_items_and_the_portal_too(sandbox: Sandbox, sdk: stripe.StripeClient) -> None:
    made = (await sandbox.api("POST", "checkout/sessions", data=PACK)).json()["id"]
    items = await sdk.v1.checkout.sessions.line_items.list_async(made)
    customer = await sdk.v1.customers.create_async({"email": "b@example.org"})
    portal = await sdk.v1.billing_portal.sessions.create_async(
        {"customer": customer.id, "return_url": "https://shop.example/account"}
    )
    plan = (await sandbox.api("POST", "checkout/sessions", data=PLAN)).json()["id"]
    await sandbox.pay(plan)
    session = await sdk.v1.checkout.sessions.retrieve_async(plan)
    preview = await sdk.v1.invoices.create_preview_async({"subscription": str(session.subscription)})
    assert list(faults(preview, "preview")) == []
    assert [*faults(items.data, "items"), *faults(portal, "portal"), *faults(customer, "customer")] == []


async def test_every_event_type_is_one_that_the_sdk_knows(sandbox: Sandbox, sdk: stripe.StripeClient) -> None:
    await everything(sandbox, sdk)
    known = str(stripe.Event.__annotations__["type"])
    page = await sdk.v1.events.list_async({"limit": 100})
    assert {event.type for event in page.data if f"'{event.type}'" not in known.replace('"', "'")} == set()
