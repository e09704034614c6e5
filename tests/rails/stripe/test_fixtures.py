"""Every object that the stand-in answers has the fields and types of Stripe's own sample of it.

The samples are Stripe's, published beside its OpenAPI description. They are no part of this repository: where the file
is not at hand, nothing is compared. `STRIPE_FIXTURES` names it.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from sandbox.common.clock import MovableClock
from sandbox.stripe.api import Api
from sandbox.stripe.context import Context
from sandbox.stripe.control import Control
from sandbox.stripe.faults import Faults
from sandbox.stripe.store import Store
from sandbox.stripe.webhooks import Deliverer
from tests.house.sources import ROOT
from tests.rails.stripe.outside import KEY
from tests.rails.stripe.test_shapes import PACK, PLAN

PLACES = (
    os.environ.get("STRIPE_FIXTURES", ""),
    str(ROOT.parent / "shared" / "facts" / "stripe" / "fixtures3.json"),
)
FOUND = next((Path(place) for place in PLACES if place and Path(place).is_file()), None)
LISTED = (
    "checkout/sessions payment_intents payment_methods charges balance_transactions refunds disputes customers products"
    " prices subscriptions subscription_schedules invoices invoice_payments webhook_endpoints events payouts"
).split()
WITHOUT_A_SAMPLE = {"list": "a page; the objects in it are compared"}
OTHERWISE = {
    "charge.refunds": "left out unless it is asked for",
    "event.data.object": "of any kind; compared as what it is",
    "balance_transaction.source": "an id, or what it names where that is asked for",
    "invoice.subscription": "gone since basil: `parent.subscription_details`",
    "subscription.items.data[].quantity": "what is metered has none",
    "subscription_item.quantity": "the same",
    "subscription_schedule.phases[].items[].plan": "an id; the sample shows it expanded",
}
"""Where ours is not as the sample, and why that is right."""

pytestmark = pytest.mark.skipif(FOUND is None, reason="Stripe's sample objects are not at hand")


@pytest.fixture
async def stand_in(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The stand-in within this process."""
    store, faults = Store(tmp_path / "stripe.sqlite"), Faults()
    context = Context(store, MovableClock(store, time.time), secrets.token_bytes, "https://pay.example")
    control = Control(context, faults, Deliverer(context, faults))
    api = Route("/v1/{path:path}", Api(context, faults).handle, methods=["GET", "POST", "DELETE"])
    transport = httpx.ASGITransport(app=Starlette(routes=[api, *control.routes()]))
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as client:
        yield client
    store.close()


async def done(client: httpx.AsyncClient, path: str, **data: Any) -> dict[str, Any]:
    """A request that must be answered."""
    sent = {"json": data} if path.startswith("/sandbox") else {"data": data}
    answer = await (client.post(path, **sent) if data or "/sandbox" in path else client.get(path))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def everything(client: httpx.AsyncClient) -> Iterator[dict[str, Any]]:
    """One of each object, in each of its states, and whatever else comes with it."""
    for outcome in ("declined", "challenge", "processing", "paid"):
        session = (await done(client, "/v1/checkout/sessions", **PACK))["id"]
        await done(client, f"/sandbox/checkout/{session}/pay", outcome=outcome)
    await done(client, "/sandbox/refund", session=session, amount=100)
    await done(client, "/sandbox/dispute", session=session)
    await done(client, "/sandbox/dispute", session=session, status="won")
    for _ in range(2):
        other = (await done(client, "/v1/checkout/sessions", **PACK))["id"]
        await done(client, f"/sandbox/checkout/{other}/pay", outcome="paid")
    page = (await done(client, "/v1/checkout/sessions", **PLAN))["id"]
    await done(client, f"/sandbox/checkout/{page}/pay", outcome="paid")
    subscription = (await done(client, f"/v1/checkout/sessions/{page}"))["subscription"]
    await done(client, "/v1/subscription_schedules", from_subscription=subscription)
    answers = await metered(client)
    hook = {"url": "https://shop.example/hook", "enabled_events[]": "*"}
    await done(client, "/v1/webhook_endpoints", **hook)
    await done(client, "/sandbox/clock", advance_seconds=4 * 86_400)
    payout = (await done(client, "/sandbox/payout"))["id"]
    answers += [await done(client, f"/v1/{path}?limit=100") for path in LISTED]
    customer = (await done(client, "/v1/customers"))["data"][0]["id"]
    back = {"customer": customer, "return_url": "https://shop.example"}
    answers += [
        await done(client, f"/v1/checkout/sessions/{session}/line_items"),
        await done(client, "/v1/balance"),
        await done(client, f"/v1/balance_transactions?payout={payout}&expand[]=data.source"),
        await done(client, "/sandbox/payout", payout=payout, status="failed"),
        await done(client, "/v1/billing_portal/sessions", **back),
        await done(client, "/v1/invoices/create_preview", subscription=subscription),
    ]
    return objects(answers)


async def metered(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """A meter, a price by it, a subscription whose use it counts, and an invoice of that."""
    sums = {"default_aggregation[formula]": "sum"}
    meter = await done(client, "/v1/billing/meters", display_name="Credits", event_name="credits", **sums)
    product = (await done(client, "/v1/products", name="Beyond"))["id"]
    rule = {
        "recurring[interval]": "month",
        "recurring[usage_type]": "metered",
        "recurring[meter]": meter["id"],
    }
    price = await done(client, "/v1/prices", product=product, currency="usd", unit_amount="2", **rule)
    page = (await done(client, "/v1/checkout/sessions", **PLAN, **{"line_items[1][price]": price["id"]}))[
        "id"
    ]
    await done(client, f"/sandbox/checkout/{page}/pay", outcome="paid")
    subscription = (await done(client, f"/v1/checkout/sessions/{page}"))["subscription"]
    customer = (await done(client, f"/v1/subscriptions/{subscription}"))["customer"]
    now = int(time.time()) // 60 * 60
    used = {"payload[stripe_customer_id]": customer, "payload[value]": "3", "event_name": "credits"}
    event = await done(client, "/v1/billing/meter_events", **used, timestamp=str(int(time.time())))
    times = f"customer={customer}&start_time={now - 3_600}&end_time={now + 3_600}"
    summaries = await done(client, f"/v1/billing/meters/{meter['id']}/event_summaries?{times}")
    assert summaries["data"][0]["aggregated_value"] == 3
    preview = await done(client, "/v1/invoices/create_preview", subscription=subscription)
    lines = {line["quantity"]: line["amount"] for line in preview["lines"]["data"]}
    assert lines == {3: 6, 1: 2_000}
    return [meter, event, summaries, price, preview, await done(client, "/v1/billing/meters")]


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within an answer."""
    if isinstance(value, dict):
        if isinstance(value.get("object"), str):
            yield value
        for inner in value.values():
            yield from objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from objects(inner)


def differences(ours: dict[str, Any], sample: dict[str, Any], path: str) -> Iterator[str]:
    """Where an object is not as the sample: a field is missing, or of another type."""
    for name, theirs in sample.items():
        where = f"{path}.{name}"
        if where in OTHERWISE:
            continue
        if name not in ours:
            yield f"{where} is missing"
            continue
        mine = ours[name]
        if theirs is None or mine is None:
            continue
        if type(mine) is not type(theirs):
            yield f"{where} is {type(mine).__name__}, not {type(theirs).__name__}"
        elif isinstance(theirs, dict) and name != "metadata":
            yield from differences(mine, theirs, where)
        elif isinstance(theirs, list) and theirs and isinstance(theirs[0], dict):
            for entry in mine:
                yield from differences(entry, theirs[0], f"{where}[]")


async def test_every_object_is_as_its_sample(stand_in: httpx.AsyncClient) -> None:
    assert FOUND is not None
    samples = json.loads(FOUND.read_text())["resources"]
    found: set[str] = set()
    seen: set[str] = set()
    for value in await everything(stand_in):
        kind = value["object"]
        seen.add(kind)
        if kind in WITHOUT_A_SAMPLE:
            continue
        assert kind in samples, f"decide what {kind} is compared with"
        found |= set(differences(value, samples[kind], kind))
    assert sorted(found) == []
    assert {"payout", "balance", "balance_transaction", "dispute", "subscription_schedule"} <= seen
