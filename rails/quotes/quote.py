"""Quotes: how much of an asset buys how many credits, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from ledger.money import Asset, Money, Rate
from rails.domain.pricing import PackPrice, amount_up, credits_down
from rails.domain.purchases import Purchase, price_in


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotRate:
    """The price of an asset in USD, with where it came from and when it was read."""

    rate: Rate
    source: str
    """For example `median(bitstamp, coinbase, kraken)` or `parity`."""
    read_at: datetime


class Rates(Protocol):
    """Where prices come from. Never blocks: it answers from what is known now."""

    def spot(self, asset: Asset) -> SpotRate | None:
        """A fresh, sane rate from `asset` to USD, or None."""

    def why_not(self, asset: Asset) -> str | None:
        """A sentence for people if there is no rate for `asset`, else None."""

    async def refresh(self) -> None:
        """Ask again now; callers at the same time share one round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """`amount_due` buys `credits` until `expires_at`."""

    amount_due: Money
    credits: int
    rate: Rate
    source: str
    expires_at: datetime
    price: PackPrice


def up_to_step(amount: Money, step: int) -> Money:
    """The least multiple of `step` minor units that is no less than `amount`."""
    return Money(-(-amount.minor // step) * step, amount.asset)


def quote_credits(
    wanted: int, spot: SpotRate, price: PackPrice, now: datetime, seconds: int, step: int
) -> Quote:
    """The least amount, in whole steps, that buys `wanted` credits."""
    return Quote(
        amount_due=up_to_step(amount_up(wanted, spot.rate, price), step),
        credits=wanted,
        rate=spot.rate,
        source=spot.source,
        expires_at=now + timedelta(seconds=seconds),
        price=price,
    )


def quote_amount(
    amount: Money, spot: SpotRate, price: PackPrice, now: datetime, seconds: int, step: int
) -> Quote:
    """What `amount`, in the asset to pay with or in USD, buys; it rounds up to whole steps, credits round down."""
    in_asset = amount if amount.asset == spot.rate.source else spot.rate.inverse().convert_up(amount)
    due = up_to_step(in_asset, step)
    return Quote(
        amount_due=due,
        credits=credits_down(due, spot.rate, price),
        rate=spot.rate,
        source=spot.source,
        expires_at=now + timedelta(seconds=seconds),
        price=price,
    )


def quote_purchase(
    purchase: Purchase, spot: SpotRate, price: PackPrice, now: datetime, seconds: int, step: int
) -> Quote:
    """The least amount, in whole steps, that is worth the price of a purchase. `price` is that of plain credits."""
    return Quote(
        amount_due=up_to_step(price_in(purchase, spot.rate), step),
        credits=purchase.credits,
        rate=spot.rate,
        source=spot.source,
        expires_at=now + timedelta(seconds=seconds),
        price=price,
    )
