"""Payment intents and what becomes of them: charges, refunds, disputes."""

from __future__ import annotations

from sandbox.stripe import money_shapes, shapes
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault, invalid
from sandbox.stripe.forms import Params
from sandbox.stripe.store import Json

DECLINES = {
    "generic_decline": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "do_not_honor": "Your card was declined.",
    "lost_card": "Your card was declined.",
    "stolen_card": "Your card was declined.",
    "fraudulent": "Your card was declined.",
    "card_velocity_exceeded": "Your card was declined for making repeated attempts too frequently.",
    "expired_card": "Your card has expired.",
    "incorrect_cvc": "Your card's security code is incorrect.",
    "processing_error": "An error occurred while processing your card. Try again in a little bit.",
}
_OWN_CODES = ("expired_card", "incorrect_cvc", "processing_error")


def dollars(cents: int) -> str:
    """`1999` as `$19.99`."""
    whole, part = divmod(cents, 100)
    return f"${whole:,}.{part:02d}"


def _method(context: Context, intent: Json, last4: str, method: Json | None = None) -> Json:
    """The card that pays: a saved one, or one that is there for this payment alone."""
    if method is None:
        method = context.store.insert(shapes.payment_method(context, last4, intent["customer"]))
    intent["payment_method"] = method["id"]
    return method


def succeed(context: Context, intent: Json, last4: str = "4242", *, method: Json | None = None) -> Json:
    """The money is ours: charge, balance transaction, and their events."""
    intent.update(last_payment_error=None, next_action=None, processing=None)
    pending = intent["latest_charge"] if intent["status"] == "processing" else None
    if pending is None:
        method = _method(context, intent, last4, method)
        charge = context.store.insert(money_shapes.charge(context, intent, method, status="succeeded"))
    else:
        charge = context.store.get("charge", pending)
        charge.update(status="succeeded", paid=True, captured=True, amount_captured=charge["amount"])
    # Stripe books the balance transaction a moment after the charge: the events' snapshots lack it.
    context.emit("charge.succeeded", charge)
    fee = money_shapes.card_fee(charge["amount"])
    charge["balance_transaction"] = _book(context, "charge", charge["amount"], charge, charge["id"], fee)[
        "id"
    ]
    context.store.save(charge)
    intent.update(status="succeeded", amount_received=intent["amount"], latest_charge=charge["id"])
    context.store.save(intent)
    context.emit("payment_intent.succeeded", intent)
    context.emit("charge.updated", charge, {"balance_transaction": None})
    return charge


def process(context: Context, intent: Json) -> None:
    """A delayed method has been submitted; whether money comes is known in days."""
    method = _method(context, intent, "3000")
    charge = context.store.insert(money_shapes.charge(context, intent, method, status="pending"))
    intent.update(status="processing", latest_charge=charge["id"], last_payment_error=None, next_action=None)
    context.store.save(intent)
    context.emit("charge.pending", charge)
    context.emit("payment_intent.processing", intent)


def decline(context: Context, intent: Json, decline_code: str, *, method: Json | None = None) -> None:
    """The bank refused; the payment intent waits for another card."""
    if decline_code not in DECLINES:
        raise invalid("decline_code", f"Unknown decline code: {decline_code[:40]}")
    code = decline_code if decline_code in _OWN_CODES else "card_declined"
    method = _method(context, intent, "0002", method)
    if intent["status"] == "processing":
        charge = context.store.get("charge", intent["latest_charge"])
        charge["status"] = "failed"
    else:
        charge = context.store.insert(money_shapes.charge(context, intent, method, status="failed"))
    charge.update(failure_code=code, failure_message=DECLINES[decline_code])
    charge["outcome"].update(
        network_status="declined_by_network",
        reason=decline_code,
        seller_message="The bank did not return any further details with this decline.",
        type="issuer_declined",
    )
    context.store.save(charge)
    error = {
        "advice_code": "try_again_later",
        "charge": charge["id"],
        "code": code,
        "decline_code": decline_code,
        "doc_url": f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}",
        "message": DECLINES[decline_code],
        "payment_method": method,
        "type": "card_error",
    }
    _back_to_start(context, intent, error, charge["id"])
    context.emit("charge.failed", charge)
    context.emit("payment_intent.payment_failed", intent)


def challenge(context: Context, intent: Json) -> None:
    """The bank wants 3-D Secure; nothing is charged until the payer has passed it."""
    _method(context, intent, "3155")
    sdk = {"type": "three_d_secure_redirect", "source": context.new_id("payatt")}
    intent.update(
        status="requires_action",
        last_payment_error=None,
        next_action={"type": "use_stripe_sdk", "use_stripe_sdk": sdk},
    )
    context.store.save(intent)
    context.emit("payment_intent.requires_action", intent)


def want_authentication(context: Context, intent: Json, method: Json) -> Json:
    """The bank wants its customer, who is not there: nothing is charged. Returns the error that says so."""
    code = "authentication_required"
    error = {
        "code": code,
        "decline_code": code,
        "doc_url": f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}",
        "message": "Your card was declined. This transaction requires authentication.",
        "payment_method": method,
        "type": "card_error",
    }
    charge = context.store.insert(money_shapes.charge(context, intent, method, status="failed"))
    charge.update(failure_code=code, failure_message=error["message"])
    context.store.save(charge)
    _back_to_start(context, intent, error, charge["id"])
    context.emit("charge.failed", charge)
    context.emit("payment_intent.payment_failed", intent)
    return error


def fail_authentication(context: Context, intent: Json) -> None:
    """The payer did not pass 3-D Secure."""
    method = _method(context, intent, "3155")
    code = "payment_intent_authentication_failure"
    error = {
        "code": code,
        "doc_url": f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}",
        "message": "The provided PaymentMethod has failed authentication.",
        "payment_method": method,
        "type": "card_error",
    }
    _back_to_start(context, intent, error, intent["latest_charge"])
    context.emit("payment_intent.payment_failed", intent)


def _back_to_start(context: Context, intent: Json, error: Json, charge: str | None) -> None:
    intent.update(
        status="requires_payment_method",
        last_payment_error=error,
        latest_charge=charge,
        payment_method=None,
        next_action=None,
        processing=None,
    )
    context.store.save(intent)


def cancel_intent(context: Context, intent: Json) -> Json:
    """Close an unpaid payment intent, as an expiring session does with its own."""
    if intent["status"] in ("succeeded", "canceled", "processing"):
        return intent
    intent.update(
        status="canceled", canceled_at=context.now(), cancellation_reason="expired", next_action=None
    )
    context.store.save(intent)
    context.emit("payment_intent.canceled", intent)
    return intent


def charge_of(context: Context, identifier: str) -> Json:
    """The charge of a payment intent or Checkout session, or the charge itself."""
    if identifier.startswith("cs_"):
        identifier = context.store.get("checkout.session", identifier)["payment_intent"] or "none"
    if identifier.startswith("pi_"):
        identifier = context.store.get("payment_intent", identifier)["latest_charge"] or "none"
    return context.store.get("charge", identifier, "charge")


def create_refund(context: Context, params: Params) -> Json:
    """`POST /v1/refunds`."""
    params.allow("charge", "payment_intent", "amount", "reason", "metadata", "expand")
    charge = charge_of(context, params.text("payment_intent") or params.need("charge"))
    if charge["status"] != "succeeded":
        raise StripeFault("This payment has no successful charge to refund.", code="charge_not_refundable")
    if charge["disputed"] and not _refundable_dispute(context, charge):
        message = f"Charge {charge['id']} has been charged back; cannot issue a refund."
        raise StripeFault(message, code="charge_disputed")
    left = charge["amount_captured"] - charge["amount_refunded"]
    if left == 0:
        message = f"Charge {charge['id']} has already been refunded."
        raise StripeFault(message, code="charge_already_refunded")
    amount = params.integer("amount")
    amount = left if amount is None else amount
    if amount < 1 or amount > left:
        message = (
            f"Refund amount ({dollars(amount)}) is greater than unrefunded amount on charge ({dollars(left)})"
        )
        raise StripeFault(message, param="amount")
    refund = money_shapes.refund(
        context, charge, amount, "succeeded", metadata=params.metadata(), reason=params.text("reason")
    )
    refund["balance_transaction"] = _book(context, "refund", -amount, charge, refund["id"], 0)["id"]
    context.store.insert(refund)
    _count_refund(context, charge, amount)
    context.emit("refund.created", refund)
    context.emit("charge.refunded", charge)
    context.emit("charge.refund.updated", refund)
    return refund


def fail_refund(context: Context, refund: Json) -> Json:
    """A refund that bounced days later: the money is ours again."""
    if refund["status"] not in ("succeeded", "pending"):
        raise StripeFault("This refund cannot fail any more.", status=409)
    charge = context.store.get("charge", refund["charge"])
    back = _book(context, "refund_failure", refund["amount"], charge, refund["id"], 0)
    refund.update(
        status="failed", failure_reason="lost_or_stolen_card", failure_balance_transaction=back["id"]
    )
    context.store.save(refund)
    _count_refund(context, charge, -refund["amount"])
    context.emit("refund.updated", refund)
    context.emit("refund.failed", refund)
    return refund


def _count_refund(context: Context, charge: Json, amount: int) -> None:
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
    context.store.save(charge)


def _book(context: Context, kind: str, amount: int, charge: Json, source: str, fee: int) -> Json:
    about = f"{kind.upper()} FOR CHARGE ({charge['id']})"
    transaction = money_shapes.balance_transaction(
        context,
        kind=kind,
        amount=amount,
        currency=charge["currency"],
        source=source,
        fee=fee,
        description=(charge["description"] or "") if kind == "charge" else about,
    )
    return context.store.insert(transaction)


def _open_dispute(context: Context, charge: Json) -> Json | None:
    disputes = context.store.where("dispute", charge=charge["id"])
    return disputes[0] if disputes else None


def _refundable_dispute(context: Context, charge: Json) -> bool:
    dispute = _open_dispute(context, charge)
    return dispute is not None and (bool(dispute["is_charge_refundable"]) or dispute["status"] == "won")


def open_dispute(context: Context, charge: Json, amount: int | None, reason: str, *, inquiry: bool) -> Json:
    """The cardholder disputes; unless it is an inquiry the funds go at once, with a fee."""
    if charge["status"] != "succeeded" or charge["disputed"]:
        raise StripeFault("This charge cannot be disputed (again).", status=409)
    left = charge["amount_captured"] - charge["amount_refunded"]
    wanted = left if amount is None else amount
    if not 1 <= wanted <= charge["amount_captured"]:
        raise invalid("amount", "A dispute is for at most the charge.")
    dispute = money_shapes.dispute(context, charge, wanted, reason, inquiry=inquiry)
    charge["disputed"] = True
    context.store.save(charge)
    context.store.insert(dispute)
    context.emit("charge.dispute.created", dispute)
    if not inquiry:
        fee = money_shapes.DISPUTE_FEE_CENTS
        dispute["balance_transactions"].append(
            _book(context, "adjustment", -wanted, charge, dispute["id"], fee)
        )
        context.store.save(dispute)
        context.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def close_dispute(context: Context, charge: Json, *, won: bool) -> Json:
    """The bank decides; a win brings the funds back, an inquiry just closes."""
    dispute = _open_dispute(context, charge)
    if dispute is None or dispute["status"] in ("won", "lost", "warning_closed"):
        raise StripeFault("This charge has no open dispute.", status=409)
    if not dispute["balance_transactions"]:
        dispute["status"] = "warning_closed"
    else:
        dispute["status"] = "won" if won else "lost"
    context.store.save(dispute)
    context.emit("charge.dispute.closed", dispute)
    if dispute["status"] == "won":
        fee = -money_shapes.DISPUTE_FEE_CENTS
        back = _book(context, "adjustment", dispute["amount"], charge, dispute["id"], fee)
        dispute["balance_transactions"].append(back)
        context.store.save(dispute)
        context.emit("charge.dispute.funds_reinstated", dispute)
    return dispute
