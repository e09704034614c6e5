"""Rates to USD: the median of several feeds, fresh and sane, or none at all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from math import gcd

import structlog

from ledger.cancelling import end_tasks
from ledger.clock import Clock
from ledger.money import BTC, LBTC, USD, USDT, Asset, Rate
from rails.quotes.feeds import BITCOIN, TETHER, Feed, FeedFailed
from rails.quotes.quote import SpotRate

PARITY = "parity"
PRICED_AS: Mapping[str, str] = {BTC.code: BITCOIN, LBTC.code: BITCOIN, USDT.code: TETHER, USD.code: PARITY}
"""Which price an asset has, by asset code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRules:
    """When a rate may be used."""

    stale_after: timedelta = timedelta(seconds=120)
    """A reading older than this is not used."""
    deviation_max_permille: int = 30
    """A reading farther than this from the median is left out."""
    quorum: int = 2
    """At least so many readings must remain (all of them if fewer feeds are configured)."""
    refresh_seconds: int = 15
    tether_parity_permille: int = 10
    """Within so much of a dollar, one USDT is one dollar: both are quoted in whole cents."""
    tether_off_permille_max: int = 100
    """Farther from a dollar than this, USDT has no rate: nobody knows what it is worth an hour later."""


@dataclass(frozen=True, slots=True)
class _Reading:
    price: Fraction
    read_at: datetime


class RateBook:
    """Implements `Rates` over feeds. `refresh` asks them all at once; `spot` never waits."""

    def __init__(
        self, feeds: Mapping[str, Sequence[Feed]], clock: Clock, rules: RateRules | None = None
    ) -> None:
        self._feeds = feeds
        self._clock = clock
        self._rules = rules or RateRules()
        self._readings: dict[tuple[str, str], _Reading] = {}
        self._flight: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("rails.quotes.rates")

    def spot(self, asset: Asset) -> SpotRate | None:
        """A fresh, sane rate from `asset` to USD, or None."""
        market = PRICED_AS.get(asset.code)
        if market is None:
            return None
        if market == PARITY or (market == TETHER and not self._feeds.get(TETHER)):
            return SpotRate(rate=rate_to_usd(Fraction(1), asset), source=PARITY, read_at=self._clock())
        used = self._sane(market)
        if used is None:
            return None
        price, source = (
            median([reading.price for reading in used.values()]),
            f"median({', '.join(sorted(used))})",
        )
        if market == TETHER:
            off_permille = abs(price - 1) * 1000
            if off_permille > self._rules.tether_off_permille_max:
                return None
            if off_permille <= self._rules.tether_parity_permille:
                price, source = Fraction(1), PARITY
        return SpotRate(
            rate=rate_to_usd(price, asset),
            source=source,
            read_at=min(reading.read_at for reading in used.values()),
        )

    def why_not(self, asset: Asset) -> str | None:
        """A sentence for people if there is no rate for `asset`."""
        if asset.code not in PRICED_AS:
            return f"There is no price for {asset.code}."
        if self.spot(asset):
            return None
        if PRICED_AS[asset.code] == TETHER and self._sane(TETHER):
            return (
                f"{asset.code} is far from a dollar at the moment and is not taken. Please pay another way."
            )
        return "There is no fresh exchange rate at the moment. Please try again shortly."

    def _sane(self, market: str) -> Mapping[str, _Reading] | None:
        oldest = self._clock() - self._rules.stale_after
        names = [feed.name for feed in self._feeds.get(market, ())]
        fresh = {
            name: reading
            for name in names
            if (reading := self._readings.get((market, name))) is not None and reading.read_at >= oldest
        }
        if not fresh:
            return None
        middle = median([reading.price for reading in fresh.values()])
        near = {
            name: reading
            for name, reading in fresh.items()
            if abs(reading.price - middle) * 1000 <= middle * self._rules.deviation_max_permille
        }
        return near if len(near) >= min(self._rules.quorum, len(names)) else None

    async def refresh(self) -> None:
        """Ask every feed once. Callers at the same time share one round."""
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._ask_all())
        await asyncio.shield(self._flight)

    async def _ask_all(self) -> None:
        asked = [(market, feed) for market, feeds in self._feeds.items() for feed in feeds]
        await asyncio.gather(*(self._ask(market, feed) for market, feed in asked))

    async def _ask(self, market: str, feed: Feed) -> None:
        try:
            price = await feed.read()
        except FeedFailed as failure:
            self._log.warning("rate_feed_failed", market=market, feed=feed.name, reason=str(failure))
            return
        self._readings[market, feed.name] = _Reading(price, self._clock())

    async def run(self) -> None:
        """Refresh for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._rules.refresh_seconds)

    async def close(self) -> None:
        """Stop a round that is under way."""
        if self._flight is not None:
            await end_tasks([self._flight])


def median(prices: Sequence[Fraction]) -> Fraction:
    """The middle price; of an even number the exact mean of the two in the middle."""
    ranked = sorted(prices)
    half, odd = divmod(len(ranked), 2)
    return ranked[half] if odd else (ranked[half - 1] + ranked[half]) * Fraction(1, 2)


def rate_to_usd(price: Fraction, asset: Asset) -> Rate:
    """US cents for minor units of `asset`, exactly, from dollars for one whole unit."""
    numerator = price.numerator * 10**USD.scale
    denominator = price.denominator * 10**asset.scale
    common = gcd(numerator, denominator)
    return Rate(numerator // common, denominator // common, asset, USD)
