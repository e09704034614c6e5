"""Changes of a subscription: another price with proration, pauses, cancellation, and what a change would cost."""

from __future__ import annotations

import copy

from sandbox.stripe import billing_shapes, invoicing, metering, payments, promotions, taxing
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault, invalid, required
from sandbox.stripe.faults import Faults
from sandbox.stripe.forms import Params
from sandbox.stripe.periods import period_end
from sandbox.stripe.store import Json

PENDING_SECONDS = 23 * 3_600
_BEHAVIOURS = ("create_prorations", "always_invoice", "none")
_KINDS = ("keep_as_draft", "mark_uncollectible", "void")


def update_subscription(context: Context, subscription: Json, params: Params, faults: Faults) -> Json:
    """`POST /v1/subscriptions/<id>`: cancel at period end, resume, pause collection, change the price."""
    params.allow(
        *("cancel_at_period_end", "items", "metadata", "proration_behavior", "payment_behavior", "expand"),
        *("proration_date", "pause_collection", "cancel_at", "automatic_tax"),
    )
    invoicing.require_running(subscription)
    _change_cancellation(context, subscription, params)
    _change_pause(subscription, params)
    _change_tax(subscription, params)
    subscription["metadata"].update(params.metadata())
    context.store.save(subscription)
    if params.values.get("items"):
        _change_price(context, subscription, params, faults)
    else:
        context.emit("customer.subscription.updated", subscription, {})
    return subscription


def _change_cancellation(context: Context, subscription: Json, params: Params) -> None:
    flag, date = params.flag("cancel_at_period_end"), params.integer("cancel_at")
    if flag is None and "cancel_at" not in params.values:
        return
    if subscription["schedule"] is not None:
        message = (
            f"The subscription is managed by the subscription schedule `{subscription['schedule']}`, and "
            "updating any cancelation behavior directly is not allowed. Please update the schedule instead."
        )
        raise StripeFault(message)
    subscription["cancel_at_period_end"] = bool(flag)
    ends = max(item["current_period_end"] for item in subscription["items"]["data"])
    date = ends if flag else date
    subscription.update(cancel_at=date, canceled_at=None if date is None else context.now())
    subscription["cancellation_details"]["reason"] = None if date is None else "cancellation_requested"


def _change_pause(subscription: Json, params: Params) -> None:
    if params.values.get("pause_collection") == "":
        subscription["pause_collection"] = None
    elif "pause_collection" in params.values:
        kind = params.child("pause_collection").choice("behavior", _KINDS, "void")
        subscription["pause_collection"] = {"behavior": kind, "resumes_at": None}


def _change_tax(subscription: Json, params: Params) -> None:
    taxed = taxing.automatic(params, otherwise=subscription["automatic_tax"]["enabled"])
    subscription["automatic_tax"] = taxing.automatic_tax(taxed, "disabled_reason")


def _change_price(context: Context, subscription: Json, params: Params, faults: Faults) -> None:
    behaviour = params.choice("proration_behavior", _BEHAVIOURS, "create_prorations")
    waits = params.choice(
        "payment_behavior", ("allow_incomplete", "pending_if_incomplete"), "allow_incomplete"
    )
    before = copy.deepcopy({name: subscription[name] for name in ("items", "billing_cycle_anchor")})
    lines, at_once = switch(context, subscription, params)
    if behaviour == "none":
        lines = [line for line in lines if not _is_proration(line)]
    if not lines or not (at_once or behaviour == "always_invoice"):
        subscription["_sandbox"].setdefault("lines", []).extend(lines)
        context.store.save(subscription)
        context.emit("customer.subscription.updated", subscription, _previous(before))
        return
    invoice, intent = invoicing.bill(context, subscription, "subscription_update", lines)
    if invoicing.collect(context, subscription, invoice, intent, faults):
        context.emit("customer.subscription.updated", subscription, _previous(before))
    elif waits == "pending_if_incomplete":
        _keep_for_later(context, subscription, invoice, before)
    else:
        invoicing.change_status(context, subscription, "past_due")


def _previous(before: Json) -> Json:
    return {"items": {"data": before["items"]["data"]}}


def _keep_for_later(context: Context, subscription: Json, invoice: Json, before: Json) -> None:
    """Nothing changes until the invoice is paid; after 23 hours nothing ever does."""
    wanted = {name: subscription[name] for name in before}
    subscription["_sandbox"]["wanted"] = {"invoice": invoice["id"], **wanted}
    subscription.update(before)
    subscription["pending_update"] = {
        "billing_cycle_anchor": None,
        "expires_at": context.now() + PENDING_SECONDS,
        "subscription_items": wanted["items"]["data"],
        "trial_end": None,
        "trial_from_plan": None,
    }
    context.store.save(subscription)
    context.emit("customer.subscription.updated", subscription, {"pending_update": None})


def pay_invoice(context: Context, invoice: Json, *, succeeds: bool) -> Json:
    """The payer opened the invoice's own page and paid with another card, or passed 3-D Secure."""
    intent = invoicing.intent_of(context, invoice)
    if invoice["status"] != "open" or intent is None:
        raise StripeFault("This invoice cannot be paid any more.", status=409)
    details = invoice["parent"]["subscription_details"]
    subscription = context.store.get("subscription", details["subscription"])
    if not succeeds:
        payments.decline(context, intent, "generic_decline")
        context.emit("invoice.payment_failed", invoice)
        return invoice
    payments.succeed(context, intent)
    invoicing.mark_paid(context, invoice)
    subscription["default_payment_method"] = intent["payment_method"]
    context.store.save(subscription)
    if subscription["status"] in invoicing.DEBTS:
        invoicing.change_status(context, subscription, "active")
    _apply_paid(context, invoice)
    return invoice


def _apply_paid(context: Context, invoice: Json) -> None:
    """A change that waited for this invoice takes effect."""
    details = invoice["parent"]["subscription_details"]
    subscription = context.store.get("subscription", details["subscription"])
    wanted = subscription["_sandbox"].get("wanted")
    if wanted is None or wanted["invoice"] != invoice["id"]:
        return
    del subscription["_sandbox"]["wanted"]
    subscription.update(items=wanted["items"], billing_cycle_anchor=wanted["billing_cycle_anchor"])
    subscription["pending_update"] = None
    context.store.save(subscription)
    context.emit("customer.subscription.pending_update_applied", subscription)
    context.emit("customer.subscription.updated", subscription, {})


def drop_overdue(context: Context, subscription: Json) -> None:
    """A change that was not paid for in time is forgotten, with its invoice."""
    pending = subscription["pending_update"]
    if pending is None or pending["expires_at"] > context.now():
        return
    wanted = subscription["_sandbox"].pop("wanted")
    subscription["pending_update"] = None
    context.store.save(subscription)
    invoicing.set_aside(context, context.store.get("invoice", wanted["invoice"]), "void")
    context.emit("customer.subscription.pending_update_expired", subscription)
    context.emit("customer.subscription.updated", subscription, {})


def switch(context: Context, subscription: Json, params: Params) -> tuple[list[Json], bool]:
    """Put other prices on items; the lines that come of it, and whether a new period begins."""
    lines: list[Json] = []
    at_once = False
    asked = params.integer("proration_date")
    now = context.now() if asked is None else asked
    items = subscription["items"]["data"]
    if not min(item["current_period_start"] for item in items) <= now <= context.now() + 1:
        raise invalid("proration_date", "Cannot specify `proration_date` outside of the current period.")
    for entry in params.children("items"):
        identifier = entry.text("id")
        if identifier is None and metering.is_metered(_price_of(context, entry)):
            metering.add_item(context, subscription, _price_of(context, entry))
            continue
        item = next((known for known in items if known["id"] == identifier), None)
        if item is None:
            raise required("items[0][id]")
        price = _price_of(context, entry)
        quantity = entry.integer("quantity") or item["quantity"]
        if price["id"] == item["price"]["id"] and quantity == item["quantity"]:
            continue
        lines.append(_credit(context, item, now))
        item["quantity"] = quantity
        at_once = _put_price(context, subscription, item, price) or at_once
        lines.append(_charge(context, item, now, begins=at_once))
    return lines, at_once


def _price_of(context: Context, entry: Params) -> Json:
    return context.store.get("price", entry.need("price"), "items[0][price]")


def _put_price(context: Context, subscription: Json, item: Json, price: Json) -> bool:
    """Whether a new period begins with it, as with a price of another interval."""
    before = item["price"]["recurring"]
    item.update(price=price, plan=billing_shapes.plan(price))
    if all(before[name] == price["recurring"][name] for name in ("interval", "interval_count")):
        return False
    now = context.now()
    subscription["billing_cycle_anchor"] = now
    item.update(current_period_start=now, current_period_end=period_end(now, now, price))
    return True


def _credit(context: Context, item: Json, now: int) -> Json:
    """For the time that is left, the same part of what it was last debited."""
    debit = item.get("_sandbox") or {"amount": 0, "start": now, "end": now + 1}
    ends = item["current_period_end"]
    left, whole = max(0, ends - now), max(1, debit["end"] - debit["start"])
    line = billing_shapes.line(
        context, "", item, -(debit["amount"] * left // whole), proration=True, end=ends
    )
    line["period"]["start"] = now
    return line


def _charge(context: Context, item: Json, now: int, *, begins: bool) -> Json:
    starts, ends = item["current_period_start"], item["current_period_end"]
    whole = item["price"]["unit_amount"] * item["quantity"]
    part = whole if begins else whole * max(0, ends - now) // max(1, ends - starts)
    if not begins:
        part -= _included(context, item, part)
    line = billing_shapes.line(context, "", item, part, proration=not begins, end=ends)
    if not begins:
        line["period"]["start"] = now
    return line


def _included(context: Context, item: Json, part: int) -> int:
    """What the subscription's discount takes off a part of a period."""
    found = promotions.in_force(context, context.store.get("subscription", item["subscription"]))
    if found is None or found[1]["percent_off"] is None:
        return 0
    whole = {"id": "", "amount_subtotal": part, "price": item["price"]}
    return promotions.discounts_of(found[1], [whole]).get("", 0)


def _is_proration(line: Json) -> bool:
    return bool(line["parent"]["subscription_item_details"]["proration"])


def preview(context: Context, params: Params) -> Json:
    """`POST /v1/invoices/create_preview`: the invoice that a change would make, or the next one."""
    params.allow("subscription", "subscription_details", "automatic_tax", "expand")
    subscription = context.store.get("subscription", params.need("subscription"), "subscription")
    details = params.child("subscription_details")
    details.allow("items", "proration_behavior", "proration_date")
    invoicing.require_running(subscription)
    _change_tax(subscription, params)
    behaviour = details.choice("proration_behavior", _BEHAVIOURS, "create_prorations")
    lines, at_once = switch(context, subscription, details) if details.values.get("items") else ([], False)
    if behaviour == "none":
        lines = [line for line in lines if not _is_proration(line)]
    customer = context.store.get("customer", subscription["customer"])
    shown = billing_shapes.invoice(context, subscription, customer, "upcoming")
    if not at_once and behaviour != "always_invoice":
        shown["billing_reason"] = "upcoming"
        lines = subscription["_sandbox"].get("lines", []) + lines + metering.lines(context, subscription)
        lines += _next_lines(context, subscription)
    for line in lines:
        line["invoice"] = shown["id"]
    invoicing.put_terms(context, subscription, lines, shown)
    invoicing.put_amounts(shown, customer, lines)
    shown.update(id=f"upcoming_{shown['id']}", status="draft", number=None)
    return shown


def _next_lines(context: Context, subscription: Json) -> list[Json]:
    for item in subscription["items"]["data"]:
        item["current_period_start"] = item["current_period_end"]
        item["current_period_end"] = period_end(
            item["current_period_start"], subscription["billing_cycle_anchor"], item["price"]
        )
    return invoicing.period_lines(context, subscription)


def cancel_subscription(context: Context, subscription: Json) -> Json:
    """`DELETE /v1/subscriptions/<id>`: at once."""
    if subscription["status"] in ("canceled", "incomplete_expired"):
        raise StripeFault(
            f"No such subscription: '{subscription['id']}'", status=404, code="resource_missing"
        )
    invoicing.end(context, subscription, "canceled")
    return subscription
