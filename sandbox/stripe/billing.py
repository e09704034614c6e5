"""Subscriptions in time: the first invoice at Checkout, renewals, dunning, pauses, the end."""

from __future__ import annotations

from sandbox.stripe import billing_shapes, invoicing, metering, promotions, schedules, shapes, taxing, updates
from sandbox.stripe.context import Context
from sandbox.stripe.errors import invalid
from sandbox.stripe.faults import Faults
from sandbox.stripe.forms import Params
from sandbox.stripe.periods import period_end
from sandbox.stripe.store import Json

INCOMPLETE_SECONDS = 23 * 3_600
PERIODS_MAX = 400
"""So many renewals at once are more than any test skips."""
_PAUSED = {"keep_as_draft": "draft", "mark_uncollectible": "uncollectible", "void": "void"}


def recurring(context: Context, params: Params) -> Json | None:
    """The `recurring` hash of a price, or None. What is metered names its meter."""
    if "recurring" not in params.values:
        return None
    data = params.child("recurring")
    data.allow("interval", "interval_count", "usage_type", "meter")
    usage_type = data.choice("usage_type", ("licensed", "metered"), "licensed")
    meter = data.text("meter")
    if (usage_type == "metered") != (meter is not None):
        raise invalid("recurring[meter]", "A metered price needs a meter, and only that has one.")
    if meter is not None:
        context.store.get("billing.meter", meter, "recurring[meter]")
    return {
        "interval": data.choice("interval", ("day", "week", "month", "year"), "month"),
        "interval_count": data.integer("interval_count") or 1,
        "meter": meter,
        "trial_period_days": None,
        "usage_type": usage_type,
    }


def first_intent(context: Context, session: Json) -> Json:
    """The payment intent of a session's first invoice; the subscription begins with the first call."""
    if session["subscription"] is None:
        _begin(context, session)
    return context.store.get("payment_intent", session["_sandbox"]["intent"])


def first_invoice_paid(context: Context, session: Json, intent: Json) -> None:
    """The subscription is active from here on."""
    subscription, invoice = _first_invoice(context, session)
    invoicing.mark_paid(context, invoice)
    subscription["default_payment_method"] = intent["payment_method"]
    invoicing.change_status(context, subscription, "active")
    session["invoice"] = invoice["id"]


def first_invoice_failed(context: Context, session: Json) -> None:
    """The subscription stays incomplete."""
    invoicing.mark_failed(context, _first_invoice(context, session)[1])


def _first_invoice(context: Context, session: Json) -> tuple[Json, Json]:
    subscription = context.store.get("subscription", session["subscription"])
    return subscription, context.store.get("invoice", subscription["latest_invoice"])


def _begin(context: Context, session: Json) -> None:
    customer = _customer(context, session)
    state = session["_sandbox"]
    subscription = billing_shapes.subscription(
        context, customer["id"], session["currency"], state["metadata"]
    )
    for entry in state["line_items"]:
        ends = period_end(context.now(), subscription["billing_cycle_anchor"], entry["price"])
        item = billing_shapes.subscription_item(
            context, subscription["id"], entry["price"], entry["quantity"], ends
        )
        subscription["items"]["data"].append(item)
    taxed = session["automatic_tax"]["enabled"]
    subscription["automatic_tax"] = taxing.automatic_tax(taxed, "disabled_reason")
    _discount(context, session, subscription)
    context.store.insert(subscription)
    _, intent = invoicing.bill(context, subscription, "subscription_create")
    assert intent is not None, "a session costs something"
    session.update(customer=customer["id"], subscription=subscription["id"])
    state["intent"] = intent["id"]
    context.store.save(session)
    context.emit("customer.subscription.created", subscription)


def _discount(context: Context, session: Json, subscription: Json) -> None:
    """A promotion code of the session is a discount of the subscription."""
    promotion = session["_sandbox"].get("promotion")
    if promotion is not None:
        code = context.store.get("promotion_code", promotion["code"])
        coupon = context.store.get("coupon", promotion["coupon"])
        discount = promotions.begin(context, code, coupon, subscription=subscription["id"])
        subscription["discounts"] = [discount["id"]]


def _customer(context: Context, session: Json) -> Json:
    if session["customer"] is not None:
        return context.store.get("customer", session["customer"])
    customer = shapes.customer(context, email=session["customer_email"], metadata={})
    context.store.insert(customer)
    context.emit("customer.created", customer)
    return customer


def sweep(context: Context, faults: Faults) -> None:
    """Everything that time does to subscriptions: renewals, retries, ends."""
    for subscription in context.store.where("subscription"):
        updates.drop_overdue(context, subscription)
        if subscription["status"] == "active" and 0 < (subscription["cancel_at"] or 0) <= context.now():
            _end(context, subscription, faults)
            continue
        match subscription["status"]:
            case "active" | "unpaid":
                _renew_until_now(context, subscription, faults)
            case "past_due":
                _retry(context, subscription, faults)
            case "incomplete":
                if subscription["created"] + INCOMPLETE_SECONDS <= context.now():
                    invoicing.end(context, subscription, "incomplete_expired")
            case _:
                pass


def _renew_until_now(context: Context, subscription: Json, faults: Faults) -> None:
    for _ in range(PERIODS_MAX):
        due = min(item["current_period_end"] for item in subscription["items"]["data"])
        if due > context.now() or subscription["status"] not in ("active", "unpaid"):
            return
        if subscription["cancel_at_period_end"]:
            _end(context, subscription, faults)
            return
        _renew(context, subscription, due, faults)


def _end(context: Context, subscription: Json, faults: Faults) -> None:
    """It ends with its period: what was used in that is billed once more."""
    lines = [line for line in metering.lines(context, subscription) if line["amount"]]
    if lines:
        invoice, intent = invoicing.bill(context, subscription, "subscription_cycle", lines)
        invoicing.collect(context, subscription, invoice, intent, faults)
    invoicing.end(context, subscription, "canceled")


def _renew(context: Context, subscription: Json, due: int, faults: Faults) -> None:
    previous = {"latest_invoice": subscription["latest_invoice"]}
    subscription["_sandbox"].setdefault("lines", []).extend(metering.lines(context, subscription))
    schedules.enter_phase(context, subscription, due)
    for item in subscription["items"]["data"]:
        item["current_period_start"] = item["current_period_end"]
        item["current_period_end"] = period_end(
            item["current_period_start"], subscription["billing_cycle_anchor"], item["price"]
        )
    invoice, intent = invoicing.bill(context, subscription, "subscription_cycle")
    context.emit("customer.subscription.updated", subscription, previous)
    paused = subscription["pause_collection"]
    if paused is not None:
        invoicing.set_aside(context, invoice, _PAUSED[paused["behavior"]])
    elif subscription["status"] == "unpaid":
        invoicing.set_aside(context, invoice, "draft")
    elif not invoicing.collect(context, subscription, invoice, intent, faults):
        invoicing.change_status(context, subscription, "past_due")


def _retry(context: Context, subscription: Json, faults: Faults) -> None:
    invoice = context.store.get("invoice", subscription["latest_invoice"])
    if invoice["status"] != "open":
        return
    if invoice["next_payment_attempt"] is None:
        if faults.unpaid_at_last:
            invoicing.change_status(context, subscription, "unpaid")
        else:
            invoicing.end(context, subscription, "canceled")
    elif invoice["next_payment_attempt"] <= context.now():
        intent = invoicing.intent_of(context, invoice)
        invoicing.collect(context, subscription, invoice, intent, faults)
