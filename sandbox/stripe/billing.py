"""Subscriptions: the first invoice at Checkout, renewals in time, dunning, changes, the end."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta

from sandbox.stripe import billing_shapes, payments, shapes
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault, required
from sandbox.stripe.faults import Faults
from sandbox.stripe.forms import Params
from sandbox.stripe.store import Json

RETRY_AFTER_SECONDS = (3 * 86_400, 5 * 86_400, 7 * 86_400)
INCOMPLETE_SECONDS = 23 * 3_600
_STEPS = {"day": timedelta(days=1), "week": timedelta(weeks=1)}


def recurring(params: Params) -> Json | None:
    """The `recurring` hash of a price, or None."""
    if "recurring" not in params.values:
        return None
    data = params.child("recurring")
    return {
        "interval": data.choice("interval", ("day", "week", "month", "year"), "month"),
        "interval_count": data.integer("interval_count") or 1,
        "meter": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


def period_end(start: int, anchor: int, price: Json) -> int:
    """The end of the period that starts at `start`; months keep the anchor's day where they can."""
    rule = price["recurring"]
    moment = datetime.fromtimestamp(start, UTC)
    step = _STEPS.get(rule["interval"])
    if step is not None:
        return int((moment + step * rule["interval_count"]).timestamp())
    months = rule["interval_count"] * (12 if rule["interval"] == "year" else 1)
    carry, month = divmod(moment.month - 1 + months, 12)
    year = moment.year + carry
    wanted = datetime.fromtimestamp(anchor, UTC).day
    day = min(wanted, calendar.monthrange(year, month + 1)[1])
    return int(moment.replace(year=year, month=month + 1, day=day).timestamp())


def first_intent(context: Context, session: Json) -> Json:
    """The payment intent of a session's first invoice; the subscription begins with the first call."""
    if session["subscription"] is None:
        _begin(context, session)
    return context.store.get("payment_intent", session["_sandbox"]["intent"])


def first_invoice_paid(context: Context, session: Json, intent: Json) -> None:
    """The subscription is active from here on."""
    subscription, invoice = _first_invoice(context, session)
    _mark_paid(context, invoice)
    subscription["default_payment_method"] = intent["payment_method"]
    _change_status(context, subscription, "active")
    session["invoice"] = invoice["id"]


def first_invoice_failed(context: Context, session: Json) -> None:
    """The subscription stays incomplete."""
    _mark_failed(context, _first_invoice(context, session)[1])


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
        end = period_end(context.now(), subscription["billing_cycle_anchor"], entry["price"])
        item = billing_shapes.subscription_item(
            context, subscription["id"], entry["price"], entry["quantity"], end
        )
        subscription["items"]["data"].append(item)
    context.store.insert(subscription)
    _, intent = _bill(context, subscription, "subscription_create")
    session.update(customer=customer["id"], subscription=subscription["id"])
    state["intent"] = intent["id"]
    context.store.save(session)
    context.emit("customer.subscription.created", subscription)


def _customer(context: Context, session: Json) -> Json:
    if session["customer"] is not None:
        return context.store.get("customer", session["customer"])
    customer = shapes.customer(context, email=session["customer_email"], metadata={})
    context.store.insert(customer)
    context.emit("customer.created", customer)
    return customer


def _bill(
    context: Context, subscription: Json, reason: str, lines: list[Json] | None = None
) -> tuple[Json, Json]:
    """An open invoice with its payment intent. `lines` defaults to the items' current periods."""
    customer = context.store.get("customer", subscription["customer"])
    invoice = billing_shapes.invoice(context, subscription, customer, reason)
    customer["next_invoice_sequence"] += 1
    context.store.save(customer)
    if lines is None:
        lines = [
            billing_shapes.line(
                context,
                invoice["id"],
                item,
                item["price"]["unit_amount"] * item["quantity"],
                proration=False,
                end=item["current_period_end"],
            )
            for item in subscription["items"]["data"]
        ]
    for entry in lines:
        entry["invoice"] = invoice["id"]
    total = sum(entry["amount"] for entry in lines)
    invoice["lines"].update(data=lines)
    invoice.update(subtotal=total, total=total, amount_due=total, amount_remaining=total)
    intent = shapes.payment_intent(
        context,
        total,
        subscription["currency"],
        customer=subscription["customer"],
        description="Subscription creation" if reason == "subscription_create" else "Subscription update",
    )
    invoice["confirmation_secret"] = {"client_secret": intent["client_secret"], "type": "payment_intent"}
    context.store.insert(invoice)
    context.store.insert(intent)
    context.store.insert(billing_shapes.invoice_payment(context, invoice, intent["id"]))
    subscription["latest_invoice"] = invoice["id"]
    context.store.save(subscription)
    context.emit("invoice.created", invoice)
    context.emit("invoice.finalized", invoice)
    return invoice, intent


def _mark_paid(context: Context, invoice: Json) -> None:
    invoice.update(
        status="paid",
        amount_paid=invoice["amount_due"],
        amount_remaining=0,
        attempted=True,
        attempt_count=invoice["attempt_count"] + 1,
        next_payment_attempt=None,
        auto_advance=False,
    )
    invoice["status_transitions"]["paid_at"] = context.now()
    context.store.save(invoice)
    for payment in context.store.where("invoice_payment", invoice=invoice["id"]):
        payment.update(status="paid", amount_paid=invoice["amount_paid"])
        payment["status_transitions"]["paid_at"] = context.now()
        context.store.save(payment)
        context.emit("invoice_payment.paid", payment)
    context.emit("invoice.paid", invoice)
    context.emit("invoice.payment_succeeded", invoice)


def _mark_failed(context: Context, invoice: Json) -> None:
    attempt = invoice["attempt_count"] + 1
    pauses = RETRY_AFTER_SECONDS
    again = context.now() + pauses[attempt - 1] if attempt <= len(pauses) else None
    invoice.update(attempted=True, attempt_count=attempt, next_payment_attempt=again)
    context.store.save(invoice)
    context.emit("invoice.payment_failed", invoice)


def sweep(context: Context, faults: Faults) -> None:
    """Everything that time does to subscriptions: renewals, retries, ends."""
    for subscription in context.store.where("subscription"):
        match subscription["status"]:
            case "active":
                _renew_until_now(context, subscription, faults)
            case "past_due":
                _retry(context, subscription, faults)
            case "incomplete":
                if subscription["created"] + INCOMPLETE_SECONDS <= context.now():
                    _end(context, subscription, "incomplete_expired")
            case _:
                pass


def _renew_until_now(context: Context, subscription: Json, faults: Faults) -> None:
    for _ in range(400):
        due = min(item["current_period_end"] for item in subscription["items"]["data"])
        if due > context.now() or subscription["status"] != "active":
            return
        if subscription["cancel_at_period_end"]:
            _end(context, subscription, "canceled")
            return
        previous = {"latest_invoice": subscription["latest_invoice"]}
        for item in subscription["items"]["data"]:
            item["current_period_start"] = item["current_period_end"]
            item["current_period_end"] = period_end(
                item["current_period_start"], subscription["billing_cycle_anchor"], item["price"]
            )
        invoice, intent = _bill(context, subscription, "subscription_cycle")
        context.emit("customer.subscription.updated", subscription, previous)
        _collect(context, subscription, invoice, intent, faults)


def _collect(context: Context, subscription: Json, invoice: Json, intent: Json, faults: Faults) -> None:
    if faults.take("fail_renewals"):
        payments.decline(context, intent, "insufficient_funds")
        _mark_failed(context, invoice)
        _change_status(context, subscription, "past_due")
        return
    payments.succeed(context, intent)
    _mark_paid(context, invoice)
    _change_status(context, subscription, "active")


def _change_status(context: Context, subscription: Json, status: str) -> None:
    before = subscription["status"]
    if before == status:
        return
    subscription["status"] = status
    context.store.save(subscription)
    context.emit("customer.subscription.updated", subscription, {"status": before})


def _retry(context: Context, subscription: Json, faults: Faults) -> None:
    invoice = context.store.get("invoice", subscription["latest_invoice"])
    if invoice["status"] != "open":
        return
    if invoice["next_payment_attempt"] is None:
        _end(context, subscription, "canceled")
    elif invoice["next_payment_attempt"] <= context.now():
        payment = context.store.where("invoice_payment", invoice=invoice["id"])[0]
        intent = context.store.get("payment_intent", payment["payment"]["payment_intent"])
        _collect(context, subscription, invoice, intent, faults)


def _end(context: Context, subscription: Json, status: str) -> None:
    now = context.now()
    subscription.update(status=status, ended_at=now, canceled_at=subscription["canceled_at"] or now)
    context.store.save(subscription)
    kind = "updated" if status == "incomplete_expired" else "deleted"
    context.emit(f"customer.subscription.{kind}", subscription)


def update_subscription(context: Context, subscription: Json, params: Params, faults: Faults) -> Json:
    """`POST /v1/subscriptions/<id>`: cancel at period end, resume, change the price."""
    params.allow(
        "cancel_at_period_end", "items", "metadata", "proration_behavior", "payment_behavior", "expand"
    )
    if subscription["status"] in ("canceled", "incomplete_expired"):
        raise StripeFault("A canceled subscription can only update its cancellation_details.")
    flag = params.flag("cancel_at_period_end")
    if flag is not None:
        subscription["cancel_at_period_end"] = flag
        end = max(item["current_period_end"] for item in subscription["items"]["data"])
        subscription.update(cancel_at=end if flag else None, canceled_at=context.now() if flag else None)
        subscription["cancellation_details"]["reason"] = "cancellation_requested" if flag else None
    subscription["metadata"].update(params.metadata())
    behaviour = params.choice(
        "proration_behavior", ("create_prorations", "always_invoice", "none"), "create_prorations"
    )
    lines = [_switch(context, subscription, entry) for entry in params.children("items")]
    context.store.save(subscription)
    context.emit("customer.subscription.updated", subscription, {})
    prorations = [line for pair in lines for line in pair]
    if prorations and behaviour == "always_invoice" and sum(line["amount"] for line in prorations) > 0:
        invoice, intent = _bill(context, subscription, "subscription_update", prorations)
        _collect(context, subscription, invoice, intent, faults)
    return subscription


def _switch(context: Context, subscription: Json, params: Params) -> list[Json]:
    """Put another price on an item; returns the credit and the charge for the remaining time."""
    identifier = params.text("id")
    items = subscription["items"]["data"]
    item = next((entry for entry in items if entry["id"] == identifier), None)
    if item is None:
        raise required("items[0][id]")
    price = context.store.get("price", params.need("price"), "items[0][price]")
    start, end = item["current_period_start"], item["current_period_end"]
    left, whole = max(0, end - context.now()), max(1, end - start)
    old = -(item["price"]["unit_amount"] * item["quantity"] * left // whole)
    credit = billing_shapes.line(context, "", item, old, proration=True, end=end)
    item.update(
        price=price, plan=billing_shapes.plan(price), quantity=params.integer("quantity") or item["quantity"]
    )
    new = price["unit_amount"] * item["quantity"] * left // whole
    charge = billing_shapes.line(context, "", item, new, proration=True, end=end)
    return [credit, charge]


def cancel_subscription(context: Context, subscription: Json) -> Json:
    """`DELETE /v1/subscriptions/<id>`: at once."""
    if subscription["status"] in ("canceled", "incomplete_expired"):
        raise StripeFault(
            f"No such subscription: '{subscription['id']}'", status=404, code="resource_missing"
        )
    _end(context, subscription, "canceled")
    return subscription
