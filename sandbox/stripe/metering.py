"""Billing meters: what is used is told as events, and each period's sum of them is a line of the next invoice."""

from __future__ import annotations

from sandbox.stripe import billing_shapes, queries
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault, invalid, missing, required
from sandbox.stripe.forms import Params
from sandbox.stripe.store import Json

UNIQUE_SECONDS = 24 * 3_600
"""For so long, at least, an identifier is not taken twice."""
PAST_SECONDS_MAX = 35 * 86_400
FUTURE_SECONDS_MAX = 5 * 60
_CUSTOMER, _VALUE = "stripe_customer_id", "value"


def create_meter(context: Context, params: Params) -> Json:
    """`POST /v1/billing/meters`, of those that sum."""
    params.allow("display_name", "event_name", "default_aggregation", "expand")
    params.child("default_aggregation").choice("formula", ("sum",), "")
    name = params.need("event_name")
    if any(meter["event_name"] == name for meter in context.store.where("billing.meter", status="active")):
        message = "An active meter already exists with this `event_name`."
        raise StripeFault(message, code="resource_already_exists", param="event_name")
    now = context.now()
    meter = {
        "id": context.new_id("mtr"),
        "object": "billing.meter",
        "created": now,
        "customer_mapping": {"event_payload_key": _CUSTOMER, "type": "by_id"},
        "default_aggregation": {"formula": "sum"},
        "display_name": params.need("display_name"),
        "event_name": name,
        "event_time_window": None,
        "livemode": False,
        "status": "active",
        "status_transitions": {"deactivated_at": None},
        "updated": now,
        "value_settings": {"event_payload_key": _VALUE},
    }
    context.store.insert(meter)
    context.emit("billing.meter.created", meter)
    return meter


def deactivate_meter(context: Context, meter: Json) -> Json:
    """`POST /v1/billing/meters/<id>/deactivate`: it takes no more events."""
    now = context.now()
    meter.update(status="inactive", updated=now, status_transitions={"deactivated_at": now})
    context.store.save(meter)
    context.emit("billing.meter.deactivated", meter)
    return meter


def create_event(context: Context, params: Params) -> Json:
    """`POST /v1/billing/meter_events`."""
    params.allow("event_name", "payload", "identifier", "timestamp", "expand")
    name, payload = params.need("event_name"), params.child("payload")
    payload.allow(_CUSTOMER, _VALUE)
    customer, value = payload.need(_CUSTOMER), payload.integer(_VALUE)
    if value is None:
        raise required("payload[value]")
    meters = [
        meter
        for meter in context.store.where("billing.meter", status="active")
        if meter["event_name"] == name
    ]
    if not meters:
        raise invalid("event_name", f"No active meter found for event name {name[:80]}.")
    if context.store.find("customer", customer) is None:
        raise missing("customer", customer, "payload[stripe_customer_id]")
    now, at = context.now(), params.integer("timestamp")
    at = now if at is None else at
    if at < now - PAST_SECONDS_MAX:
        raise invalid("timestamp", "The timestamp must be within the past 35 days.")
    if at > now + FUTURE_SECONDS_MAX:
        raise invalid("timestamp", "The timestamp must be at most 5 minutes in the future.")
    identifier = params.text("identifier") or context.new_id("mtrevt")
    for known in context.store.page("billing.meter_event", {"identifier": identifier}, limit=1)[0]:
        if known["created"] > now - UNIQUE_SECONDS:
            raise StripeFault(f"An event already exists with identifier {identifier}.")
    event = {
        "object": "billing.meter_event",
        "created": now,
        "event_name": name,
        "identifier": identifier,
        "livemode": False,
        "payload": {_CUSTOMER: customer, _VALUE: str(value)},
        "timestamp": at,
    }
    # An event has no id; here a row needs one.
    kept = {"meter": meters[0]["id"], "customer": customer, "value": value}
    context.store.insert({**event, "id": context.new_id("mtrevt"), "_sandbox": kept})
    return event


def list_summaries(context: Context, meter: Json, params: Params, path: str) -> Json:
    """`GET /v1/billing/meters/<id>/event_summaries`, as one sum."""
    params.allow("customer", "start_time", "end_time", "limit", "expand")
    starts, ends = params.integer("start_time"), params.integer("end_time")
    if starts is None or ends is None:
        raise required("start_time" if starts is None else "end_time")
    if starts % 60 or ends % 60 or ends <= starts:
        raise invalid("start_time", "Times must be aligned with minute boundaries, the start before the end.")
    value = used(context, meter["id"], params.need("customer"), starts, ends)
    summary = {
        "id": context.new_id("mtrusg"),
        "object": "billing.meter_event_summary",
        "aggregated_value": value,
        "end_time": ends,
        "livemode": False,
        "meter": meter["id"],
        "start_time": starts,
    }
    return queries.listing([summary], path)


def used(context: Context, meter: str, customer: str, starts: int, ends: int) -> int:
    """The sum of a customer's events within a time."""
    events = context.store.page("billing.meter_event", {"_sandbox.customer": customer}, limit=100_000)[0]
    mine = [event for event in events if event["_sandbox"]["meter"] == meter]
    return sum(event["_sandbox"]["value"] for event in mine if starts <= event["timestamp"] < ends)


def is_metered(price: Json) -> bool:
    """Whether it is paid for by what was used."""
    return price["recurring"] is not None and price["recurring"]["usage_type"] == "metered"


def licensed(subscription: Json) -> list[Json]:
    """The items that are paid for ahead."""
    return [item for item in subscription["items"]["data"] if not is_metered(item["price"])]


def add_item(context: Context, subscription: Json, price: Json) -> None:
    """From now on what is used is billed with the next period."""
    ends = max(item["current_period_end"] for item in subscription["items"]["data"])
    item = billing_shapes.subscription_item(context, subscription["id"], price, 1, ends)
    subscription["items"]["data"].append(item)


def lines(context: Context, subscription: Json) -> list[Json]:
    """A line for what was used in the current period of each metered item: it has just ended, or does so now."""
    found = []
    for item in subscription["items"]["data"]:
        if is_metered(item["price"]):
            starts, ends = item["current_period_start"], item["current_period_end"]
            meter = item["price"]["recurring"]["meter"]
            value = used(context, meter, subscription["customer"], starts, ends)
            amount = value * item["price"]["unit_amount"]
            counted = {**item, "quantity": value}
            found.append(billing_shapes.line(context, "", counted, amount, proration=False, end=ends))
    return found
