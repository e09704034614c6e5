"""Money and credits as integers. No float, no `/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec


class Asset(msgspec.Struct, frozen=True, order=True):
    """What money is counted in. `scale` is the number of decimal places of one minor unit."""

    code: str
    scale: int


USD = Asset("USD", 2)
BTC = Asset("BTC", 11)
"""Bitcoin over Lightning: one minor unit is a millisatoshi."""
LBTC = Asset("L-BTC", 8)
USDT = Asset("USDT", 8)
ASSETS = {asset.code: asset for asset in (USD, BTC, LBTC, USDT)}


class Money(msgspec.Struct, frozen=True):
    """An amount in minor units of an asset (never negative unless a booking says so)."""

    minor: int
    asset: Asset

    def __add__(self, other: Money) -> Money:
        self._require_same_asset(other)
        return Money(self.minor + other.minor, self.asset)

    def __sub__(self, other: Money) -> Money:
        self._require_same_asset(other)
        return Money(self.minor - other.minor, self.asset)

    def _require_same_asset(self, other: Money) -> None:
        if self.asset != other.asset:
            raise ValueError(f"{self.asset.code} and {other.asset.code} do not add up")

    def decimal(self) -> str:
        """The amount as a plain decimal string, for example `19.99`."""
        return format_decimal(self.minor, self.asset.scale)


def format_decimal(minor: int, scale: int) -> str:
    """`1999` at scale 2 is `19.99`; never an exponent."""
    sign = "-" if minor < 0 else ""
    whole, part = divmod(abs(minor), 10**scale)
    return f"{sign}{whole}" if scale == 0 else f"{sign}{whole}.{part:0{scale}d}"


class Rate(NamedTuple):
    """`numerator` minor units of `target` for `denominator` minor units of `source`."""

    numerator: int
    denominator: int
    source: Asset
    target: Asset

    def convert_down(self, amount: Money) -> Money:
        """Convert, rounding toward zero."""
        self._require_source(amount)
        return Money(amount.minor * self.numerator // self.denominator, self.target)

    def convert_up(self, amount: Money) -> Money:
        """Convert, rounding away from zero for positive amounts."""
        self._require_source(amount)
        return Money(-(-amount.minor * self.numerator // self.denominator), self.target)

    def inverse(self) -> Rate:
        """The same rate in the other direction."""
        return Rate(self.denominator, self.numerator, self.target, self.source)

    def _require_source(self, amount: Money) -> None:
        if amount.asset != self.source:
            raise ValueError(f"a rate from {self.source.code} cannot convert {amount.asset.code}")


def split_by_weight_floor(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` by `weights`; parts sum to the whole to the last unit.

    Each part is the difference of two running floors, so that splitting in one go or slice
    by slice gives the same parts. Weights are not negative and not all zero.
    """
    whole = sum(weights)
    if whole <= 0 or min(weights) < 0:
        raise ValueError("weights must not be negative and must have a positive sum")
    parts, done, given = [], 0, 0
    for weight in weights:
        done += weight
        upto = total * done // whole
        parts.append(upto - given)
        given = upto
    return parts
