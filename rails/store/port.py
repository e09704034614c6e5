"""The port to what the payment core keeps beside the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ledger.identifiers import PaymentId
from rails.contract import Hint, ReferenceBook


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReference:
    """A payment's place on its rail. `reference` is None until the way to pay is open."""

    payment_id: PaymentId
    rail: str
    ordinal: int
    reference: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInstructions:
    """How to pay, and what opening it again would need. `shown` is empty until it is open."""

    shown: Mapping[str, Any]
    return_url: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHint:
    """A verified hint that waits to be dealt with."""

    id: int
    rail: str
    reference: str | None
    tries: int
    received_at: datetime


class RailStore(ReferenceBook, Protocol):
    """Rows of `rails.tables`. Rows that belong to a transaction are written through the log, not here."""

    async def payment(self, payment_id: str) -> Mapping[str, Any] | None:
        """The row of `rail_payments`."""

    async def reference(self, payment_id: str) -> StoredReference | None:
        """The payment's place on its rail."""

    async def instructions(self, payment_id: str) -> StoredInstructions | None:
        """How to pay, if it has not been erased."""

    async def erase_instructions(self, payment_id: str) -> None:
        """Forget addresses, invoices and links. The reference stays."""

    async def find(self, rail: str, reference: str) -> PaymentId | None:
        """Whose reference this is."""

    async def attempts(self, root_id: str) -> Sequence[Mapping[str, Any]]:
        """Rows of `rail_payments` of one top-up, oldest first."""

    async def of_account(self, account_id: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """The account's payments, newest first."""

    async def count_unpaid(self, account_id: str) -> int:
        """How many ways to pay are open for an account."""

    async def watched(self, rail: str, now: datetime, after: str, limit: int) -> Sequence[PaymentId]:
        """Payments to ask about unbidden, in order of id, from just after `after`."""

    async def unpriced(self, rail: str, after: str, limit: int) -> Sequence[PaymentId]:
        """Payments with money that waits for a rate, in order of id."""

    async def overdue(self, rail: str, now: datetime, limit: int) -> Sequence[PaymentId]:
        """Unpaid payments whose quote has run out, in order of expiry."""

    async def cursor(self, rail: str) -> str | None:
        """Where to go on listening."""

    async def keep_cursor(self, rail: str, cursor: str) -> None:
        """Remember where to go on."""

    async def store_hint(self, rail: str, hint: Hint, now: datetime) -> bool:
        """Store a hint, once per `hint_id`. False if it was known."""

    async def due_hints(self, rail: str, now: datetime, limit: int) -> Sequence[StoredHint]:
        """Waiting hints whose time has come, oldest first."""

    async def next_due_at(self, rail: str) -> datetime | None:
        """When the next waiting hint is due."""

    async def close_hint(self, hint: int, state: str) -> None:
        """`done` or `unmatched`."""

    async def postpone_hint(self, hint: int, due_at: datetime, problem: str) -> None:
        """Try again later; counts the try."""

    async def waiting_hints(self, rail: str) -> int:
        """How many hints wait."""

    async def forget_hints(self, before: datetime, limit: int) -> int:
        """Delete hints that were dealt with before; returns how many."""
