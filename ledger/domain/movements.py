"""How each event changes an account's balance: what a statement or a balance projection needs. Pure.

Adding up the movements of a stream gives credits posted and held and the debt as booked:
credits whose lot has expired count until `LotExpired` books their breakage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ledger.domain import events as e
from ledger.domain.consideration import total
from ledger.log.model import Event


class Movement(msgspec.Struct, frozen=True, gc=False):
    """One line of a statement, before running balances."""

    kind: str
    """`granted`, `held`, `captured`, `released`, `hold_expired`, `lapsed`, `reversed`, …"""
    credits: int
    """The credits the line is about; never negative."""
    posted: int
    """Change of the credits owned."""
    held: int
    """Change of the credits reserved."""
    debt: int = 0
    """Change of the debt."""
    reference_type: str = ""
    """`generation`, `topup`, `plan`, `adjustment`, `refund`, `account`, or empty."""
    reference_id: str = ""


def movement(event: Event) -> Movement | None:
    """The line of one event, or None if it changes no balance."""
    rule = _RULES.get(type(event))
    return None if rule is None else rule(event)


_REFERENCES = {
    "payment": "topup",
    "pass": "topup",
    "restored": "topup",
    "allowance": "plan",
    "subscription": "plan",
    "adjustment": "adjustment",
    "overage": "generation",
}


def _granted(event: e.CreditsGranted) -> Movement:
    kind = _REFERENCES.get(event.source, "")
    return Movement("granted", event.credits, event.credits, 0, 0, kind, event.reference)


def _held(event: e.CreditsHeld) -> Movement:
    return Movement("held", event.credits, 0, event.credits, 0, "generation", event.job_id)


def _captured(event: e.HoldCaptured) -> Movement:
    revoked = total(event.revoked)
    let_go = total(event.slices) + total(event.returned) + revoked
    return Movement(
        "captured", event.credits, -event.credits - revoked, -let_go, 0, "generation", event.job_id
    )


def _released(event: e.HoldReleased) -> Movement:
    return Movement(
        "released", event.credits, -total(event.revoked), -event.credits, 0, "generation", event.job_id
    )


def _expired(event: e.HoldExpired) -> Movement:
    return Movement(
        "hold_expired", event.credits, -total(event.revoked), -event.credits, 0, "generation", event.job_id
    )


def _lapsed(event: e.LotExpired) -> Movement:
    return Movement("lapsed", event.expired.credits, -event.expired.credits, 0)


def _debt_incurred(event: e.DebtIncurred) -> Movement:
    return Movement("debt_incurred", event.credits, 0, 0, event.credits)


def _debt_repaid(event: e.DebtRepaid) -> Movement:
    return Movement("debt_repaid", event.credits, -event.credits, 0, -event.credits)


def _debt_forgiven(event: e.DebtForgiven) -> Movement:
    return Movement("debt_forgiven", event.credits, 0, 0, -event.credits, "adjustment")


def _reversed(event: e.CreditsReversed) -> Movement:
    left = 0 if event.left is None else event.left.credits
    return Movement("reversed", event.credits, -left, 0, 0, "topup", event.payment_id)


def _refund_opened(event: e.RefundOpened) -> Movement:
    return Movement("refund_opened", event.held.credits, 0, event.held.credits, 0, "refund", event.refund_id)


def _refund_sent(event: e.RefundSent) -> Movement:
    credits_ = total(event.slices)
    return Movement("refund_sent", credits_, -credits_, -credits_, 0, "refund", event.refund_id)


def _refund_failed(event: e.RefundFailed) -> Movement:
    revoked = total(event.revoked)
    credits_ = total(event.returned) + revoked
    return Movement("refund_failed", credits_, -revoked, -credits_, 0, "refund", event.refund_id)


def _withdrawn(event: e.CreditsWithdrawn) -> Movement:
    return Movement("withdrawn", event.credits, -event.credits, 0, 0, "adjustment", event.adjustment_id)


def _moved_out(event: e.CreditsMovedOut) -> Movement | None:
    if not event.credits:
        return None
    return Movement("moved_out", event.credits, -event.credits, 0, 0, "account", event.to_account)


def _moved_in(event: e.CreditsMovedIn) -> Movement | None:
    if not event.credits:
        return None
    return Movement("moved_in", event.credits, event.credits, 0, 0, "account", event.from_account)


_RULES: dict[type[Event], Callable[[Any], Movement | None]] = {
    e.CreditsGranted: _granted,
    e.CreditsHeld: _held,
    e.HoldCaptured: _captured,
    e.HoldReleased: _released,
    e.HoldExpired: _expired,
    e.LotExpired: _lapsed,
    e.DebtIncurred: _debt_incurred,
    e.DebtRepaid: _debt_repaid,
    e.DebtForgiven: _debt_forgiven,
    e.CreditsReversed: _reversed,
    e.RefundOpened: _refund_opened,
    e.RefundSent: _refund_sent,
    e.RefundFailed: _refund_failed,
    e.CreditsWithdrawn: _withdrawn,
    e.CreditsMovedOut: _moved_out,
    e.CreditsMovedIn: _moved_in,
}
