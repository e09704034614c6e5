"""Subscriptions and invoices in the shapes of the pinned API version.

Since `basil` the period is on the subscription's items, and an invoice names its
subscription under `parent` and its payments in a list of their own.
"""

from __future__ import annotations

import stripe

from sandbox.stripe.context import Context
from sandbox.stripe.shapes import blank, nulls
from sandbox.stripe.store import Json


def subscription(context: Context, customer: str, currency: str, metadata: Json) -> Json:
    """A `subscription` without items, in flexible billing mode."""
    now = context.now()
    identifier = context.new_id("sub")
    return {
        **blank(stripe.Subscription),
        "_sandbox": {},
        "id": identifier,
        "object": "subscription",
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
    metered = price["recurring"]["usage_type"] == "metered"
    item = {
        **blank(stripe.SubscriptionItem),
        "id": context.new_id("si"),
        "object": "subscription_item",
        "created": context.now(),
        "current_period_end": end,
        "current_period_start": context.now(),
        "discounts": [],
        "metadata": {},
        "plan": plan(price),
        "price": price,
        "quantity": quantity,
        "subscription": subscription_id,
        "tax_rates": [],
    }
    if metered:
        del item["quantity"]
    return item


def plan(price: Json) -> Json:
    """The older `plan` view of a recurring price; it shares the price's id."""
    return {
        **blank(stripe.Plan),
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
        "meter": price["recurring"]["meter"],
        "product": price["product"],
        "usage_type": price["recurring"]["usage_type"],
    }


def line(context: Context, invoice_id: str, item: Json, amount: int, *, proration: bool, end: int) -> Json:
    """A `line_item` of an invoice for one subscription item, over one period."""
    start = context.now() if proration else item["current_period_start"]
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
    now = context.now()
    identifier = context.new_id("in")
    return {
        **blank(stripe.Invoice),
        "id": identifier,
        "object": "invoice",
        "account_country": "US",
        "account_name": "LlamaSketch",
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
        "hosted_invoice_url": f"{context.public_url}/i/{identifier}",
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
        "created": context.now(),
        "currency": invoice_value["currency"],
        "invoice": invoice_value["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"payment_intent": intent_id, "type": "payment_intent"},
        "status": "open",
        "status_transitions": nulls("canceled_at paid_at"),
    }
