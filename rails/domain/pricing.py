"""What credits cost. One price, one direction of rounding each way, integers only."""

from __future__ import annotations

import msgspec

from ledger.money import USD, Money, Rate


class PackPrice(msgspec.Struct, frozen=True):
    """`credits` for `usd_minor` US cents. A payment keeps the price it was opened with."""

    credits: int
    usd_minor: int


PACK = PackPrice(credits=500, usd_minor=500)
"""500 credits for 5.00 USD."""


def credits_down(amount: Money, rate: Rate, price: PackPrice) -> int:
    """The whole credits that `amount` buys. Rounds down once, at the very end."""
    _require_dollars(rate)
    if amount.asset != rate.source:
        raise ValueError(f"a rate from {rate.source.code} cannot price {amount.asset.code}")
    return amount.minor * rate.numerator * price.credits // (rate.denominator * price.usd_minor)


def amount_up(wanted: int, rate: Rate, price: PackPrice) -> Money:
    """The least amount of `rate.source` that buys `wanted` credits. Rounds up once, at the very end.

    `credits_down(amount_up(n)) >= n`, and equal wherever one minor unit is worth at most one credit.
    """
    _require_dollars(rate)
    bought, per = wanted * price.usd_minor * rate.denominator, price.credits * rate.numerator
    return Money(-(-bought // per), rate.source)


def _require_dollars(rate: Rate) -> None:
    if rate.target != USD:
        raise ValueError(f"credits are priced in USD, not in {rate.target.code}")
    if rate.numerator <= 0 or rate.denominator <= 0:
        raise ValueError("a rate must be positive")
