"""Subscriptions and invoices in the shapes of the pinned API version.

Since `basil` the period is on the subscription's items, and an invoice names its
subscription under `parent` and its payments in a list of their own.
"""

from __future__ import annotations

from sandbox.stripe.context import Context
from sandbox.stripe.shapes import nulls
from sandbox.stripe.store import Json


def subscription(context: Context, customer: str, currency: str, metadata: Json) -> Json:
    """A `subscription` without items, in flexible billing mode."""
    now = context.clock()
    identifier = context.new_id("sub")
    return {
        "id": identifier,
        "object": "subscription",
        **nulls("application application_fee_percent billing_cycle_anchor_config billing_thresholds"),
        **nulls("cancel_at canceled_at customer_account days_until_due default_payment_method"),
        **nulls("default_source description ended_at latest_invoice managed_payments"),
        **nulls("next_pending_invoice_item_invoice on_behalf_of pause_collection"),
        **nulls("pending_invoice_item_interval pending_setup_intent pending_update"),
        **nulls("presentment_details schedule status_details test_clock transfer_data trial_end trial_start"),
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": now,
        "billing_mode": {"flexible": {"proration_discounts": "included"}, "type": "flexible"},
        "billing_schedules": [],
        "cancel_at_period_end": False,
        "cancellation_details": nulls("comment feedback feedback_option reason"),
        "collection_method": "charge_automatically",
        "created": now,
        "currency": currency,
        "customer": customer,
        "default_tax_rates": [],
        "discounts": [],
        "invoice_settings": {
            **nulls("account_tax_ids custom_fields description footer"),
            "issuer": {"type": "self"},
        },
        "items": {
            "object": "list",
            "data": [],
            "has_more": False,
            "url": f"/v1/subscription_items?subscription={identifier}",
        },
        "livemode": False,
        "metadata": metadata,
        "payment_settings": {
            **nulls("payment_method_options payment_method_types"),
            "save_default_payment_method": "off",
        },
        "start_date": now,
        "status": "incomplete",
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
    }


def subscription_item(context: Context, subscription_id: str, price: Json, quantity: int, end: int) -> Json:
    """A `subscription_item` whose current period starts now."""
    return {
        "id": context.new_id("si"),
        "object": "subscription_item",
        **nulls("billed_until billing_thresholds current_trial"),
        "created": context.clock(),
        "current_period_end": end,
        "current_period_start": context.clock(),
        "discounts": [],
        "metadata": {},
        "plan": plan(price),
        "price": price,
        "quantity": quantity,
        "subscription": subscription_id,
        "tax_rates": [],
    }


def plan(price: Json) -> Json:
    """The older `plan` view of a recurring price; it shares the price's id."""
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": str(price["unit_amount"]),
        "billing_scheme": "per_unit",
        "created": price["created"],
        "currency": price["currency"],
        "interval": price["recurring"]["interval"],
        "interval_count": price["recurring"]["interval_count"],
        "livemode": False,
        "metadata": {},
        **nulls("meter nickname tiers_mode transform_usage trial_period_days"),
        "product": price["product"],
        "usage_type": "licensed",
    }


def line(context: Context, invoice_id: str, item: Json, amount: int, *, proration: bool, end: int) -> Json:
    """A `line_item` of an invoice for one subscription item, over one period."""
    start = context.clock() if proration else item["current_period_start"]
    details = {
        "invoice_item": None,
        "proration": proration,
        "proration_details": {"credited_items": None},
        "subscription": item["subscription"],
        "subscription_item": item["id"],
    }
    price = item["price"]
    pricing = {
        "price_details": {"price": price["id"], "product": price["product"]},
        "type": "price_details",
        "unit_amount_decimal": price["unit_amount_decimal"],
    }
    return {
        "id": context.new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": price["currency"],
        "description": ("Remaining time on " if proration else "") + price["product"],
        "discount_amounts": [],
        "discountable": not proration,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": {},
        "parent": {
            "invoice_item_details": None,
            "subscription_item_details": details,
            "type": "subscription_item_details",
        },
        "period": {"start": start, "end": end},
        "pretax_credit_amounts": [],
        "pricing": pricing,
        "quantity": item["quantity"],
        "quantity_decimal": str(item["quantity"]),
        "subscription": item["subscription"],
        "subtotal": amount,
        "taxes": [],
    }


def invoice(context: Context, subscription_value: Json, customer: Json, reason: str) -> Json:
    """An `invoice` of a subscription, open and without lines."""
    now = context.clock()
    identifier = context.new_id("in")
    return {
        "id": identifier,
        "object": "invoice",
        "account_country": "US",
        "account_name": "LlamaSketch",
        **nulls(_NEVER_FILLED),
        **dict.fromkeys(_AMOUNTS.split(), 0),
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": {
            **nulls("disabled_reason liability provider status"),
            "enabled": False,
        },
        "billing_reason": reason,
        "collection_method": "charge_automatically",
        "created": now,
        "currency": subscription_value["currency"],
        "customer": customer["id"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_tax_rates": [],
        "discounts": [],
        "effective_at": now,
        "issuer": {"type": "self"},
        "lines": {
            "object": "list",
            "data": [],
            "has_more": False,
            "url": f"/v1/invoices/{identifier}/lines",
        },
        "livemode": False,
        "metadata": {},
        "number": f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04d}",
        "parent": _parent(subscription_value),
        "payment_settings": nulls("default_mandate payment_method_options payment_method_types"),
        "period_end": now,
        "period_start": now,
        "status": "open",
        "status_transitions": {
            **nulls("marked_uncollectible_at paid_at voided_at"),
            "finalized_at": now,
        },
        "total_discount_amounts": [],
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
    }


_NEVER_FILLED = (
    "account_tax_ids amount_paid_off_stripe application automatically_finalizes_at "
    "confirmation_secret custom_fields customer_account customer_address customer_phone "
    "customer_shipping default_payment_method default_source description due_date ending_balance "
    "footer from_invoice hosted_invoice_url invoice_pdf last_finalization_error latest_revision next_payment_attempt "
    "on_behalf_of receipt_number rendering shipping_cost shipping_details statement_descriptor "
    "status_details subtotal_excluding_tax test_clock threshold_reason total_excluding_tax "
    "webhooks_delivered_at"
)
_AMOUNTS = (
    "amount_due amount_overpaid amount_paid amount_remaining amount_shipping attempt_count "
    "post_payment_credit_notes_amount pre_payment_credit_notes_amount starting_balance subtotal total"
)


def _parent(subscription_value: Json) -> Json:
    details = {
        "metadata": subscription_value["metadata"],
        "subscription": subscription_value["id"],
        "subscription_proration_date": None,
    }
    return {"quote_details": None, "subscription_details": details, "type": "subscription_details"}


def invoice_payment(context: Context, invoice_value: Json, intent_id: str) -> Json:
    """An `invoice_payment`: how an invoice names the payment intent that pays it."""
    return {
        "id": context.new_id("inpay"),
        "object": "invoice_payment",
        "amount_paid": None,
        "amount_requested": invoice_value["amount_due"],
        "created": context.clock(),
        "currency": invoice_value["currency"],
        "invoice": invoice_value["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"payment_intent": intent_id, "type": "payment_intent"},
        "status": "open",
        "status_transitions": nulls("canceled_at paid_at"),
    }
