"""What answers about subscriptions look like."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.routes.shapes import MoneyOut, Shape


class PaymentDueOut(Shape):
    """Money that is missing, and how to pay it."""

    url: str | None = Field(description="Pay there with another card, or confirm with the bank.")
    next_attempt_at: str | None = Field(description="When it is collected again by itself.")


class RecurringOut(Shape):
    """A plan that a payment method charges again by itself, as of when that was last asked."""

    id: str
    rail: str
    status: Literal[
        "opening",
        "incomplete",
        "active",
        "trialing",
        "past_due",
        "unpaid",
        "paused",
        "ended",
        "expired",
    ]
    plan: str
    plan_label: str
    length: Literal["month", "year"]
    page_url: str | None = Field(description="Where to subscribe, while that page is open.")
    period_start: str | None
    period_end: str | None = Field(description="It renews or ends then.")
    cancels: bool = Field(description="It ends with its period.")
    next_plan: str | None = Field(description="What is charged for from the next period on.")
    next_length: Literal["month", "year"] | None
    pending_plan: str | None = Field(description="A change that waits for its payment.")
    pending_length: Literal["month", "year"] | None
    payment_due: PaymentDueOut | None
    opened_at: str


class SubscriptionsOut(Shape):
    """The newest subscriptions of an account, newest first."""

    subscriptions: list[RecurringOut]
    rails: list[str] = Field(description="Payment methods that can charge again by themselves.")


class ChangePreviewOut(Shape):
    """What a change of plan costs: now, and with the next period."""

    plan: str
    length: Literal["month", "year"]
    when: Literal["now", "period_end"]
    due_now: MoneyOut
    due_next: MoneyOut
    next_at: str = Field(
        description="When that is due: the end of the period, or of the one that begins now."
    )
    credits_now: int = Field(description="Images that it brings at once.")
    prorated_at: str = Field(description="Send it with the change: then exactly this is charged.")


class PortalOut(Shape):
    """A page of the payment provider, for a few minutes."""

    url: str
