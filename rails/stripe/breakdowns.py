"""How Stripe says that an amount came about: price, discount and tax of a session, an invoice, a charge. Pure.

What does not add up is not believed: `RailProtocolError`, and whoever asked sets it aside with the reason.
"""

from __future__ import annotations

from typing import Any

from rails.breakdown import Breakdown
from rails.contract import RailProtocolError
from rails.stripe.amounts import amount_of

Json = dict[str, Any]


def of_session(session: Json) -> Breakdown | None:
    """Of a Checkout session's total, by `total_details`; None where it is just the price. May raise `ValueError`."""
    details = session["total_details"]
    subtotal, total = session["amount_subtotal"], session["amount_total"]
    if details is None or subtotal is None or total is None:
        return None
    tax, discount = amount_of(details["amount_tax"]), amount_of(details["amount_discount"])
    if details["amount_shipping"]:
        raise RailProtocolError("a session of ours has costs of shipping")
    on_top = amount_of(total) - (amount_of(subtotal) - discount)
    # Tax is within the price or on top of it, and the session says which by nothing but its sum.
    if on_top not in (0, tax):
        raise RailProtocolError("the total of a session is not its price, discount and tax")
    return _unless_plain(subtotal, discount, tax, on_top, total)


def of_invoice(invoice: Json) -> Breakdown | None:
    """Of an invoice's total, by `total_taxes` and `total_discount_amounts`. None where it is just the price, or nothing
    is to be paid. May raise `ValueError`."""
    total = amount_of(invoice["total"], may_be_negative=True)
    if total <= 0:
        return None
    if invoice["amount_shipping"]:
        raise RailProtocolError("an invoice of ours has costs of shipping")
    tax = on_top = 0
    for entry in invoice["total_taxes"] or ():
        # Of parts of periods that are credited the tax is negative.
        amount = amount_of(entry["amount"], may_be_negative=True)
        tax += amount
        match entry["tax_behavior"]:
            case "exclusive":
                on_top += amount
            case "inclusive":
                pass
            case other:
                raise RailProtocolError(f"Stripe reported an unknown tax behavior {other!r}")
    granted = invoice["total_discount_amounts"] or ()
    whole = sum(amount_of(entry["amount"]) for entry in granted)
    # Discounts of single lines are in the subtotal already.
    own = sum(amount_of(entry["amount"]) for entry in granted if entry["discount"] in invoice["discounts"])
    subtotal = amount_of(invoice["subtotal"], may_be_negative=True)
    discount = subtotal + on_top - total
    if on_top < 0:
        # A credit with tax on top of it beside a price with tax within: there is only less to pay.
        subtotal, on_top = subtotal + on_top, 0
    if discount not in (whole, own):
        raise RailProtocolError("the total of an invoice is not its lines, discounts and taxes")
    return _unless_plain(subtotal, discount, max(tax, 0), on_top, total)


BEHAVIOR = "tax_behavior"
"""In the metadata of a charge: how the tax in its amount relates to the price."""


def of_charge(intent: Json) -> Breakdown | None:
    """Of the amount of a payment intent that charged a saved card; None where there is no tax. May raise `ValueError`."""
    stated = ((intent.get("amount_details") or {}).get("tax") or {}).get("total_tax_amount")
    if not stated:
        return None
    tax, total = amount_of(stated), amount_of(intent["amount"])
    match intent["metadata"].get(BEHAVIOR):
        case "exclusive":
            return _unless_plain(total - tax, 0, tax, tax, total)
        case "inclusive":
            return _unless_plain(total, 0, tax, 0, total)
        case _:
            raise RailProtocolError("a charge of ours does not say how its tax relates to its price")


def _unless_plain(price: int, discount: int, tax: int, on_top: int, total: int) -> Breakdown | None:
    if price == total and not discount and not tax:
        return None
    found = Breakdown(price_minor=price, discount_minor=discount, tax_minor=tax, tax_on_top_minor=on_top)
    if not found.is_sound():
        raise ValueError("a part is larger than what it is a part of")
    return found
