"""Checkout sessions: creation through the API, and what a payer does on the hosted page."""

from __future__ import annotations

from sandbox.stripe import billing, metering, payments, promotions, saved, shapes, taxing
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault, invalid, required
from sandbox.stripe.forms import Params
from sandbox.stripe.store import Json

MIN_OPEN_SECONDS = 30 * 60
MAX_OPEN_SECONDS = 24 * 60 * 60
MIN_AMOUNT_CENTS = 50
MAX_AMOUNT_CENTS = 99_999_999
_ACCEPTED = (
    "mode currency success_url cancel_url client_reference_id customer customer_email line_items metadata "
    "payment_intent_data subscription_data expires_at expand payment_method_types submit_type locale "
    "ui_mode customer_creation allow_promotion_codes billing_address_collection automatic_tax customer_update"
).split()


def create_session(context: Context, params: Params) -> Json:
    """`POST /v1/checkout/sessions` in payment or subscription mode."""
    params.allow(*_ACCEPTED)
    mode = params.choice("mode", ("payment", "subscription", "setup"), "payment")
    success_url = _url(params, "success_url")
    if success_url is None:
        raise required("success_url")
    if mode == "setup":
        return saved.create_setup_session(
            context,
            params,
            success_url=success_url,
            cancel_url=_url(params, "cancel_url"),
            client_reference_id=params.text("client_reference_id"),
            expires_at=_expires_at(context, params),
            metadata=params.metadata(),
            billing_address_collection=params.text("billing_address_collection"),
        )
    items = [_line_item(context, entry, mode) for entry in params.children("line_items")]
    if not items:
        raise required("line_items")
    total = sum(item["amount_total"] for item in items)
    currency = items[0]["currency"]
    if any(item["currency"] != currency for item in items):
        raise invalid("line_items", "All line items must have the same currency.")
    if not MIN_AMOUNT_CENTS <= total <= MAX_AMOUNT_CENTS:
        code = "amount_too_small" if total < MIN_AMOUNT_CENTS else "amount_too_large"
        message = "The Checkout Session's total amount must convert to between 50 cents and $999,999.99."
        raise StripeFault(message, code=code, param="line_items")
    customer = params.text("customer")
    email = params.text("customer_email")
    if customer is not None:
        email = email or context.store.get("customer", customer, "customer")["email"]
    taxed = taxing.automatic(params)
    session = shapes.checkout_session(
        context,
        mode=mode,
        allow_promotion_codes=params.flag("allow_promotion_codes"),
        automatic_tax=taxing.automatic_tax(taxed, "provider", "status"),
        billing_address_collection=params.text("billing_address_collection"),
        currency=currency,
        success_url=success_url,
        cancel_url=_url(params, "cancel_url"),
        client_reference_id=params.text("client_reference_id"),
        customer=customer,
        customer_email=None if customer else email,
        customer_creation=None if customer else ("always" if mode == "subscription" else "if_required"),
        expires_at=_expires_at(context, params),
        metadata=params.metadata(),
    )
    inner = params.child("payment_intent_data" if mode == "payment" else "subscription_data")
    session["_sandbox"] = {
        "line_items": items,
        "metadata": inner.metadata(),
        "description": inner.text("description"),
    }
    put_amounts(session, {})
    return context.store.insert(session)


def put_amounts(session: Json, off: dict[str, int]) -> None:
    """The totals of a session, with what a coupon takes off each item."""
    items = session["_sandbox"]["line_items"]
    for item in items:
        discount = off.get(item["id"], 0)
        left, tax, on_top = item["amount_subtotal"] - discount, 0, 0
        if session["automatic_tax"]["enabled"]:
            behavior = taxing.behavior_of(item["price"])
            tax = taxing.tax_of(left, behavior)
            on_top = tax if behavior == "exclusive" else 0
        item.update(amount_discount=discount, amount_tax=tax, amount_total=left + on_top)
    session["total_details"] = {
        "amount_discount": sum(item["amount_discount"] for item in items),
        "amount_shipping": 0,
        "amount_tax": sum(item["amount_tax"] for item in items),
    }
    session["amount_subtotal"] = sum(item["amount_subtotal"] for item in items)
    session["amount_total"] = sum(item["amount_total"] for item in items)


def apply_code(context: Context, session: Json, typed: str) -> Json:
    """The payer typed a promotion code on the page; an empty one takes it back."""
    begun = session["payment_intent"] or session["subscription"]
    if session["status"] != "open" or begun or not session["allow_promotion_codes"]:
        raise StripeFault("This Checkout Session takes no promotion code.", status=409)
    state = session["_sandbox"]
    if not typed.strip():
        session["discounts"] = []
        state.pop("promotion", None)
        put_amounts(session, {})
        return context.store.save(session)
    code, coupon = promotions.redeemable(context, typed, state["line_items"])
    put_amounts(session, promotions.discounts_of(coupon, state["line_items"]))
    if 0 < session["amount_total"] < MIN_AMOUNT_CENTS:
        raise invalid("promotion_code", "This code leaves less to pay than can be paid by card.")
    session["discounts"] = [{"coupon": None, "promotion_code": code["id"]}]
    state["promotion"] = {"code": code["id"], "coupon": coupon["id"], "typed": code["code"]}
    return context.store.save(session)


def _redeem(context: Context, session: Json) -> None:
    """A code of a session that was completed is used."""
    promotion = session["_sandbox"].get("promotion")
    if promotion is not None and session["mode"] == "payment":
        code = context.store.get("promotion_code", promotion["code"])
        coupon = context.store.get("coupon", promotion["coupon"])
        promotions.begin(context, code, coupon, checkout_session=session["id"], customer=session["customer"])


def _line_item(context: Context, entry: Params, mode: str) -> Json:
    entry.allow("price", "price_data", "quantity", "adjustable_quantity", "metadata", "tax_rates")
    quantity = entry.integer("quantity")
    price_id = entry.text("price")
    if price_id is not None and quantity is None:
        price = context.store.get("price", price_id, "line_items[0][price]")
        if mode == "subscription" and metering.is_metered(price):
            return shapes.line_item(context, price, context.store.get("product", price["product"])["name"], 0)
    if quantity is None or quantity < 1:
        raise required("line_items[0][quantity]")
    if price_id is not None:
        price = context.store.get("price", price_id, "line_items[0][price]")
    else:
        price = _inline_price(context, entry.child("price_data"))
    if mode == "subscription" and price["recurring"] is None:
        raise invalid("line_items", "You must provide at least one recurring price in `subscription` mode.")
    if mode == "payment" and price["recurring"] is not None:
        raise invalid("line_items", "You specified `payment` mode but passed a recurring price.")
    product = context.store.get("product", price["product"])
    return shapes.line_item(context, price, product["name"], quantity)


def _inline_price(context: Context, data: Params) -> Json:
    data.allow("currency", "product", "product_data", "recurring", "tax_behavior", "unit_amount")
    behavior = data.choice("tax_behavior", taxing.BEHAVIORS, "unspecified")
    currency = data.need("currency").lower()
    amount = data.integer("unit_amount")
    if amount is None or amount < 0:
        raise required("line_items[0][price_data][unit_amount]")
    product_id = data.text("product")
    if product_id is None:
        inner = data.child("product_data")
        product = shapes.product(
            context,
            name=inner.need("name"),
            description=inner.text("description"),
            metadata=inner.metadata(),
            tax_code=inner.text("tax_code"),
            active=False,
        )
        product_id = context.store.insert(product)["id"]
    else:
        context.store.get("product", product_id, "line_items[0][price_data][product]")
    price = shapes.price(
        context,
        product_id,
        currency,
        amount,
        recurring=billing.recurring(context, data),
        tax_behavior=behavior,
        active=False,
    )
    return context.store.insert(price)


def _url(params: Params, name: str) -> str | None:
    value = params.text(name)
    if value is not None and not value.startswith(("http://", "https://")):
        raise StripeFault("Not a valid URL", code="url_invalid", param=name)
    return value


def _expires_at(context: Context, params: Params) -> int:
    now = context.now()
    wanted = params.integer("expires_at")
    if wanted is None:
        return now + MAX_OPEN_SECONDS
    # Stripe is lenient by a few seconds of transit here, and so are we.
    if not now + MIN_OPEN_SECONDS - 10 <= wanted <= now + MAX_OPEN_SECONDS + 10:
        message = "The `expires_at` timestamp must be between 30 minutes and 24 hours from now."
        raise invalid("expires_at", message)
    return wanted


def expire_session(context: Context, session: Json) -> Json:
    """`POST /v1/checkout/sessions/<id>/expire`, and what happens by itself in time."""
    if session["status"] != "open":
        message = (
            'Only Checkout Sessions with a status in ["open"] can be expired. '
            f"This Checkout Session has a status of {session['status']}."
        )
        raise StripeFault(message)
    session.update(status="expired", url=None)
    context.store.save(session)
    if session["payment_intent"] is not None:
        payments.cancel_intent(context, context.store.get("payment_intent", session["payment_intent"]))
    context.emit("checkout.session.expired", session)
    return session


def sweep(context: Context) -> int:
    """Expire what is due. Returns how many sessions expired."""
    due = context.store.overdue("checkout.session", "open", "expires_at", context.now())
    for session in due:
        expire_session(context, session)
    return len(due)


def act(context: Context, session: Json, outcome: str, decline_code: str | None) -> Json:
    """What the payer did on the hosted page. Returns the session as it is then.

    `outcome` is `paid`, `declined`, `challenge` (3-D Secure is asked for), `abandoned` (asked
    for and left), `authentication_failed`, or `processing` (a delayed method).
    """
    if session["status"] != "open":
        message = f"This Checkout Session is {session['status']}."
        raise StripeFault(message, status=409, code="payment_intent_unexpected_state")
    if session["amount_total"] == 0 and session["mode"] == "payment":
        _complete(context, session, "no_payment_required")
        return session
    subscribing = session["mode"] == "subscription"
    intent = billing.first_intent(context, session) if subscribing else _intent(context, session)
    match outcome:
        case "paid":
            payments.succeed(context, intent)
            if subscribing:
                billing.first_invoice_paid(context, session, intent)
            _complete(context, session, "paid")
        case "processing" if not subscribing:
            payments.process(context, intent)
            _complete(context, session, "unpaid")
        case "declined":
            payments.decline(context, intent, decline_code or "generic_decline")
            if subscribing:
                billing.first_invoice_failed(context, session)
        case "challenge" | "abandoned":
            payments.challenge(context, intent)
        case "authentication_failed":
            payments.fail_authentication(context, intent)
        case _:
            raise invalid("outcome", f"Unknown outcome: {outcome[:40]}")
    return session


def _intent(context: Context, session: Json) -> Json:
    if session["payment_intent"] is not None:
        return context.store.get("payment_intent", session["payment_intent"])
    # As at Stripe: the payment intent of a session comes into being when the payer confirms.
    intent = shapes.payment_intent(
        context,
        session["amount_total"],
        session["currency"],
        customer=session["customer"],
        description=session["_sandbox"]["description"],
        metadata=session["_sandbox"]["metadata"],
    )
    context.store.insert(intent)
    session["payment_intent"] = intent["id"]
    context.store.save(session)
    context.emit("payment_intent.created", intent)
    return intent


def _complete(context: Context, session: Json, payment_status: str) -> None:
    _redeem(context, session)
    details = shapes.nulls("address business_name individual_name name phone")
    details.update(email=session["customer_email"], tax_exempt="none", tax_ids=[])
    session.update(status="complete", payment_status=payment_status, url=None, customer_details=details)
    context.store.save(session)
    context.emit("checkout.session.completed", session)


def finish_delayed(context: Context, session: Json, *, succeeded: bool) -> Json:
    """A delayed method reaches its end some days after the session was completed."""
    if session["status"] != "complete" or session["payment_status"] != "unpaid":
        raise StripeFault("Nothing is being processed for this Checkout Session.", status=409)
    intent = context.store.get("payment_intent", session["payment_intent"])
    if succeeded:
        payments.succeed(context, intent)
        session["payment_status"] = "paid"
        context.store.save(session)
        context.emit("checkout.session.async_payment_succeeded", session)
    else:
        payments.decline(context, intent, "insufficient_funds")
        context.emit("checkout.session.async_payment_failed", session)
    return session
