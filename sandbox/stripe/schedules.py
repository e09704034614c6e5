"""Subscription schedules: another price from the next period on."""

from __future__ import annotations

import stripe

from sandbox.stripe import billing_shapes, invoicing, metering, taxing
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault, invalid, required
from sandbox.stripe.forms import Params
from sandbox.stripe.periods import period_end
from sandbox.stripe.shapes import blank, nulls
from sandbox.stripe.store import Json

PHASES_MAX = 10


def create_schedule(context: Context, params: Params) -> Json:
    """`POST /v1/subscription_schedules` from a subscription: one phase, its current period."""
    params.allow("from_subscription", "expand")
    subscription = context.store.get("subscription", params.need("from_subscription"), "from_subscription")
    invoicing.require_running(subscription)
    if subscription["schedule"] is not None:
        raise StripeFault(f"Subscription {subscription['id']} already has a schedule attached to it.")
    items = subscription["items"]["data"]
    starts, ends = items[0]["current_period_start"], items[0]["current_period_end"]
    schedule = _shape(context, subscription)
    entries = [_item(item["price"]["id"], item.get("quantity")) for item in items]
    schedule["phases"] = [_phase(subscription, entries, starts, ends)]
    schedule["current_phase"] = {"start_date": starts, "end_date": ends}
    context.store.insert(schedule)
    subscription["schedule"] = schedule["id"]
    context.store.save(subscription)
    context.emit("subscription_schedule.created", schedule)
    context.emit("customer.subscription.updated", subscription, {"schedule": None})
    return schedule


def _shape(context: Context, subscription: Json) -> Json:
    settings = {
        **nulls(
            "application_fee_percent automatic_tax billing_thresholds default_payment_method description"
        ),
        **nulls("on_behalf_of transfer_data"),
        "billing_cycle_anchor": "automatic",
        "collection_method": "charge_automatically",
        "invoice_settings": {
            **nulls("account_tax_ids custom_fields days_until_due description footer"),
            "issuer": {"type": "self"},
        },
    }
    return {
        **blank(stripe.SubscriptionSchedule),
        "id": context.new_id("sub_sched"),
        "object": "subscription_schedule",
        "billing_mode": subscription["billing_mode"],
        "created": context.now(),
        "customer": subscription["customer"],
        "default_settings": settings,
        "end_behavior": "release",
        "livemode": False,
        "metadata": {},
        "pause_schedules": [],
        "phases": [],
        "status": "active",
        "subscription": subscription["id"],
    }


def _item(price: str, quantity: int | None) -> Json:
    """An item of a phase; what is metered has no quantity."""
    item: Json = {
        "billing_thresholds": None,
        "discounts": [],
        "metadata": {},
        "plan": price,
        "price": price,
        "quantity": quantity,
        "tax_rates": [],
    }
    if quantity is None:
        del item["quantity"]
    return item


def _phase(subscription: Json, items: list[Json], starts: int, ends: int) -> Json:
    return {
        **nulls("application_fee_percent billing_cycle_anchor billing_thresholds collection_method"),
        **nulls("default_payment_method description on_behalf_of transfer_data trial_end"),
        "add_invoice_items": [],
        "automatic_tax": subscription["automatic_tax"],
        "currency": subscription["currency"],
        "default_tax_rates": [],
        "discounts": [
            {"coupon": None, "discount": name, "promotion_code": None} for name in subscription["discounts"]
        ],
        "end_date": ends,
        "invoice_settings": None,
        "items": items,
        "metadata": {},
        "proration_behavior": "create_prorations",
        "start_date": starts,
    }


def update_schedule(context: Context, schedule: Json, params: Params) -> Json:
    """`POST /v1/subscription_schedules/<id>`: its phases anew, the first of which has begun."""
    params.allow("phases", "end_behavior", "proration_behavior", "expand")
    _require_active(schedule)
    if params.choice("end_behavior", ("release",), "release") and not params.children("phases"):
        raise required("phases")
    subscription = context.store.get("subscription", schedule["subscription"])
    phases: list[Json] = []
    for asked in params.children("phases")[:PHASES_MAX]:
        phases.append(_asked_phase(context, subscription, asked, phases[-1] if phases else None))
    if phases[0]["start_date"] != schedule["phases"][0]["start_date"]:
        raise invalid("phases[0][start_date]", "You can not modify the start date of the current phase.")
    schedule["phases"] = phases
    schedule["current_phase"] = {name: phases[0][name] for name in ("start_date", "end_date")}
    context.store.save(schedule)
    context.emit("subscription_schedule.updated", schedule)
    context.emit("customer.subscription.updated", subscription, {})
    return schedule


def _asked_phase(context: Context, subscription: Json, asked: Params, before: Json | None) -> Json:
    asked.allow(
        *("items", "start_date", "end_date", "duration", "proration_behavior", "automatic_tax", "discounts")
    )
    if not asked.children("items"):
        raise required("phases[0][items]")
    items = []
    for entry in asked.children("items"):
        entry.allow("price", "quantity")
        price = context.store.get("price", entry.need("price"), "phases[0][items][0][price]")
        quantity = None if metering.is_metered(price) else entry.integer("quantity") or 1
        items.append(_item(price["id"], quantity))
    starts = before["end_date"] if before else asked.integer("start_date")
    if starts is None:
        raise required("phases[0][start_date]")
    ends = asked.integer("end_date")
    if ends is None:
        length = asked.child("duration")
        length.allow("interval", "interval_count")
        rule = {"interval": length.need("interval"), "interval_count": length.integer("interval_count") or 1}
        ends = period_end(starts, subscription["billing_cycle_anchor"], {"recurring": rule})
    phase = _phase(subscription, items, starts, ends)
    choices = ("create_prorations", "always_invoice", "none")
    taxed = taxing.automatic(asked)
    phase["automatic_tax"] = taxing.automatic_tax(taxed, "disabled_reason")
    names = [entry.need("discount") for entry in asked.children("discounts")]
    phase["discounts"] = [{"coupon": None, "discount": name, "promotion_code": None} for name in names]
    phase["proration_behavior"] = asked.choice("proration_behavior", choices, "create_prorations")
    return phase


def release_schedule(context: Context, schedule: Json) -> Json:
    """`POST /v1/subscription_schedules/<id>/release`: the subscription goes on as it is."""
    _require_active(schedule)
    subscription = context.store.get("subscription", schedule["subscription"])
    _release(context, schedule, subscription)
    context.emit("customer.subscription.updated", subscription, {"schedule": schedule["id"]})
    return schedule


def _require_active(schedule: Json) -> None:
    if schedule["status"] != "active":
        message = f"You cannot change a subscription schedule that is in the `{schedule['status']}` status."
        raise StripeFault(message)


def _release(context: Context, schedule: Json, subscription: Json) -> None:
    schedule.update(
        status="released",
        released_at=context.now(),
        released_subscription=subscription["id"],
        subscription=None,
        current_phase=None,
    )
    context.store.save(schedule)
    subscription["schedule"] = None
    context.store.save(subscription)
    context.emit("subscription_schedule.released", schedule)


def enter_phase(context: Context, subscription: Json, now: int) -> None:
    """A period ends at `now`: the price of the phase that begins then, or the schedule's own end."""
    if subscription["schedule"] is None:
        return
    schedule = context.store.get("subscription_schedule", subscription["schedule"])
    begins = [phase for phase in schedule["phases"] if phase["start_date"] <= now < phase["end_date"]]
    if not begins:
        _release(context, schedule, subscription)
        return
    phase = begins[0]
    schedule["current_phase"] = {name: phase[name] for name in ("start_date", "end_date")}
    context.store.save(schedule)
    # What a phase does not name is not there any more.
    subscription["discounts"] = [entry["discount"] for entry in phase["discounts"]]
    subscription["automatic_tax"] = phase["automatic_tax"]
    prices = [(context.store.get("price", entry["price"]), entry) for entry in phase["items"]]
    (item,) = metering.licensed(subscription)
    for price, entry in prices:
        if not metering.is_metered(price):
            item.update(price=price, plan=billing_shapes.plan(price), quantity=entry["quantity"])
    metered = {price["id"]: price for price, _ in prices if metering.is_metered(price)}
    kept = [
        known for known in subscription["items"]["data"] if known is item or known["price"]["id"] in metered
    ]
    subscription["items"]["data"] = kept
    for name, price in metered.items():
        if all(known["price"]["id"] != name for known in kept):
            metering.add_item(context, subscription, price)
