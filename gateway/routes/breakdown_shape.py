"""How an amount that was paid came about, as the API says it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class BreakdownOut(BaseModel):
    """Price, discount and tax of an amount, in its minor units: price − discount + tax on top is the amount."""

    model_config = ConfigDict(extra="forbid")
    price_minor: int = Field(
        description="What was asked, before a discount and without tax on top; tax within it included."
    )
    discount_minor: int = Field(description="What a promotion code took off.")
    tax_minor: int = Field(description="All tax in the amount.")
    tax_on_top_minor: int = Field(description="Of the tax, what came on top of the price; 0 if it is within.")
    net_minor: int = Field(description="The amount without tax.")
