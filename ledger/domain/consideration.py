"""What was paid for credits, and how it is split without losing a unit."""

from __future__ import annotations

import msgspec

from ledger.money import Asset


class Worth(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A part of a consideration: `net + tax + fee` is the money, the rest its value at receipt."""

    net_minor: int = 0
    """What is left for us, in minor units of the asset."""
    tax_minor: int = 0
    """Tax contained in the money, in minor units of the asset."""
    fee_minor: int = 0
    """What the rail kept, in minor units of the asset."""
    usd_minor: int = 0
    """The value of net and fee together when the money arrived, in US cents."""
    tax_usd_minor: int = 0
    """The value of the tax when the money arrived, in US cents."""

    @property
    def gross_minor(self) -> int:
        """The whole money in minor units of the asset."""
        return self.net_minor + self.tax_minor + self.fee_minor

    @property
    def earned_minor(self) -> int:
        """What using the credits earns: net and fee (the fee is our cost), in minor units of the asset."""
        return self.net_minor + self.fee_minor

    def __add__(self, other: Worth) -> Worth:
        return Worth(
            self.net_minor + other.net_minor,
            self.tax_minor + other.tax_minor,
            self.fee_minor + other.fee_minor,
            self.usd_minor + other.usd_minor,
            self.tax_usd_minor + other.tax_usd_minor,
        )

    def __sub__(self, other: Worth) -> Worth:
        return Worth(
            self.net_minor - other.net_minor,
            self.tax_minor - other.tax_minor,
            self.fee_minor - other.fee_minor,
            self.usd_minor - other.usd_minor,
            self.tax_usd_minor - other.tax_usd_minor,
        )

    def is_negative_somewhere(self) -> bool:
        """Whether any part is below zero."""
        return min(self.net_minor, self.tax_minor, self.fee_minor, self.usd_minor, self.tax_usd_minor) < 0


NOTHING = Worth()


class Consideration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The money behind a lot, with everything needed to explain it later."""

    asset: Asset
    worth: Worth
    rate_numerator: int = 1
    """US cents for `rate_denominator` minor units of the asset, as applied at receipt."""
    rate_denominator: int = 1
    rail: str
    payment_id: str


class Slice(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Credits taken from one lot, with the part of its consideration that goes with them."""

    lot_id: str
    credits: int
    source: str
    """Why the lot was granted; one of `ledger.domain.lots.Source`."""
    asset: str = ""
    """Code of the asset that `worth` is counted in; empty for credits nobody paid for."""
    rail: str = ""
    worth: Worth | None = None
    revoked: bool = False
    """Its money went back to the payer while it was held: released it is gone, captured it is owed."""


def next_part(whole: Worth, out: Worth, taken: int, amount: int, granted: int) -> Worth:
    """The worth of the next `amount` credits of a lot of `granted`, after `taken` left with `out`.

    Running floors: after t credits floor(whole × t / granted) is out, so that the parts sum
    to the whole whatever the steps. Where parts came back, the difference evens itself out.
    """
    upto = taken + amount
    if upto == granted:
        return whole - out
    return Worth(
        max(0, whole.net_minor * upto // granted - out.net_minor),
        max(0, whole.tax_minor * upto // granted - out.tax_minor) if whole.tax_minor else 0,
        max(0, whole.fee_minor * upto // granted - out.fee_minor) if whole.fee_minor else 0,
        max(0, whole.usd_minor * upto // granted - out.usd_minor),
        max(0, whole.tax_usd_minor * upto // granted - out.tax_usd_minor) if whole.tax_usd_minor else 0,
    )


def cut(portion: Slice, amount: int) -> tuple[Slice, Slice]:
    """Cut a slice after `amount` credits; worth is rounded down in the first part, the rest is in the second."""
    worth, first = portion.worth, None
    if worth is not None:
        first = next_part(worth, NOTHING, 0, amount, portion.credits)
    head = msgspec.structs.replace(portion, credits=amount, worth=first)
    rest = worth - first if worth is not None and first is not None else None
    return head, msgspec.structs.replace(portion, credits=portion.credits - amount, worth=rest)


def cut_all(slices: tuple[Slice, ...], amount: int) -> tuple[tuple[Slice, ...], tuple[Slice, ...]]:
    """The first `amount` credits of some slices, and the rest."""
    head: list[Slice] = []
    tail: list[Slice] = []
    for portion in slices:
        if amount >= portion.credits:
            head.append(portion)
            amount -= portion.credits
        elif amount > 0:
            first, rest = cut(portion, amount)
            head.append(first)
            tail.append(rest)
            amount = 0
        else:
            tail.append(portion)
    return tuple(head), tuple(tail)


def total(slices: tuple[Slice, ...]) -> int:
    """How many credits some slices are."""
    return sum(portion.credits for portion in slices)
