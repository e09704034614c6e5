"""Tax as Stripe Tax would compute it, at one rate for everybody, and tax computations for charges without a page."""

from __future__ import annotations

import stripe

from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault, invalid, required
from sandbox.stripe.forms import Params
from sandbox.stripe.shapes import blank
from sandbox.stripe.store import Json

RATE_PERCENT = 20
RATE_ID = "txr_sandbox"
DEFAULT_BEHAVIOR = "exclusive"
"""Of the account, as its tax settings would have it."""
BEHAVIORS = ("exclusive", "inclusive", "unspecified")
CALCULATION_SECONDS = 90 * 86_400
_LINE = ("amount", "quantity", "reference", "tax_behavior", "tax_code", "product", "metadata")


def tax_of(amount: int, behavior: str) -> int:
    """The tax on an amount, or within it, rounded half up; as much below zero for a credit."""
    sign = -1 if amount < 0 else 1
    whole = 100 if behavior == "exclusive" else 100 + RATE_PERCENT
    return sign * ((abs(amount) * RATE_PERCENT * 2 + whole) // (2 * whole))


def behavior_of(price: Json) -> str:
    """How tax relates to a price: where that does not say it, as the account's tax settings have it."""
    behavior = str(price["tax_behavior"])
    return DEFAULT_BEHAVIOR if behavior == "unspecified" else behavior


def taxes(amount: int, behavior: str) -> list[Json]:
    """The `taxes` of a line."""
    tax = tax_of(amount, behavior)
    return [
        {
            "amount": tax,
            "tax_behavior": behavior,
            "tax_rate_details": {"tax_rate": RATE_ID},
            "taxability_reason": "standard_rated",
            "taxable_amount": amount if behavior == "exclusive" else amount - tax,
            "type": "tax_rate_details",
        }
    ]


def total_taxes(lines: list[Json]) -> list[Json]:
    """The `total_taxes` of an invoice: those of its lines, by behavior."""
    found: dict[str, Json] = {}
    for line in lines:
        for entry in line["taxes"]:
            sum_ = found.setdefault(entry["tax_behavior"], {**entry, "amount": 0, "taxable_amount": 0})
            sum_["amount"] += entry["amount"]
            sum_["taxable_amount"] += entry["taxable_amount"]
    return list(found.values())


def automatic(params: Params, *, otherwise: bool = False) -> bool:
    """Whether `automatic_tax[enabled]` is asked for."""
    data = params.child("automatic_tax")
    data.allow("enabled", "liability")
    asked = data.flag("enabled")
    return otherwise if asked is None else asked


def automatic_tax(enabled: bool, *more: str) -> Json:
    """The `automatic_tax` of an object."""
    liability = {"account": None, "type": "self"} if enabled else None
    return {**dict.fromkeys(more), "enabled": enabled, "liability": liability} | (
        {"provider": "stripe", "status": "complete"} if enabled and "status" in more else {}
    )


def calculate(context: Context, params: Params) -> Json:
    """`POST /v1/tax/calculations`."""
    params.allow("currency", "line_items", "customer_details", "customer", "expand")
    details = params.child("customer_details")
    details.allow("address", "address_source")
    address = details.child("address")
    address.allow("city", "country", "line1", "line2", "postal_code", "state")
    if address.text("country") is None:
        message = "We could not determine the customer's tax location based on the provided customer address."
        raise StripeFault(message, code="customer_tax_location_invalid", param="customer_details[address]")
    lines = [_calculated(context, entry) for entry in params.children("line_items")]
    if not lines:
        raise required("line_items")
    on_top = sum(line["amount_tax"] for line in lines if line["tax_behavior"] == "exclusive")
    within = sum(line["amount_tax"] for line in lines if line["tax_behavior"] == "inclusive")
    names = ("city", "country", "line1", "line2", "postal_code", "state")
    calculation = {
        **blank(stripe.tax.Calculation),
        "id": context.new_id("taxcalc"),
        "object": "tax.calculation",
        "amount_total": sum(line["amount"] for line in lines) + on_top,
        "created": context.now(),
        "currency": params.need("currency").lower(),
        "customer_details": {
            "address": {name: address.text(name) for name in names},
            "address_source": details.text("address_source") or "billing",
            "ip_address": None,
            "tax_ids": [],
            "taxability_override": "none",
        },
        "expires_at": context.now() + CALCULATION_SECONDS,
        "livemode": False,
        "tax_amount_exclusive": on_top,
        "tax_amount_inclusive": within,
        "tax_breakdown": [_broken_down(line, str(address.text("country"))) for line in lines],
        "tax_date": context.now(),
    }
    return context.store.insert({key: value for key, value in calculation.items() if key != "line_items"})


def _calculated(context: Context, entry: Params) -> Json:
    entry.allow(*_LINE)
    amount = entry.integer("amount")
    if amount is None:
        raise required("line_items[0][amount]")
    if amount < 0:
        raise invalid("line_items[0][amount]", "Invalid non-negative integer")
    behavior = entry.choice("tax_behavior", ("exclusive", "inclusive"), "exclusive")
    return {"amount": amount, "amount_tax": tax_of(amount, behavior), "tax_behavior": behavior}


def _broken_down(line: Json, country: str) -> Json:
    inclusive = line["tax_behavior"] == "inclusive"
    return {
        "amount": line["amount_tax"],
        "inclusive": inclusive,
        "tax_rate_details": {
            "country": country,
            "flat_amount": None,
            "percentage_decimal": f"{RATE_PERCENT}.0",
            "rate_type": "percentage",
            "state": None,
            "tax_type": "vat",
        },
        "taxability_reason": "standard_rated",
        "taxable_amount": line["amount"] - (line["amount_tax"] if inclusive else 0),
    }
