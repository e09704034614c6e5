"""On what terms the card rail sells: tax by Stripe Tax, and promotion codes. What Stripe is told of them, everywhere alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rails.stripe.calls import Json


class Tax(StrEnum):
    """How tax relates to the prices of the catalogue."""

    OFF = "off"
    """Stripe computes none."""
    INCLUSIVE = "inclusive"
    """It is within the price: everybody pays the price."""
    EXCLUSIVE = "exclusive"
    """It comes on top of the price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutTerms:
    """The settings `STRIPE_TAX`, `STRIPE_TAX_CODE` and `STRIPE_PROMOTION_CODES`."""

    tax: Tax = Tax.OFF
    tax_code: str = ""
    """Stripe's code of what is sold; empty: the one of the account's tax settings."""
    promotion_codes: bool = False

    @property
    def taxed(self) -> bool:
        """Whether Stripe computes tax."""
        return self.tax is not Tax.OFF

    def of_session(self) -> Json:
        """For a page where something is paid: Checkout asks for as much of an address as the tax needs."""
        taxed: Json = {"automatic_tax": {"enabled": True}} if self.taxed else {}
        return taxed | ({"allow_promotion_codes": True} if self.promotion_codes else {})

    def of_saving(self) -> Json:
        """For a page where a card is saved: it is charged later without its owner, whose place must be known then."""
        return {"billing_address_collection": "required"} if self.taxed else {}

    def of_price(self) -> Json:
        """For a price: once it is said there, it never changes."""
        return {"tax_behavior": self.tax.value} if self.taxed else {}

    def of_product(self) -> Json:
        """For what is sold."""
        return {"tax_code": self.tax_code} if self.taxed and self.tax_code else {}

    def of_subscription(self) -> Json:
        """For a change of a subscription, its preview, and each phase of its schedule."""
        return {"automatic_tax": {"enabled": self.taxed}}


PLAIN = CheckoutTerms()
"""No tax, no promotion codes."""


def terms_of(environ: Mapping[str, str]) -> CheckoutTerms:
    """The terms that were set; they have been checked by the rules of the settings."""
    return CheckoutTerms(
        tax=Tax(environ.get("STRIPE_TAX", "").strip() or Tax.OFF),
        tax_code=environ.get("STRIPE_TAX_CODE", "").strip(),
        promotion_codes=environ.get("STRIPE_PROMOTION_CODES", "").strip() == "on",
    )
