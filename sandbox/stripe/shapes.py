"""Objects in the shapes of the pinned API version: catalogue, customers, Checkout, payment intents.

A field that the stand-in never fills is `null`, as it is in Stripe's answers.
"""

from __future__ import annotations

import inspect
from typing import get_args

import stripe

from sandbox.stripe.context import Context
from sandbox.stripe.store import Json


def nulls(names: str) -> Json:
    """`null` for every name."""
    return dict.fromkeys(names.split())


_LEFT_OUT = frozenset("deleted line_items payments refunds sources subscriptions tax_ids".split())
"""Fields that Stripe too leaves out, unless they are asked for."""


def blank(shape: type[stripe.StripeObject]) -> Json:
    """`null` for every field of an object that may be null, by the SDK of the pinned version."""
    return {
        name: None
        for base in shape.__mro__
        if base.__module__.startswith("stripe.")
        for name, kind in inspect.get_annotations(base).items()
        if type(None) in get_args(kind) and name not in _LEFT_OUT and not name.startswith("_")
    }


def customer(context: Context, **given: object) -> Json:
    """A `customer`."""
    return {
        **blank(stripe.Customer),
        "id": context.new_id("cus"),
        "object": "customer",
        "balance": 0,
        "created": context.now(),
        "delinquent": False,
        "invoice_prefix": context.new_id("x")[2:10].upper(),
        "invoice_settings": nulls("custom_fields default_payment_method footer rendering_options"),
        "livemode": False,
        "metadata": {},
        "next_invoice_sequence": 1,
        "preferred_locales": [],
        "tax_exempt": "none",
        **given,
    }


def product(context: Context, **given: object) -> Json:
    """A `product`."""
    now = context.now()
    return {
        **blank(stripe.Product),
        "id": context.new_id("prod"),
        "object": "product",
        "active": True,
        "created": now,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": {},
        "type": "service",
        "updated": now,
        **given,
    }


def price(context: Context, product_id: str, currency: str, unit_amount: int, **given: object) -> Json:
    """A `price`; `recurring` makes it a subscription's."""
    recurring = given.get("recurring")
    return {
        **blank(stripe.Price),
        "id": context.new_id("price"),
        "object": "price",
        "active": True,
        "billing_scheme": "per_unit",
        "created": context.now(),
        "currency": currency,
        "livemode": False,
        "metadata": {},
        "product": product_id,
        "tax_behavior": "unspecified",
        "type": "recurring" if recurring else "one_time",
        "unit_amount": unit_amount,
        "unit_amount_decimal": str(unit_amount),
        **given,
    }


def line_item(context: Context, the_price: Json, description: str, quantity: int) -> Json:
    """An `item` of a Checkout session."""
    amount = the_price["unit_amount"] * quantity
    return {
        **blank(stripe.LineItem),
        "id": context.new_id("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": the_price["currency"],
        "description": description,
        "discounts": [],
        "metadata": {},
        "price": the_price,
        "quantity": quantity,
        "taxes": [],
    }


def checkout_session(context: Context, **given: object) -> Json:
    """A `checkout.session` that is open and unpaid."""
    identifier = context.new_id("cs_test")
    return {
        **blank(stripe.checkout.Session),
        "id": identifier,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "branding_settings": {
            "background_color": "#ffffff",
            "border_style": "rounded",
            "button_color": "#0f766e",
            "display_name": "LlamaSketch",
            "font_family": "default",
            "icon": None,
            "logo": None,
        },
        "created": context.now(),
        "custom_fields": [],
        "custom_text": nulls("after_submit shipping_address submit terms_of_service_acceptance"),
        "discounts": [],
        "livemode": False,
        "metadata": {},
        "payment_method_collection": "always",
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "phone_number_collection": {"enabled": False},
        "shipping_options": [],
        "status": "open",
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": f"{context.public_url}/c/pay/{identifier}",
        "wallet_options": None,
        **given,
    }


def payment_intent(context: Context, amount: int, currency: str, **given: object) -> Json:
    """A `payment_intent` that waits for a payment method."""
    identifier = context.new_id("pi")
    return {
        **blank(stripe.PaymentIntent),
        "id": identifier,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "capture_method": "automatic_async",
        "client_secret": f"{identifier}_secret_{context.new_id('s')[2:]}",
        "confirmation_method": "automatic",
        "created": context.now(),
        "currency": currency,
        "livemode": False,
        "metadata": {},
        "payment_method_options": {
            "card": {
                **nulls("installments mandate_options network"),
                "request_three_d_secure": "automatic",
            }
        },
        "payment_method_types": ["card"],
        "status": "requires_payment_method",
        **given,
    }


def payment_method(context: Context, last4: str, customer_id: str | None) -> Json:
    """A card as a `payment_method`; test numbers only."""
    return {
        "id": context.new_id("pm"),
        "object": "payment_method",
        "allow_redisplay": "limited",
        "billing_details": {
            **nulls("email name phone tax_id"),
            "address": nulls("city country line1 line2 postal_code state"),
        },
        "card": {
            "brand": "visa",
            "checks": {
                "address_line1_check": None,
                "address_postal_code_check": None,
                "cvc_check": "pass",
            },
            "country": "US",
            "display_brand": "visa",
            "exp_month": 12,
            "exp_year": 2034,
            "fingerprint": f"sandbox{last4}",
            "funding": "credit",
            "generated_from": None,
            "last4": last4,
            "networks": {"available": ["visa"], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "created": context.now(),
        "customer": customer_id,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def webhook_endpoint(context: Context, url: str, events: list[str], secret: str, version: str) -> Json:
    """A `webhook_endpoint`; `secret` is shown only when it is created."""
    return {
        "id": context.new_id("we"),
        "object": "webhook_endpoint",
        "api_version": version,
        "application": None,
        "created": context.now(),
        "description": None,
        "enabled_events": events,
        "livemode": False,
        "metadata": {},
        "secret": secret,
        "status": "enabled",
        "url": url,
    }
