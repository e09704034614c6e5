"""Saved cards: setup through Checkout, and payment intents without the payer (`off_session`)."""

from __future__ import annotations

import stripe

from sandbox.stripe import payments, shapes
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault, invalid, required
from sandbox.stripe.forms import Params
from sandbox.stripe.store import Json

CARDS = {
    "4242": "Works",
    "3155": "Asks for 3-D Secure now, and works later",
    "3184": "Asks for 3-D Secure each time",
    "0341": "Is declined when it is charged",
    "9995": "Has insufficient funds when it is charged",
    "0069": "Is declined as expired when it is charged",
}
"""Stripe's own test numbers by their last four digits, and what each does."""
_CHALLENGES = ("3155", "3184")
_DECLINES = {"0341": "generic_decline", "9995": "insufficient_funds", "0069": "expired_card"}
_TAKEN = (
    "amount currency customer payment_method payment_method_types confirm off_session description metadata "
    "expand error_on_requires_action hooks amount_details"
).split()


def setup_intent(context: Context, customer: str) -> Json:
    """A `setup_intent` that waits for a card."""
    identifier = context.new_id("seti")
    intent = {
        **shapes.blank(stripe.SetupIntent),
        "id": identifier,
        "object": "setup_intent",
        "client_secret": f"{identifier}_secret_{context.new_id('s')[2:]}",
        "created": context.now(),
        "customer": customer,
        "livemode": False,
        "metadata": {},
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "status": "requires_payment_method",
        "usage": "off_session",
    }
    return context.store.insert(intent)


def create_setup_session(context: Context, params: Params, **given: object) -> Json:
    """A Checkout session in setup mode: nothing is paid on it."""
    if params.children("line_items"):
        raise invalid("line_items", "You can not pass `line_items` in `setup` mode.")
    if params.text("currency") is None:
        raise required("currency")
    customer = context.store.get("customer", params.need("customer"), "customer")
    session = shapes.checkout_session(
        context,
        mode="setup",
        amount_subtotal=None,
        amount_total=None,
        currency=None,
        customer=customer["id"],
        payment_status="no_payment_required",
        setup_intent=setup_intent(context, customer["id"])["id"],
        **given,
    )
    session["_sandbox"] = {"line_items": [], "metadata": {}, "description": "Save a card"}
    return context.store.insert(session)


def save(context: Context, session: Json, last4: str, *, confirmed: bool) -> Json:
    """What its owner did on the page: a card is saved, once the bank has its confirmation where it wants one."""
    if session["status"] != "open" or session["mode"] != "setup":
        raise StripeFault(f"This Checkout Session is {session['status']}.", status=409)
    if last4 not in CARDS:
        raise invalid("last4", f"Unknown test card: {last4[:8]}")
    intent = context.store.get("setup_intent", session["setup_intent"])
    if last4 in _CHALLENGES and not confirmed:
        intent.update(status="requires_action", last_setup_error=None)
        context.store.save(intent)
        return session
    method = shapes.payment_method(context, last4, session["customer"])
    if session["billing_address_collection"] == "required":
        address = {"city": "Berlin", "country": "DE", "line1": "Pfad 1", "postal_code": "10115"}
        method["billing_details"]["address"].update(address)
    context.store.insert(method)
    intent.update(status="succeeded", payment_method=method["id"])
    context.store.save(intent)
    session.update(status="complete", url=None)
    context.store.save(session)
    context.emit("payment_method.attached", method)
    context.emit("setup_intent.succeeded", intent)
    context.emit("checkout.session.completed", session)
    return session


def create_intent(context: Context, params: Params) -> Json:
    """`POST /v1/payment_intents`, confirmed at once and off-session: the only kind that nobody opens a page for.

    A card that is declined is a 402, and its payment intent is kept all the same.
    """
    params.allow(*_TAKEN)
    if not (params.flag("confirm") and params.flag("off_session")):
        raise invalid("off_session", "This sandbox makes payment intents off-session, confirmed at once.")
    amount = params.integer("amount")
    if amount is None or amount < 50:
        raise StripeFault("Amount must be at least $0.50 usd", code="amount_too_small", param="amount")
    customer = context.store.get("customer", params.need("customer"), "customer")
    method = context.store.get("payment_method", params.need("payment_method"), "payment_method")
    if method["customer"] != customer["id"]:
        message = "The provided PaymentMethod does not belong to the Customer, or was detached from it."
        raise StripeFault(message, code="payment_method_unexpected_state", param="payment_method")
    intent = shapes.payment_intent(
        context,
        amount,
        params.need("currency").lower(),
        customer=customer["id"],
        description=params.text("description"),
        metadata=params.metadata(),
        **_taxed(context, params, amount),
    )
    context.store.insert(intent)
    context.emit("payment_intent.created", intent)
    last4 = method["card"]["last4"]
    if last4 == "3184":
        return _refusal(payments.want_authentication(context, intent, method), intent)
    if last4 in _DECLINES:
        payments.decline(context, intent, _DECLINES[last4], method=method)
        return _refusal(dict(intent["last_payment_error"]), intent)
    payments.succeed(context, intent, method=method)
    return intent


def _taxed(context: Context, params: Params, amount: int) -> Json:
    """What a payment intent has of the tax that was computed for it beforehand."""
    name = params.child("hooks").child("inputs").child("tax").text("calculation")
    if name is None:
        return {}
    calculation = context.store.get("tax.calculation", name, "hooks[inputs][tax][calculation]")
    if calculation["expires_at"] <= context.now() or calculation["amount_total"] != amount:
        raise invalid("hooks[inputs][tax][calculation]", "The tax calculation is not of this payment.")
    tax = params.child("amount_details").child("tax").integer("total_tax_amount")
    return {
        "amount_details": {"tax": {"total_tax_amount": tax}, "tip": {}},
        "hooks": {"inputs": {"tax": {"calculation": name}}},
    }


def _refusal(error: Json, intent: Json) -> Json:
    """The answer to a card that was not charged: Stripe keeps it under its idempotency key, too."""
    return {"error": {**error, "payment_intent": intent}, "_sandbox": {"answer_status": 402}}


def cancel_intent(context: Context, intent: Json, params: Params) -> Json:
    """`POST /v1/payment_intents/<id>/cancel`."""
    params.allow("cancellation_reason", "expand")
    if intent["status"] in ("succeeded", "canceled", "processing"):
        message = f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}."
        raise StripeFault(message, code="payment_intent_unexpected_state")
    return payments.cancel_intent(context, intent)


def detach(context: Context, method: Json) -> Json:
    """`POST /v1/payment_methods/<id>/detach`."""
    if method["customer"] is None:
        raise StripeFault("The payment method you provided is not attached to a customer.")
    before = method["customer"]
    method["customer"] = None
    context.store.save(method)
    context.emit("payment_method.detached", method, {"customer": before})
    return method
