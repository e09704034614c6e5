"""Invoices of subscriptions: made, collected, tried again, paid by hand, voided."""

from __future__ import annotations

from sandbox.stripe import billing_shapes, metering, payments, promotions, shapes, taxing
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault
from sandbox.stripe.faults import Faults
from sandbox.stripe.store import Json

RETRY_AFTER_SECONDS = (3 * 86_400, 5 * 86_400, 7 * 86_400)
DECLINES_LATER = "0341"
"""Stripe's test card that can be attached and is declined whenever it is charged."""
WANTS_AUTHENTICATION = "3184"
"""Stripe's test card that asks for 3-D Secure with each charge."""
_ENDED = ("canceled", "incomplete_expired")
DEBTS = ("past_due", "unpaid", "incomplete")
"""Statuses that end when the invoice is paid."""


def bill(
    context: Context, subscription: Json, reason: str, lines: list[Json] | None = None
) -> tuple[Json, Json | None]:
    """An open invoice and its payment intent; None where the customer's balance covers it.

    `lines` defaults to the items' current periods, and what was left over from changes before.
    """
    customer = context.store.get("customer", subscription["customer"])
    invoice = billing_shapes.invoice(context, subscription, customer, reason)
    customer["next_invoice_sequence"] += 1
    if lines is None:
        lines = subscription["_sandbox"].pop("lines", []) + period_lines(context, subscription)
    for entry in lines:
        entry["invoice"] = invoice["id"]
    put_terms(context, subscription, lines, invoice)
    _remember_debits(subscription, lines)
    put_amounts(invoice, customer, lines)
    context.store.save(customer)
    intent = _ask_for(context, subscription, invoice, reason) if invoice["amount_due"] else None
    context.store.insert(invoice)
    if intent is not None:
        context.store.insert(intent)
        context.store.insert(billing_shapes.invoice_payment(context, invoice, intent["id"]))
    subscription["latest_invoice"] = invoice["id"]
    context.store.save(subscription)
    context.emit("invoice.created", invoice)
    context.emit("invoice.finalized", invoice)
    return invoice, intent


def period_lines(context: Context, subscription: Json) -> list[Json]:
    """A line for the current period of each item that is paid for ahead."""
    return [
        billing_shapes.line(
            context,
            "",
            item,
            item["price"]["unit_amount"] * item["quantity"],
            proration=False,
            end=item["current_period_end"],
        )
        for item in metering.licensed(subscription)
    ]


def _remember_debits(subscription: Json, lines: list[Json]) -> None:
    """What each item was last debited, and for which time: in flexible mode a credit is a part of that."""
    for entry in lines:
        of_item = entry["parent"]["subscription_item_details"]["subscription_item"]
        for item in metering.licensed(subscription):
            if item["id"] == of_item and entry["amount"] > 0:
                off = sum(part["amount"] for part in entry["discount_amounts"])
                item["_sandbox"] = {"amount": entry["amount"] - off, **entry["period"], "line": entry["id"]}


def put_terms(context: Context, subscription: Json, lines: list[Json], invoice: Json) -> None:
    """What the subscription's discount takes off each line, and the tax on the rest.

    Parts of periods have the discount in their amounts (`proration_discounts: included`).
    """
    found = promotions.in_force(context, subscription)
    prices = {item["id"]: item["price"] for item in subscription["items"]["data"]}
    for line in lines:
        price = prices.get(line["parent"]["subscription_item_details"]["subscription_item"])
        if price is None:  # an item that has just gone, and was used before
            price = context.store.get("price", line["pricing"]["price_details"]["price"])
        line.update(discounts=[], discount_amounts=[], taxes=[])
        if found is not None and line["discountable"]:
            item = {"id": line["id"], "amount_subtotal": line["amount"], "price": price}
            off = promotions.discounts_of(found[1], [item]).get(line["id"], 0)
            if off:
                line["discounts"] = [found[0]["id"]]
                line["discount_amounts"] = [{"amount": off, "discount": found[0]["id"]}]
        if subscription["automatic_tax"]["enabled"]:
            left = line["amount"] - sum(part["amount"] for part in line["discount_amounts"])
            line["taxes"] = taxing.taxes(left, _behavior_of_line(context, line))
    if found is not None:
        invoice["discounts"] = [found[0]["id"]]
        if promotions.used_up(found[1]):
            subscription["discounts"].remove(found[0]["id"])
    taxed = subscription["automatic_tax"]["enabled"]
    invoice["automatic_tax"] = taxing.automatic_tax(taxed, "disabled_reason", "provider", "status")


def _behavior_of_line(context: Context, line: Json) -> str:
    """By the price that the line is for: of a credit that is the one before."""
    return taxing.behavior_of(context.store.get("price", line["pricing"]["price_details"]["price"]))


def put_amounts(invoice: Json, customer: Json, lines: list[Json]) -> None:
    """A credit goes to the customer's balance, and a balance is used before the card."""
    subtotal, taxes = sum(entry["amount"] for entry in lines), taxing.total_taxes(lines)
    off: dict[str, int] = {}
    for part in (part for entry in lines for part in entry["discount_amounts"]):
        off[part["discount"]] = off.get(part["discount"], 0) + part["amount"]
    on_top = sum(entry["amount"] for entry in taxes if entry["tax_behavior"] == "exclusive")
    untaxed = subtotal - sum(off.values())
    total, before = untaxed + on_top, customer["balance"]
    within = sum(entry["amount"] for entry in taxes if entry["tax_behavior"] == "inclusive")
    due = max(0, total + min(before, 0))
    customer["balance"] = before + total - due
    invoice["lines"].update(data=lines)
    invoice.update(
        subtotal=subtotal,
        subtotal_excluding_tax=subtotal - within,
        total=total,
        total_excluding_tax=untaxed - within,
        total_discount_amounts=[{"amount": amount, "discount": name} for name, amount in off.items()],
        total_taxes=taxes,
        amount_due=due,
        amount_remaining=due,
        starting_balance=before,
        ending_balance=customer["balance"],
    )


def _ask_for(context: Context, subscription: Json, invoice: Json, reason: str) -> Json:
    first = reason == "subscription_create"
    intent = shapes.payment_intent(
        context,
        invoice["amount_due"],
        subscription["currency"],
        customer=subscription["customer"],
        description="Subscription creation" if first else "Subscription update",
    )
    invoice["confirmation_secret"] = {"client_secret": intent["client_secret"], "type": "payment_intent"}
    return intent


def collect(context: Context, subscription: Json, invoice: Json, intent: Json | None, faults: Faults) -> bool:
    """Charge the card on file. Whether the invoice is paid."""
    last4 = _card(context, subscription)
    if intent is None:
        mark_paid(context, invoice)
    elif faults.take("fail_renewals") or last4 == DECLINES_LATER:
        payments.decline(context, intent, "insufficient_funds")
        mark_failed(context, invoice)
        return False
    elif faults.take("challenge_renewals") or last4 == WANTS_AUTHENTICATION:
        payments.challenge(context, intent)
        context.emit("invoice.payment_action_required", invoice)
        mark_failed(context, invoice)
        return False
    else:
        payments.succeed(context, intent)
        mark_paid(context, invoice)
    change_status(context, subscription, "active")
    return True


def _card(context: Context, subscription: Json) -> str:
    method = subscription["default_payment_method"]
    found = None if method is None else context.store.find("payment_method", method)
    return "" if found is None else str(found["card"]["last4"])


def mark_paid(context: Context, invoice: Json) -> None:
    """Paid, with the events that say so."""
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


def mark_failed(context: Context, invoice: Json) -> None:
    """Not paid; the next try is after some days, or never."""
    attempt = invoice["attempt_count"] + 1
    pauses = RETRY_AFTER_SECONDS
    again = context.now() + pauses[attempt - 1] if attempt <= len(pauses) else None
    invoice.update(attempted=True, attempt_count=attempt, next_payment_attempt=again)
    context.store.save(invoice)
    context.emit("invoice.payment_failed", invoice)


def set_aside(context: Context, invoice: Json, status: str) -> None:
    """`draft`, `uncollectible` or `void`: nobody collects it."""
    invoice.update(status=status, auto_advance=False, next_payment_attempt=None)
    event = {"uncollectible": "marked_uncollectible", "void": "voided"}.get(status)
    if event is not None:
        invoice["status_transitions"][f"{event}_at"] = context.now()
    else:
        invoice["status_transitions"]["finalized_at"] = None
    context.store.save(invoice)
    for payment in context.store.where("invoice_payment", invoice=invoice["id"]):
        payment["status"] = "canceled"
        context.store.save(payment)
        intent = context.store.get("payment_intent", payment["payment"]["payment_intent"])
        payments.cancel_intent(context, intent)
    if event is not None:
        context.emit(f"invoice.{event}", invoice)


def intent_of(context: Context, invoice: Json) -> Json | None:
    """The payment intent by which an invoice is paid."""
    found = context.store.where("invoice_payment", invoice=invoice["id"])
    return context.store.get("payment_intent", found[0]["payment"]["payment_intent"]) if found else None


def change_status(context: Context, subscription: Json, status: str) -> None:
    """Another status, with the event that says so."""
    before = subscription["status"]
    if before == status:
        return
    subscription["status"] = status
    context.store.save(subscription)
    context.emit("customer.subscription.updated", subscription, {"status": before})


def end(context: Context, subscription: Json, status: str) -> None:
    """It is over: `canceled` or `incomplete_expired`."""
    now = context.now()
    subscription.update(status=status, ended_at=now, canceled_at=subscription["canceled_at"] or now)
    context.store.save(subscription)
    kind = "updated" if status == "incomplete_expired" else "deleted"
    context.emit(f"customer.subscription.{kind}", subscription)


def require_running(subscription: Json) -> None:
    """Raises `StripeFault` if it is over."""
    if subscription["status"] in _ENDED:
        raise StripeFault("A canceled subscription can only update its cancellation_details.")
