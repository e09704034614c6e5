"""Objects in the shapes of the pinned API version: catalogue, customers, Checkout, payment intents.

A field that the stand-in never fills is there with `null`, as it is in Stripe's answers.
"""

from __future__ import annotations

from sandbox.stripe.context import Context
from sandbox.stripe.store import Json


def nulls(names: str) -> Json:
    """`null` for every name."""
    return dict.fromkeys(names.split())


def customer(context: Context, **given: object) -> Json:
    """A `customer`."""
    return {
        "id": context.new_id("cus"),
        "object": "customer",
        **nulls("address business_name currency default_source description discount email individual_name"),
        **nulls("name phone shipping test_clock customer_account"),
        "balance": 0,
        "created": context.clock(),
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
    now = context.clock()
    return {
        "id": context.new_id("prod"),
        "object": "product",
        "active": True,
        "created": now,
        **nulls("default_price description package_dimensions shippable statement_descriptor tax_code"),
        **nulls("tax_details unit_label url"),
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
        "id": context.new_id("price"),
        "object": "price",
        "active": True,
        "billing_scheme": "per_unit",
        "created": context.clock(),
        "currency": currency,
        **nulls("custom_unit_amount lookup_key nickname recurring tiers_mode transform_quantity"),
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
        "id": identifier,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        **nulls("after_expiration allow_promotion_codes allowed_payment_method_types cancel_url"),
        **nulls("client_reference_id client_secret collected_information consent consent_collection"),
        **nulls("currency_conversion customer customer_account customer_creation customer_details"),
        **nulls("customer_email excluded_payment_method_types integration_identifier invoice"),
        **nulls("invoice_creation locale managed_payments name_collection origin_context payment_intent"),
        **nulls("payment_link payment_method_configuration_details permissions presentment_details"),
        **nulls("recovered_from return_url saved_payment_method_options setup_intent"),
        **nulls("shipping_address_collection shipping_cost submit_type subscription tax_id_collection"),
        **nulls("billing_address_collection optional_items redirect_on_completion success_url"),
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
        "created": context.clock(),
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
        "id": identifier,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        **nulls("allowed_payment_method_types application application_fee_amount canceled_at"),
        **nulls("cancellation_reason customer customer_account description"),
        **nulls("excluded_payment_method_types hooks last_payment_error latest_charge managed_payments"),
        **nulls("next_action on_behalf_of payment_details payment_method payment_record"),
        **nulls("payment_method_configuration_details presentment_details processing receipt_email"),
        **nulls("review setup_future_usage shipping source statement_descriptor"),
        **nulls("statement_descriptor_suffix transfer_data transfer_group automatic_payment_methods"),
        "capture_method": "automatic_async",
        "client_secret": f"{identifier}_secret_{context.new_id('s')[2:]}",
        "confirmation_method": "automatic",
        "created": context.clock(),
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
        "billing_details": {**nulls("email name phone tax_id"), "address": _no_address()},
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
        "created": context.clock(),
        "customer": customer_id,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def _no_address() -> Json:
    return nulls("city country line1 line2 postal_code state")


def webhook_endpoint(context: Context, url: str, events: list[str], secret: str, version: str) -> Json:
    """A `webhook_endpoint`; `secret` is shown only when it is created."""
    return {
        "id": context.new_id("we"),
        "object": "webhook_endpoint",
        "api_version": version,
        "application": None,
        "created": context.clock(),
        "description": None,
        "enabled_events": events,
        "livemode": False,
        "metadata": {},
        "secret": secret,
        "status": "enabled",
        "url": url,
    }
