"""What is sent and answered about images."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.routes.shapes import Shape, TopupOut

PROMPT_MAX = 2_000
SEED_MAX = 2**53 - 1
CAP_MAX = 100_000
SESSION_ID = r"^[A-Za-z0-9_-]{1,64}$"


class SketchIn(BaseModel):
    """A drawing on which something can be seen: PNG, JPEG or WebP, at most 4 MB and 4096 × 4096 pixels."""

    model_config = ConfigDict(strict=True, extra="forbid")
    content_type: str = Field(
        max_length=64,
        description="What it is said to be. What it is, is read from its bytes.",
        examples=["image/png"],
    )
    data: str = Field(
        description="Base64: plain or URL-safe, with or without padding, wrapped, or as a data URL."
    )


class FundingIn(BaseModel):
    """A payment for one image alone."""

    model_config = ConfigDict(strict=True, extra="forbid")
    rail: str = Field(pattern=r"^[a-z0-9_-]{1,32}$", examples=["lightning"])
    pay_asset: str | None = Field(
        default=None, pattern=r"^[A-Z0-9-]{1,12}$", description="The rail's first if left out."
    )

    @property
    def method(self) -> str:
        """As `PaymentFunding` reads it."""
        return self.rail if self.pay_asset is None else f"{self.rail}/{self.pay_asset}"


class GenerationIn(BaseModel):
    """What to paint."""

    model_config = ConfigDict(strict=True, extra="forbid")
    prompt: str = Field(
        min_length=1,
        max_length=PROMPT_MAX,
        pattern=r"^[^\x00]*$",
        examples=["a watercolour llama at sunset"],
    )
    sketch: SketchIn
    seed: int | None = Field(
        default=None,
        ge=0,
        le=SEED_MAX,
        description="The same inputs and seed give the same picture. Without one we choose it, and tell which.",
    )
    strength: float | None = Field(
        default=None, ge=0, le=1, description="How closely the lines are kept; 0.6 if left out."
    )
    live: bool = Field(
        default=False, description="A frame of a live session: only the newest waiting one is painted."
    )
    session_id: str | None = Field(
        default=None, pattern=SESSION_ID, description="Of a live session; you choose it."
    )
    seq: int | None = Field(
        default=None, ge=0, le=SEED_MAX, description="The frame's number; an older one is out of order."
    )
    variation: bool = Field(
        default=False, description="A picture beside a session's frames, at lower priority; 16 per session."
    )
    session_cap: int | None = Field(
        default=None,
        ge=1,
        le=CAP_MAX,
        description="Your own spending limit for this session, in credits: set or lowered; PATCH raises it.",
    )
    funding: FundingIn | None = Field(
        default=None, description="Pay for this image alone, instead of with credits."
    )


class EtaOut(Shape):
    """Between how many seconds from now the image should be there."""

    low: int
    high: int


class GenerationOut(Shape):
    """A generation as accepted."""

    id: str
    state: str
    price_credits: int
    seed: int | None = Field(
        description="With which it is painted, also if we chose it; null once it was erased."
    )
    position: int | None
    eta_seconds: EtaOut | None
    workers: int | None = Field(
        default=None,
        description="While it waits: workers at hand that can make it. 0: nobody can at the moment.",
    )
    topup: TopupOut | None = Field(
        default=None,
        description="The payment for this image alone, where one was asked for: how to pay, and what became of it.",
    )


class CreditsOut(Shape):
    """What it holds or has cost."""

    held: int
    captured: int


class GenerationStateOut(GenerationOut):
    """A generation and where it stands."""

    expires_at: str | None = Field(
        description="Until when it can be paid for, and once it is in line, painted; then it ends, and nothing is "
        "charged. Null once it has ended."
    )
    image_url: str | None
    thumbnail_url: str | None
    credits: CreditsOut
    reason: str | None = Field(
        description="Why it did not come, as a short code; for `superseded` the newer one."
    )
    message: str | None = Field(description="The same for a person.")


class GenerationsOut(Shape):
    """The newest images that have not ended, newest first."""

    generations: list[GenerationStateOut]


class ProgressOut(Shape):
    """Where a waiting job stands, or how far a running one is; true for the moment only."""

    # It comes by Redis, perhaps from a process of a newer version that knows more.
    model_config = ConfigDict(extra="ignore")
    id: str
    state: Literal["queued", "running"]
    position: int | None = None
    eta_seconds: EtaOut | None = None
    workers: int | None = Field(default=None, description="As of a generation.")
    value: int | None = Field(default=None, description="Steps done.")
    max: int | None = Field(default=None, description="Steps to do.")
    preview: str | None = Field(default=None, description="A data URL of a small JPEG.")
