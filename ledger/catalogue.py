"""What is for sale, as data: the plans, packs and passes built in, or those of an operator's file.

The file is TOML: `[[plans]]`, `[[packs]]` and `[[promotions]]`, with the fields of `ledger.plans.Plan`, `Pack` and `Promotion`. What it names replaces
what is built in, but for the free plan, which everybody has. Who bought something has it as it was sold.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from ledger.plans import FREE, PACKS, PLANS, Pack, Plan, Promotion

BYTES_MAX = 100_000
PERCENT_OFF_MAX = 90
"""What is given away for nothing is an adjustment, with a name and a reason; a promotion leaves something to pay."""
_DAY = 86_400
_NAME = re.compile(r"[a-z0-9_]{1,40}")

Name = Annotated[str, Meta(pattern=f"^{_NAME.pattern}$")]
Label = Annotated[str, Meta(min_length=1, max_length=60)]
Cents = Annotated[int, Meta(ge=1, le=10_000_000)]
Credits = Annotated[int, Meta(ge=1, le=10_000_000)]


class CatalogueInvalid(ValueError):
    """The file is no catalogue. Its text says where, and never quotes what is there."""


class Catalogue(NamedTuple):
    """What is for sale, by name."""

    plans: Mapping[str, Plan]
    packs: Mapping[str, Pack]
    promotions: Mapping[str, Promotion] = MappingProxyType({})
    """By code."""


BUILT_IN = Catalogue(PLANS, PACKS)


class _Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    label: Label
    price_usd_minor: Cents
    credits: Credits


class _PlanRow(_Row, frozen=True, kw_only=True):
    period: Literal["day", "month"]
    rank: Annotated[int, Meta(ge=1, le=1_000)]
    priority: bool = False
    overage_limit: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    overage_usd_minor: Annotated[int, Meta(ge=0, le=10_000)] = 0
    grace_seconds: Annotated[int, Meta(ge=0, le=31 * _DAY)] = _DAY
    year_usd_minor: Annotated[int, Meta(ge=0, le=100_000_000)] = 0


class _PackRow(_Row, frozen=True, kw_only=True):
    kind: Literal["pack", "pass"] = "pack"
    lasts_seconds: Annotated[int, Meta(ge=60, le=366 * _DAY)] | None = None


class _PromotionRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: Annotated[str, Meta(pattern="^[A-Z0-9]{3,40}$")]
    label: Annotated[str, Meta(min_length=1, max_length=40)]
    percent_off: Annotated[int, Meta(ge=0, le=PERCENT_OFF_MAX)] = 0
    off_usd_minor: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    months: Annotated[int, Meta(ge=0, le=36)] = 1
    plans: tuple[Name, ...] = ()
    redemptions_max: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    first_purchase: bool = False
    ends_at: Annotated[datetime, Meta(tz=True)] | None = None
    active: bool = True


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    plans: Annotated[list[_PlanRow], Meta(max_length=20)]
    packs: Annotated[list[_PackRow], Meta(max_length=50)]
    promotions: Annotated[list[_PromotionRow], Meta(max_length=50)] = msgspec.field(default_factory=list)


def load_catalogue(path: str) -> Catalogue:
    """The catalogue of a file; what is built in for an empty path. Raises `CatalogueInvalid`, `OSError`."""
    if not path:
        return BUILT_IN
    with Path(path).open("rb") as file:
        return read_catalogue(file.read(BYTES_MAX + 1))


def read_catalogue(data: bytes) -> Catalogue:
    """The catalogue of a file's bytes. Raises `CatalogueInvalid`."""
    if len(data) > BYTES_MAX:
        raise CatalogueInvalid(f"it has more than {BYTES_MAX} bytes")
    try:
        found = msgspec.convert(tomllib.loads(data.decode()), _File)
    except UnicodeDecodeError:
        raise CatalogueInvalid("it is not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CatalogueInvalid(f"it is not TOML: {_place(str(error))}") from None
    except msgspec.ValidationError as error:
        raise CatalogueInvalid(str(error)) from None
    _require_sense(found)
    plans = {FREE: PLANS[FREE]} | {
        row.name: msgspec.convert(row, Plan, from_attributes=True) for row in found.plans
    }
    packs = {row.name: msgspec.convert(row, Pack, from_attributes=True) for row in found.packs}
    promotions = {row.code: msgspec.convert(row, Promotion, from_attributes=True) for row in found.promotions}
    return Catalogue(MappingProxyType(plans), MappingProxyType(packs), MappingProxyType(promotions))


def _require_sense(found: _File) -> None:
    names = Counter(row.name for row in (*found.plans, *found.packs))
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise CatalogueInvalid(f"the name {twice[0]} is there twice")
    if FREE in names:
        raise CatalogueInvalid(f"the plan {FREE} is built in and is not sold")
    ranks = Counter(plan.rank for plan in found.plans)
    if any(count > 1 for count in ranks.values()):
        raise CatalogueInvalid("two plans have the same rank: the higher one is the better plan")
    _require_overage(found)
    for pack in found.packs:
        if (pack.kind == "pass") != (pack.lasts_seconds is not None):
            raise CatalogueInvalid(f"{pack.name}: a pass has lasts_seconds, and a pack has none")
    _require_promotions(found)


def _require_overage(found: _File) -> None:
    prices = Counter(plan.overage_usd_minor for plan in found.plans if plan.overage_limit)
    if len(prices) > 1:
        raise CatalogueInvalid(
            "what is used beyond a plan costs the same with each: a change keeps its price"
        )
    for plan in found.plans:
        if (plan.overage_limit > 0) != (plan.overage_usd_minor > 0):
            raise CatalogueInvalid(f"{plan.name}: overage_limit and overage_usd_minor are there together")
        if plan.overage_limit and plan.period == "day":
            raise CatalogueInvalid(f"{plan.name}: overage_limit is for a plan by the month")


def _require_promotions(found: _File) -> None:
    codes = Counter(promotion.code for promotion in found.promotions)
    twice = sorted(code for code, count in codes.items() if count > 1)
    if twice:
        raise CatalogueInvalid(f"the promotion {twice[0]} is there twice")
    plans = {plan.name for plan in found.plans}
    for promotion in found.promotions:
        if (promotion.percent_off > 0) == (promotion.off_usd_minor > 0):
            raise CatalogueInvalid(
                f"{promotion.code}: it takes off percent_off or off_usd_minor, and not both"
            )
        unknown = sorted(set(promotion.plans) - plans)
        if unknown:
            raise CatalogueInvalid(f"{promotion.code}: there is no plan {unknown[0]}")


def _place(problem: str) -> str:
    """Where TOML broke off, without what stands there."""
    place = re.search(r"\(at [^)]*\)", problem)
    return place[0] if place else "it breaks off"
