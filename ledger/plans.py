"""Plans, packs and passes as data.

A plan brings credits once per period: per UTC day, or per period of the payment provider.
Prices are US cents without tax.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

import msgspec

FREE = "free"


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a subscription brings. The catalogue's version goes with it into events by name only."""

    name: str
    label: str
    price_usd_minor: int
    """US cents per period, without tax; 0 is free."""
    period: str
    """`day`: credits each UTC day; `month`: credits for each paid period of the provider."""
    credits: int
    """Credits per period."""
    rank: int
    """Changing to a higher rank is an upgrade."""
    priority: bool = False
    """Whether its jobs go before those of other plans."""
    overage_limit: int = 0
    """Credits per period that may be used beyond the allowance and billed; 0 is a hard cut-off."""
    overage_usd_minor: int = 0
    """US cents for each of them, without tax."""
    grace_seconds: int = 0
    """How long credits and plan outlive a paid period, so that a renewal has time to be paid."""
    year_usd_minor: int = 0
    """US cents for twelve months at once, without tax; 0: it is not sold by the year."""

    def sold_for(self, months: int) -> Plan:
        """The plan as a period of so many months brings it: a daily one each day, others all of it at its start."""
        price = self.price_usd_minor if months == 1 else self.year_usd_minor
        credits_ = self.credits if self.period == "day" else self.credits * months
        # What is used beyond is billed by the month: by the year it would be owed for too long.
        limit, each = (self.overage_limit, self.overage_usd_minor) if months == 1 else (0, 0)
        return msgspec.structs.replace(
            self, price_usd_minor=price, credits=credits_, overage_limit=limit, overage_usd_minor=each
        )

    def cut_off(self) -> Plan:
        """The plan where nobody bills what is used beyond it: it ends with its credits."""
        return msgspec.structs.replace(self, overage_limit=0, overage_usd_minor=0)


def label_of(name: str, plans: Mapping[str, Plan]) -> str:
    """What people call a plan; its name, if it is sold no more."""
    return plans[name].label if name in plans else name


class Pack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Credits bought once. A pass is a pack that ends soon."""

    name: str
    label: str
    price_usd_minor: int
    credits: int
    kind: str = "pack"
    """`pack` or `pass`."""
    lasts_seconds: int | None = None
    """None means the credits never expire."""


class Promotion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A code that people type where they pay by a rail that takes such codes: they pay less, and get as much."""

    code: str
    """What they type; capitals make no difference."""
    label: str
    """What the bill calls it."""
    percent_off: int = 0
    """Of the price; or else `off_usd_minor`."""
    off_usd_minor: int = 0
    """US cents off what is bought at once, without tax."""
    months: int = 1
    """Of a plan: how many months of invoices it counts for; 0: all of them. The first one always is."""
    plans: tuple[str, ...] = ()
    """For these plans alone, by their names; empty: for everything that is sold."""
    redemptions_max: int = 0
    """How often it can be used, by all together; 0: without a limit."""
    first_purchase: bool = False
    """For whoever has not paid before."""
    ends_at: datetime | None = None
    """From when on nobody can use it any more."""
    active: bool = True
    """False: nobody can use it now; who did keeps it."""


_DAY = 86_400

PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            Plan(name=FREE, label="Free", price_usd_minor=0, period="day", credits=20, rank=0),
            Plan(
                name="starter",
                label="Starter",
                price_usd_minor=800,
                period="month",
                credits=2_000,
                rank=1,
                grace_seconds=_DAY,
                year_usd_minor=8_000,
            ),
            Plan(
                name="pro",
                label="Pro",
                price_usd_minor=2_000,
                period="month",
                credits=8_000,
                rank=2,
                priority=True,
                grace_seconds=_DAY,
                year_usd_minor=20_000,
            ),
            Plan(
                name="unlimited",
                label="Unlimited",
                price_usd_minor=4_000,
                period="day",
                credits=1_000,
                rank=3,
                priority=True,
                grace_seconds=_DAY,
                year_usd_minor=40_000,
            ),
        )
    }
)
"""The plans by name."""

NO_PLANS: Mapping[str, Plan] = MappingProxyType(
    {FREE: Plan(name=FREE, label="No plan", price_usd_minor=0, period="month", credits=0, rank=0)}
)
"""For a ledger without plans: nothing is granted by itself."""

PACKS: Mapping[str, Pack] = MappingProxyType(
    {
        pack.name: pack
        for pack in (
            Pack(name="pack_100", label="100 images", price_usd_minor=100, credits=100),
            Pack(name="pack_500", label="500 images", price_usd_minor=500, credits=500),
            Pack(name="pack_2500", label="2,500 images", price_usd_minor=2_500, credits=2_500),
            Pack(
                name="session",
                label="Sketch session",
                price_usd_minor=50,
                credits=200,
                kind="pass",
                lasts_seconds=4 * 3_600,
            ),
            Pack(
                name="hour",
                label="One hour",
                price_usd_minor=100,
                credits=600,
                kind="pass",
                lasts_seconds=3_600,
            ),
        )
    }
)
"""Packs and passes by name."""
