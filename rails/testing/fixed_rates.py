"""Rates that a test sets."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from ledger.clock import Clock
from ledger.money import Asset
from rails.quotes.quote import SpotRate
from rails.quotes.rates import rate_to_usd


class FixedRates:
    """Implements `Rates` with given dollar prices of one whole unit, by asset code. They may be changed."""

    def __init__(self, clock: Clock, prices: Mapping[str, Fraction]) -> None:
        self.prices = dict(prices)
        self._clock = clock

    def spot(self, asset: Asset) -> SpotRate | None:
        """The given price, or None."""
        price = self.prices.get(asset.code)
        if price is None:
            return None
        return SpotRate(rate=rate_to_usd(price, asset), source="fixed", read_at=self._clock())

    def why_not(self, asset: Asset) -> str | None:
        """A sentence if there is none."""
        return None if asset.code in self.prices else "There is no fresh exchange rate at the moment."

    async def refresh(self) -> None:
        """Nothing to ask."""
