"""How an account's movements are told to a person."""

from __future__ import annotations

from collections.abc import Mapping

from ledger.domain import events as e
from ledger.domain.movements import Movement
from ledger.log.model import Event

_GRANTS: Mapping[str, str] = {
    "payment": "Top-up",
    "pass": "Pass",
    "allowance": "Free images of the day",
    "subscription": "Plan credits",
    "promotion": "Gift",
    "adjustment": "Adjustment",
    "overage": "Use beyond the plan",
    "restored": "Payment came back",
}
_RELEASES: Mapping[str, str] = {
    "failed": "Image failed: not charged",
    "cancelled": "Cancelled: not charged",
    "superseded": "Replaced by a newer frame: not charged",
    "blocked": "Blocked: not charged",
}
_MOVEMENTS: Mapping[str, str] = {
    "held": "Reserved for an image",
    "captured": "Image delivered",
    "hold_expired": "Not painted in time: not charged",
    "lapsed": "Credits lapsed unused",
    "debt_incurred": "Owed: the payment was taken back",
    "debt_repaid": "Debt paid",
    "debt_forgiven": "Debt forgiven",
    "reversed": "Payment taken back",
    "refund_opened": "Refund under way",
    "refund_sent": "Refund sent",
    "refund_failed": "Refund failed: credits are back",
    "withdrawn": "Adjustment",
    "moved_out": "Moved to your account",
    "moved_in": "Moved from your guest account",
}


def describe(event: Event, movement: Movement) -> str:
    """A statement line in words."""
    match event:
        case e.CreditsGranted():
            return _GRANTS.get(event.source, "Credits granted")
        case e.HoldReleased():
            return _RELEASES.get(event.reason, "Released: not charged")
        case _:
            return _MOVEMENTS.get(movement.kind, movement.kind)
