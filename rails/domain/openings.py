"""Which payment requests of an account are open. Pure.

Each, and each open page to subscribe on, takes one of the account's places from the transaction that stores its intent until it is paid, cancelled or
expired, and never beyond the end of its quote: what is left behind by a crash frees its place by time alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ledger.log.model import SideTable, UnitOfWork


class NoPlaceLeft(Exception):
    """As many payment requests of the account are open as may. Nothing is recorded: the command may come again."""


class Openings(NamedTuple):
    """The places that an account's payments take, and until when. A row of `rail_openings`, or of
    `rail_link_openings` for what links have opened."""

    account_id: str
    until: Mapping[str, datetime]
    """By payment."""

    @classmethod
    def of(cls, account_id: str, row: Mapping[str, Any] | None, now: datetime) -> Openings:
        """Those that are open at `now`, out of the account's row."""
        kept = {} if row is None else row["open_until"]
        known = {payment_id: datetime.fromisoformat(until) for payment_id, until in kept.items()}
        return cls(account_id, {payment_id: until for payment_id, until in known.items() if until > now})

    def with_payment(self, row: Mapping[str, Any], now: datetime) -> Openings:
        """As they are with a payment whose row of `rail_payments` is this: only what is unpaid takes a place."""
        payment_id, until = row["payment_id"], row["quote_expires_at"]
        others = {other: end for other, end in self.until.items() if other != payment_id}
        takes = row["unpaid"] and until > now
        return Openings(self.account_id, {**others, payment_id: until} if takes else others)

    def to_row(self) -> dict[str, Any]:
        """Its row."""
        shown = {payment_id: until.isoformat() for payment_id, until in self.until.items()}
        return {"account_id": self.account_id, "open_until": shown}


def take_or_free(uow: UnitOfWork, table: SideTable, account_id: str, payment: Mapping[str, Any]) -> None:
    """Let a payment, by its row, take its place at the account that opened it (also after a merge), or free it.

    The transaction declares the account's row of `table`, which is where such places are kept.
    """
    before = uow.get(table, account_id)
    openings = Openings.of(account_id, before, uow.now).with_payment(payment, uow.now)
    if openings.until:
        uow.put(table, openings.to_row())
    elif before is not None:
        uow.delete(table, account_id)
