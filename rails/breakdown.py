"""How an amount that was paid came about: what was asked for, what a discount took off, and the tax. Pure."""

from __future__ import annotations

import msgspec


class Breakdown(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Parts of one amount, in its minor units. `price − discount + tax on top` is the amount."""

    price_minor: int
    """What this pays for of what was asked, before discounts and without tax on top; tax within it included."""
    discount_minor: int = 0
    """What a discount took off the price: it brings as much as if it had been paid."""
    tax_minor: int = 0
    """All tax in the amount."""
    tax_on_top_minor: int = 0
    """What came on top of the price: it buys nothing. More than all tax, where a credit on the bill had tax within it."""

    @property
    def paid_minor(self) -> int:
        """The amount."""
        return self.price_minor - self.discount_minor + self.tax_on_top_minor

    @property
    def net_minor(self) -> int:
        """The amount without tax."""
        return self.paid_minor - self.tax_minor

    def is_sound(self) -> bool:
        """Whether no part is negative or larger than what it is a part of."""
        return (
            0 <= self.discount_minor <= self.price_minor
            and 0 <= self.tax_on_top_minor <= self.paid_minor
            and 0 <= self.tax_minor <= self.paid_minor
        )

    def of(self, minor: int) -> Breakdown:
        """The same for another amount of the same bill: a part of it, or more where something older is paid with it.

        Discount and tax are shares that round down; the price is what is left, so that the parts add up.
        """
        whole = self.paid_minor
        part = min(minor, whole)
        discount = _share(self.discount_minor, part, whole)
        tax = _share(self.tax_minor, part, whole)
        on_top = (
            tax if self.tax_on_top_minor == self.tax_minor else _share(self.tax_on_top_minor, part, whole)
        )
        return Breakdown(
            price_minor=minor + discount - on_top,
            discount_minor=discount,
            tax_minor=tax,
            tax_on_top_minor=on_top,
        )


def _share(of: int, part: int, whole: int) -> int:
    return of * part // whole if whole > 0 else 0
