"""Which payment requests of an account are open. Pure.

Each takes one of the account's places from the transaction that stores its intent until it is paid, cancelled or
expired, and never beyond the end of its quote: what is left behind by a crash frees its place by time alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from rails.domain.state import Payment
from rails.domain.topup import is_unpaid


class NoPlaceLeft(Exception):
    """As many payment requests of the account are open as may. Nothing is recorded: the command may come again."""


class Openings(NamedTuple):
    """The places that an account's payments take, and until when. A row of `rail_openings`."""

    account_id: str
    until: Mapping[str, datetime]
    """By payment."""

    @classmethod
    def of(cls, account_id: str, row: Mapping[str, Any] | None, now: datetime) -> Openings:
        """Those that are open at `now`, out of the account's row."""
        kept = {} if row is None else row["open_until"]
        known = {payment_id: datetime.fromisoformat(until) for payment_id, until in kept.items()}
        return cls(account_id, {payment_id: until for payment_id, until in known.items() if until > now})

    def with_payment(self, payment_id: str, payment: Payment, now: datetime) -> Openings:
        """As they are with this payment in its present state: only what may still be paid takes a place."""
        others = {other: until for other, until in self.until.items() if other != payment_id}
        until = payment.facts().quote_expires_at
        takes = is_unpaid(payment) and until > now
        return Openings(self.account_id, {**others, payment_id: until} if takes else others)

    def to_row(self) -> dict[str, Any]:
        """The row of `rail_openings`."""
        shown = {payment_id: until.isoformat() for payment_id, until in self.until.items()}
        return {"account_id": self.account_id, "open_until": shown}
