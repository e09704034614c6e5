"""What a payment may buy besides credits by the quote: a pack, a pass, or a period of a plan. Pure.

It is bought whole or not at all: the funds receipts of one payment together cover its price, or what came becomes
plain credits at the price of those. What is left over becomes plain credits too. Nothing that arrives is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ledger.domain.consideration import Worth
from ledger.money import USD, Money, Rate
from ledger.plans import Pack, Plan


class PackSold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="pack"):
    """A pack or a pass, with the price and all that it had when its payment was opened."""

    pack: Pack

    @property
    def months(self) -> None:
        """It is no period."""
        return None

    @property
    def name(self) -> str:
        """Its name in the catalogue."""
        return self.pack.name

    @property
    def label(self) -> str:
        """What people call it."""
        return self.pack.label

    @property
    def kind(self) -> str:
        """`pack` or `pass`."""
        return self.pack.kind

    @property
    def credits(self) -> int:
        """What it brings."""
        return self.pack.credits

    @property
    def price_usd_minor(self) -> int:
        """US cents."""
        return self.pack.price_usd_minor


class PlanSold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="plan"):
    """A period of a plan, paid once; nothing renews by itself."""

    plan: Plan
    """As it is sold for so many months: its price and its credits are those of the whole period."""
    months: int
    subscription_id: str

    @property
    def name(self) -> str:
        """Its name in the catalogue."""
        return self.plan.name

    @property
    def label(self) -> str:
        """What people call it."""
        return self.plan.label

    @property
    def kind(self) -> str:
        """`plan`."""
        return "plan"

    @property
    def credits(self) -> int:
        """What the period brings; 0 if its credits come by the day."""
        return 0 if self.plan.period == "day" else self.plan.credits

    @property
    def price_usd_minor(self) -> int:
        """US cents."""
        return self.plan.price_usd_minor


Purchase = PackSold | PlanSold


class Bought(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of a funds receipt for which a purchase was granted."""

    lot_id: str
    """Of the lot, or of the earning schedule, that all receipts of one purchase share."""
    minor: int
    """Of the receipt's amount."""
    credits: int
    """Of what the purchase brings."""
    worth: Worth


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Money that is there and stands for nothing yet."""

    money_ref: str
    minor: int
    """How much of the price it pays for."""
    rate: Rate
    in_time: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What of an arrival goes toward a purchase."""

    group: int
    """Arrivals of the same number buy one thing together: 0, 1, 2 …"""
    minor: int
    credits: int


def price_in(purchase: Purchase, rate: Rate) -> Money:
    """The least amount of the rate's asset that is worth the price."""
    return rate.inverse().convert_up(Money(purchase.price_usd_minor, USD))


def shares(
    purchase: Purchase, due: Money, arrivals: Sequence[Arrival], *, already_bought: bool
) -> Mapping[str, Share]:
    """Which arrivals buy the purchase, in their order. What is not named stands for plain credits, or waits.

    A period of a plan is bought once per payment; a pack as often as its whole price is there. Money in time counts
    toward the price as it was quoted, late money by its value now, and the two are not put together.
    """
    found: dict[str, Share] = {}
    most = 1 if isinstance(purchase, PlanSold) else len(arrivals)
    group = 0
    if isinstance(purchase, PlanSold) and already_bought:
        return found
    for in_time in (True, False):
        waiting = [arrival for arrival in arrivals if arrival.in_time == in_time]
        while waiting and group < most:
            price = due.minor if in_time else price_in(purchase, waiting[0].rate).minor
            if sum(arrival.minor for arrival in waiting) < price:
                break
            taken = _fill(purchase, price, waiting, group)
            found.update(taken)
            waiting = [arrival for arrival in waiting if arrival.money_ref not in taken]
            group += 1
    return found


def _fill(purchase: Purchase, price: int, waiting: Iterable[Arrival], group: int) -> dict[str, Share]:
    """Take from arrivals until the price is there; their credits sum to what the purchase brings."""
    taken: dict[str, Share] = {}
    filled = 0
    for arrival in waiting:
        if filled == price:
            break
        part = min(arrival.minor, price - filled)
        upto = purchase.credits * (filled + part) // price
        taken[arrival.money_ref] = Share(
            group=group, minor=part, credits=upto - purchase.credits * filled // price
        )
        filled += part
    return taken


def part_of(worth: Worth, minor: int, whole_minor: int) -> Worth:
    """The worth of the first `minor` of `whole_minor`; all of it for all of the money, and never less for more of it.

    The whole rounds down, and its parts add up to it: were each rounded by itself, a cent of what is taken back would
    be posted nowhere. So tax is its share of the whole, the fee its share of the rest, and net is what is left.
    """
    gross = worth.gross_minor * minor // whole_minor
    tax = _share(worth.tax_minor, gross, worth.gross_minor)
    fee = _share(worth.fee_minor, gross - tax, worth.earned_minor)
    usd_whole = worth.usd_minor + worth.tax_usd_minor
    usd = usd_whole * minor // whole_minor
    tax_usd = _share(worth.tax_usd_minor, usd, usd_whole)
    return Worth(gross - tax - fee, tax, fee, usd - tax_usd, tax_usd)


def _share(part: int, of: int, whole: int) -> int:
    return part * of // whole if whole else 0
