"""What the operators' answers look like."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from gateway.routes.shapes import LotOut, MoneyOut, Shape, TopupOut


class PaymentRowOut(Shape):
    """A payment in a list."""

    payment_id: str
    account_id: str
    rail: str
    state: str
    amount_due: MoneyOut
    credits: int
    credited: int
    opened_at: str
    refunds: int = Field(description="How many were ever requested.")


class PaymentRowsOut(Shape):
    """Payments, newest first."""

    payments: list[PaymentRowOut]
    next_before: str | None = Field(
        description="Ask for what is `before` this for more; null on the last page."
    )


class LogEntryOut(Shape):
    """One event, as it was recorded."""

    position: int
    recorded_at: str
    event: str = Field(description="Its stored name.")
    actor: str
    data: dict[str, Any]


class RefundableOut(MoneyOut):
    """Unspent credits of a payment, and what can be sent back for them."""

    lot_id: str
    credits: int


class SuspendedOut(MoneyOut):
    """Money that waits for an operator, or for a rate."""

    payment_id: str
    account_id: str
    rail: str
    money_ref: str
    status: Literal["mismatched", "too_small", "unpriced"]
    first_seen_at: str
    going_back: bool = Field(description="A refund of it is under way.")


class PaymentDetailOut(Shape):
    """Everything about one payment."""

    topup: TopupOut
    account_id: str = Field(description="Whose it is now.")
    external_refs: list[str] = Field(description="By which it is found at the rail.")
    refund_to: Literal["origin", "invoice", "address"] | None
    refundable: list[RefundableOut]
    suspended: list[SuspendedOut]
    lots: list[LotOut] = Field(description="Of this payment, in the account.")
    events: list[LogEntryOut]


class DisputeOut(MoneyOut):
    """An open dispute."""

    payment_id: str
    account_id: str
    rail: str
    money_ref: str
    external_ref: str | None
    evidence_due_by: str | None = Field(description="Null where the rail does not say.")


class OpenRefundOut(Shape):
    """A refund that has not ended."""

    refund_id: str
    payment_id: str
    account_id: str
    rail: str
    by_hand: bool
    destination: str | None = Field(description="Where to, if it is sent by hand.")
    attempts: int
    last_problem: str | None


class DebtOut(Shape):
    """An account that owes credits."""

    account_id: str
    debt: int
    posted: int


class AdjustmentOut(Shape):
    """What an operator did to an account."""

    account_id: str
    at: str
    kind: str
    credits: int
    actor: str
    reason: str


class UnmatchedOut(Shape):
    """A notification about a payment of ours that could not be dealt with."""

    id: int
    rail: str
    payment_id: str | None
    received_at: str
    last_problem: str | None


class AttentionOut(Shape):
    """What waits for an operator, two hundred of each at most."""

    suspended: list[SuspendedOut]
    disputes: list[DisputeOut] = Field(description="The nearest deadline first.")
    refunds: list[OpenRefundOut]
    unmatched: list[UnmatchedOut]
    debts: list[DebtOut] = Field(description="The largest first.")
    adjustments: list[AdjustmentOut] = Field(description="The newest first.")


class AdjustedOut(Shape):
    """The account after what was done."""

    account_id: str
    available: int
    debt: int
    events: list[str] = Field(description="Stored names of what was recorded.")
