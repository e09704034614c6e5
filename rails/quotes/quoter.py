"""The quoter: what a payment would cost on a rail now, and which rails are open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from ledger.clock import Clock
from ledger.money import USD, Asset, Money
from rails.contract import Health, Holds, Rail
from rails.domain.pricing import PackPrice, amount_up
from rails.domain.purchases import Purchase
from rails.domain.refusals import AmountTooLarge, AmountTooSmall, AssetNotAccepted, RailClosed, TopupUnclear
from rails.quotes.quote import (
    Quote,
    Rates,
    SpotRate,
    quote_amount,
    quote_credits,
    quote_purchase,
    up_to_step,
)
from rails.quotes.rates import rate_to_usd

NOTHING_ARRIVES = "This payment method cannot receive anything at the moment."
UNREACHABLE = "This payment method is not reachable at the moment."


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentLimits:
    """Bounds of the payment core."""

    credits_max: int = 1_000_000
    """No single top-up asks for more."""
    open_per_account: int = 20
    """Unpaid payment requests that an account may have open at once."""
    open_by_links: int = 5
    """And those that links have opened for it: whoever has a link takes none of the account's own places."""
    rail_timeout_seconds: int = 20
    """How long a rail may take to answer a call."""
    notifications_waiting_max: int = 10_000
    """More verified notifications than this are turned away per rail, to be sent again."""


class CreditPrice(NamedTuple):
    """What some credits cost by one rail in one asset."""

    rail: str
    due: Money
    held: bool
    """Whether the rail can hold the money until it is known what becomes of it."""
    payer_learns_secret: bool
    """Whether whoever pays learns a secret by it."""


class Quoter:
    """Prices what is asked, within the limits of rails and of the core."""

    def __init__(
        self, *, rates: Rates, clock: Clock, price: PackPrice, offers: Sequence[int], limits: PaymentLimits
    ) -> None:
        self._rates = rates
        self._clock = clock
        self._price = price
        self._offers = offers
        self._limits = limits

    async def quote(
        self,
        rail: Rail,
        asset: Asset,
        wanted: int | None,
        amount: Money | None,
        purchase: Purchase | None = None,
        health: Health | None = None,
    ) -> Quote:
        """Raises `RailClosed`, `AmountTooSmall`, `AmountTooLarge`, `AssetNotAccepted` or `TopupUnclear`."""
        spot = self._rates.spot(asset)
        if spot is None:
            await self._rates.refresh()
            spot = self._rates.spot(asset)
        if spot is None:
            raise RailClosed(rail=rail.name, reason=self._rates.why_not(asset))
        quote = self._priced(rail, spot, wanted, amount, purchase)
        least, most = self._least(rail, asset, spot), _most(rail, asset, health)
        if most < least:
            raise RailClosed(rail=rail.name, reason=NOTHING_ARRIVES)
        # What was named in the asset itself is compared as it was named: rounding up makes no amount enough.
        named = quote.amount_due if amount is None or amount.asset != asset else amount
        if (purchase is None and quote.credits < 1) or named.minor < least:
            raise AmountTooSmall(minimum_minor=least, asset=asset.code)
        if quote.amount_due.minor > most or quote.credits > self._limits.credits_max:
            raise AmountTooLarge(maximum_minor=most, asset=asset.code, credits_max=self._limits.credits_max)
        return quote

    def _least(self, rail: Rail, asset: Asset, spot: SpotRate | None) -> int:
        """In the asset's minor units. Whoever asks for this much is not refused: it also buys a credit."""
        least, step = Money(rail.capabilities.minimum[asset.code], asset), _step(rail, asset)
        if spot is not None:
            least = max(least, amount_up(1, spot.rate, self._price), key=lambda amount: amount.minor)
        return up_to_step(least, step).minor

    def _priced(
        self,
        rail: Rail,
        spot: SpotRate,
        wanted: int | None,
        amount: Money | None,
        purchase: Purchase | None,
    ) -> Quote:
        now, seconds = self._clock(), rail.capabilities.quote_seconds
        step = _step(rail, spot.rate.source)
        if purchase is not None:
            if wanted is not None or amount is not None:
                raise TopupUnclear
            return quote_purchase(purchase, spot, self._price, now, seconds, step)
        if (wanted is None) == (amount is None):
            raise TopupUnclear
        if wanted is not None:
            return quote_credits(max(wanted, 0), spot, self._price, now, seconds, step)
        assert amount is not None
        if amount.asset not in (USD, spot.rate.source):
            raise AssetNotAccepted(asset=amount.asset.code)
        return quote_amount(Money(max(amount.minor, 0), amount.asset), spot, self._price, now, seconds, step)

    def rails_json(self, rails: Iterable[Rail], health: Mapping[str, Health]) -> dict[str, Any]:
        """The body of `GET /v1/rails`."""
        listed = sorted(rails, key=lambda rail: rail.capabilities.order)
        par = rate_to_usd(Fraction(1), USD)
        return {
            "rails": [self._rail_json(rail, health.get(rail.name, Health(ok=True))) for rail in listed],
            "packs": [
                {"credits": offer, "usd_minor": amount_up(offer, par, self._price).minor}
                for offer in self._offers
            ],
        }

    def prices(
        self, rails: Iterable[Rail], health: Mapping[str, Health], usd_minor: int
    ) -> Sequence[tuple[str, Money]]:
        """What a price in US cents is now by each rail and asset that can be paid that much with, in their order."""
        found: list[tuple[str, Money]] = []
        for rail in sorted(rails, key=lambda rail: rail.capabilities.order):
            for asset in rail.capabilities.assets:
                spot = self._rates.spot(asset)
                if spot is None:
                    continue
                due = up_to_step(spot.rate.inverse().convert_up(Money(usd_minor, USD)), _step(rail, asset))
                least, most = rail.capabilities.minimum[asset.code], _most(rail, asset, health.get(rail.name))
                if least <= due.minor <= most:
                    found.append((rail.name, due))
        return found

    def credit_prices(
        self, rails: Iterable[Rail], health: Mapping[str, Health], credits_: int
    ) -> Sequence[CreditPrice]:
        """What so many credits cost now by each open rail and asset that so little, or much, can be paid with.

        By the same reckoning as the payment request that is opened for them.
        """
        found: list[CreditPrice] = []
        for rail in sorted(rails, key=lambda rail: rail.capabilities.order):
            if not health.get(rail.name, Health(ok=True)).ok:
                continue
            for asset in rail.capabilities.assets:
                spot = self._rates.spot(asset)
                if spot is None:
                    continue
                due = self._priced(rail, spot, credits_, None, None).amount_due
                least, most = rail.capabilities.minimum[asset.code], _most(rail, asset, health.get(rail.name))
                if least <= due.minor <= most:
                    found.append(
                        CreditPrice(
                            rail.name, due, isinstance(rail, Holds), rail.capabilities.payer_learns_secret
                        )
                    )
        return found

    def _rail_json(self, rail: Rail, health: Health) -> dict[str, Any]:
        capabilities = rail.capabilities
        priced = [asset for asset in capabilities.assets if self._rates.spot(asset) is not None]
        least = {asset: self._least(rail, asset, self._rates.spot(asset)) for asset in capabilities.assets}
        most = {asset: _most(rail, asset, health) for asset in capabilities.assets}
        takes = [asset for asset in priced if least[asset] <= most[asset]]
        reason = None if health.ok else UNREACHABLE
        if reason is None and not priced:
            reason = self._rates.why_not(capabilities.assets[0])
        if reason is None and not takes:
            reason = NOTHING_ARRIVES
        return {
            "name": rail.name,
            "label": capabilities.label,
            "assets": [
                {
                    "asset": asset.code,
                    "scale": asset.scale,
                    "minimum_minor": least[asset],
                    "maximum_minor": most[asset],
                    "open": asset in takes,
                }
                for asset in capabilities.assets
            ],
            "open": reason is None,
            "reason": reason,
            "quote_seconds": capabilities.quote_seconds,
            "tax_on_top": capabilities.tax_on_top,
        }


def _most(rail: Rail, asset: Asset, health: Health | None) -> int:
    """What the rail takes at most, or less if less can arrive now; in whole steps."""
    most = rail.capabilities.maximum[asset.code]
    receivable = None if health is None or health.receivable is None else health.receivable.get(asset.code)
    if receivable is None or receivable >= most:
        return most
    return receivable - receivable % _step(rail, asset)


def _step(rail: Rail, asset: Asset) -> int:
    """In the asset's minor units."""
    return rail.capabilities.asked_in.get(asset.code, 1)
