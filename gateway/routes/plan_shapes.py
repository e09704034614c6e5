"""What answers about plans, packs and passes look like."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.routes.shapes import MoneyOut, Shape


class PriceOut(MoneyOut):
    """What it costs at the moment by one rail in one of its assets."""

    rail: str


class ImagePriceOut(PriceOut):
    """What one image alone costs at the moment by one rail in one of its assets."""

    held: bool = Field(
        description="Whether the money is only held until the image is here, and goes back if it does not come."
    )


class PlanOut(Shape):
    """A plan; prices in US cents without tax."""

    name: str
    label: str
    price_usd_minor: int
    period: Literal["day", "month"]
    credits: int = Field(description="Per period.")
    rank: int
    priority: bool = False
    overage_limit: int = Field(
        default=0,
        description="Credits that may be used beyond a month that is subscribed to, and are billed with the next.",
    )
    overage_usd_minor: int = Field(default=0, description="US cents for each of them.")
    grace_seconds: int = 0
    year_usd_minor: int = Field(default=0, description="For twelve months at once; 0: not sold by the year.")
    prices: list[PriceOut] = Field(description="Of a month paid ahead, now, where that much can be paid.")
    year_prices: list[PriceOut] = Field(description="Of twelve months paid ahead.")


class PackOut(Shape):
    """Credits bought once; a pass ends soon."""

    name: str
    label: str
    price_usd_minor: int
    credits: int
    kind: Literal["pack", "pass"] = "pack"
    lasts_seconds: int | None = None
    prices: list[PriceOut] = Field(description="Now, where that much can be paid.")


class PlansOut(Shape):
    """Plans, packs and passes."""

    plans: list[PlanOut]
    packs: list[PackOut]
    image_prices: list[ImagePriceOut] = Field(
        description="Of one image alone, where so little can be paid; see `funding` of a generation."
    )
