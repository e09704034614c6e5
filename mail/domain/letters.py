"""The letters that there are, as data: what each template is filled with. No personal data and no secrets.

A letter is kept in the outbox until it is sent, so its fields only grow: a new one has a default.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, TypeAlias

import msgspec


class Letter(msgspec.Struct, frozen=True, kw_only=True, tag_field="template"):
    """What every letter has."""

    optional: ClassVar[bool] = False
    """Whether people may turn it off. What somebody must know, or has just asked for, is sent to everybody."""


class Receipt(Letter, frozen=True, kw_only=True, tag="receipt"):
    """A payment has arrived, and its credits are there."""

    optional: ClassVar[bool] = True
    payment_id: str
    amount_minor: int
    """What was paid, tax included, in minor units of the asset."""
    tax_minor: int
    """The tax in it, in minor units of the asset."""
    asset: str
    """Code of the asset."""
    usd_minor: int
    """What it was worth when it arrived, in US cents, rounded down."""
    credits: int
    """Credits that it brought as a lot; 0 where they come by the day."""
    rail: str
    paid_at: datetime
    label: str = ""
    """What was bought, where it is not plain credits: `Pro`."""
    until: datetime | None = None
    """The end of the period that was paid for."""
    price_minor: int = 0
    """What was asked for, before a discount and without tax on top of it; 0 in letters from before this was kept."""
    discount_minor: int = 0
    """What a promotion code took off the price."""
    tax_on_top_minor: int = 0
    """Of the tax, what came on top of the price."""

    @property
    def net_minor(self) -> int:
        """What was paid, without tax."""
        return self.amount_minor - self.tax_minor


class RefundSent(Letter, frozen=True, kw_only=True, tag="refund_sent"):
    """Money was sent back."""

    refund_id: str
    amount_minor: int
    """What was sent, in minor units of the asset."""
    asset: str
    credits: int
    """Credits that went with it."""
    rail: str
    sent_at: datetime


class RefundFailed(Letter, frozen=True, kw_only=True, tag="refund_failed"):
    """Money could not be sent back; its credits are there again."""

    refund_id: str
    credits: int
    """Credits that are back."""


class PaymentFailed(Letter, frozen=True, kw_only=True, tag="payment_failed"):
    """A renewal was not paid. Where it can be put right is asked when the letter is sent."""

    subscription_id: str
    plan_label: str
    next_attempt_at: datetime | None = None
    """When it is tried again without anybody's doing."""


class RenewalAhead(Letter, frozen=True, kw_only=True, tag="renewal_ahead"):
    """A plan is about to be charged again by itself."""

    optional: ClassVar[bool] = True
    subscription_id: str
    plan_label: str
    length: str
    """`month` or `year`."""
    renews_at: datetime


class SignInLink(Letter, frozen=True, kw_only=True, tag="sign_in_link"):
    """Somebody asked for a link to sign in. The link itself is a secret, and made when the letter is written."""

    link_id: str
    expires_at: datetime
    """When the link, and so the letter, is worth nothing any more."""


class PlanEnds(Letter, frozen=True, kw_only=True, tag="plan_ends"):
    """A plan that was paid ahead ends soon, and nothing renews it."""

    optional: ClassVar[bool] = True
    plan: str
    """Its name in the catalogue."""
    label: str
    ends_at: datetime


class UsageReached(Letter, frozen=True, kw_only=True, tag="usage_reached"):
    """So much of a paid period's images is used."""

    optional: ClassVar[bool] = True
    plan_label: str
    percent: int
    """80 or 100."""
    used: int
    granted: int
    """Of the period, in credits."""
    ends_at: datetime
    """When the next period begins, if it is paid."""
    overage_left: int = 0
    """Credits that may be used beyond it, and are billed; 0: it ends there."""
    overage_usd_minor: int = 0
    """US cents for each of them."""


class AutoTopupWaits(Letter, frozen=True, kw_only=True, tag="auto_topup_waits"):
    """An automatic top-up was wanted and did not happen."""

    reason: str
    """`declined`: it is tried again; `confirm`: the bank wants its customer; `limit`: no more this month."""
    label: str
    amount_minor: int
    """Its price, in US cents."""
    limit_minor: int
    """US cents in a UTC month."""
    method_label: str
    """Such as `Visa •••• 4242`."""
    next_attempt_at: datetime | None = None


class AutoTopupOff(Letter, frozen=True, kw_only=True, tag="auto_topup_off"):
    """Automatic top-up was turned off, and not by its owner."""

    reason: str
    """`declined`, `card_removed`, `card_expired`, `disputed`, `refunded` or `price_changed`."""
    label: str


AnyLetter: TypeAlias = (
    Receipt
    | RefundSent
    | RefundFailed
    | PaymentFailed
    | RenewalAhead
    | SignInLink
    | PlanEnds
    | UsageReached
    | AutoTopupWaits
    | AutoTopupOff
)
"""Every letter."""


def name_of(letter: AnyLetter) -> str:
    """The letter's name: of its template, and in the outbox."""
    return str(letter.__struct_config__.tag)
