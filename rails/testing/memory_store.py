"""The store in memory, over the rows of a `MemoryLog`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ledger.identifiers import PaymentId
from rails.contract import Hint, OpenReference
from rails.store import StoredHint, StoredInstructions, StoredReference

Rows = dict[tuple[str, str], dict[str, Any]]
"""`MemoryLog.tables`."""


@dataclass(slots=True)
class _HintRow:
    hint: StoredHint
    hint_id: str | None
    state: str
    due_at: datetime
    problem: str | None = None


class MemoryRailStore:
    """Implements `RailStore`. One event loop, no durability."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._cursors: dict[str, str] = {}
        self._hints: dict[int, _HintRow] = {}

    async def payment(self, payment_id: str) -> Mapping[str, Any] | None:
        """See `RailStore`."""
        return self._rows.get(("rail_payments", payment_id))

    async def reference(self, payment_id: str) -> StoredReference | None:
        """See `RailStore`."""
        row = self._rows.get(("rail_references", payment_id))
        return None if row is None else StoredReference(**row)

    async def instructions(self, payment_id: str) -> StoredInstructions | None:
        """See `RailStore`."""
        row = self._rows.get(("rail_instructions", payment_id))
        if row is None:
            return None
        return StoredInstructions(
            shown=row["instructions"], return_url=row["return_url"], description=row["description"]
        )

    async def erase_instructions(self, payment_id: str) -> None:
        """See `RailStore`."""
        self._rows.pop(("rail_instructions", payment_id), None)

    async def find(self, rail: str, reference: str) -> PaymentId | None:
        """See `RailStore`."""
        for row in self._table("rail_references"):
            if row["rail"] == rail and row["reference"] == reference:
                return PaymentId(row["payment_id"])
        return None

    async def all(self, rail: str) -> Sequence[OpenReference]:
        """See `ReferenceBook`."""
        rows = [r for r in self._table("rail_references") if r["rail"] == rail and r["reference"]]
        return [
            OpenReference(
                reference=r["reference"], payment_id=PaymentId(r["payment_id"]), ordinal=r["ordinal"]
            )
            for r in sorted(rows, key=lambda r: r["ordinal"])
        ]

    async def attempts(self, root_id: str) -> Sequence[Mapping[str, Any]]:
        """See `RailStore`."""
        return self._payments(lambda row: row["root_id"] == root_id, "opened_at")

    async def of_account(self, account_id: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """See `RailStore`."""
        return self._payments(lambda row: row["account_id"] == account_id, "opened_at")[::-1][:limit]

    async def count_unpaid(self, account_id: str) -> int:
        """See `RailStore`."""
        return len(
            self._payments(lambda row: row["account_id"] == account_id and row["unpaid"], "payment_id")
        )

    async def watched(self, rail: str, now: datetime, after: str, limit: int) -> Sequence[PaymentId]:
        """See `RailStore`."""
        return self._ids(
            lambda row: (
                row["rail"] == rail
                and row["watch_until"] is not None
                and row["watch_until"] >= now
                and row["payment_id"] > after
            ),
            "payment_id",
            limit,
        )

    async def unpriced(self, rail: str, after: str, limit: int) -> Sequence[PaymentId]:
        """See `RailStore`."""
        return self._ids(
            lambda row: row["rail"] == rail and row["unpriced"] and row["payment_id"] > after,
            "payment_id",
            limit,
        )

    async def overdue(self, rail: str, now: datetime, limit: int) -> Sequence[PaymentId]:
        """See `RailStore`."""
        return self._ids(
            lambda row: row["rail"] == rail and row["unpaid"] and row["quote_expires_at"] <= now,
            "quote_expires_at",
            limit,
        )

    async def cursor(self, rail: str) -> str | None:
        """See `RailStore`."""
        return self._cursors.get(rail)

    async def keep_cursor(self, rail: str, cursor: str) -> None:
        """See `RailStore`."""
        self._cursors[rail] = cursor

    async def store_hint(self, rail: str, hint: Hint, now: datetime) -> bool:
        """See `RailStore`."""
        if hint.hint_id is not None and any(
            row.hint.rail == rail and row.hint_id == hint.hint_id for row in self._hints.values()
        ):
            return False
        stored = StoredHint(
            id=len(self._hints) + 1, rail=rail, reference=hint.reference, tries=0, received_at=now
        )
        self._hints[stored.id] = _HintRow(hint=stored, hint_id=hint.hint_id, state="waiting", due_at=now)
        return True

    async def due_hints(self, rail: str, now: datetime, limit: int) -> Sequence[StoredHint]:
        """See `RailStore`."""
        due = [row for row in self._waiting(rail) if row.due_at <= now]
        return [row.hint for row in sorted(due, key=lambda row: (row.due_at, row.hint.id))[:limit]]

    async def next_due_at(self, rail: str) -> datetime | None:
        """See `RailStore`."""
        return min((row.due_at for row in self._waiting(rail)), default=None)

    async def close_hint(self, hint: int, state: str) -> None:
        """See `RailStore`."""
        self._hints[hint].state = state

    async def postpone_hint(self, hint: int, due_at: datetime, problem: str) -> None:
        """See `RailStore`."""
        row = self._hints[hint]
        old = row.hint
        row.hint = StoredHint(
            id=old.id,
            rail=old.rail,
            reference=old.reference,
            tries=old.tries + 1,
            received_at=old.received_at,
        )
        row.due_at, row.problem = due_at, problem

    async def waiting_hints(self, rail: str) -> int:
        """See `RailStore`."""
        return len(self._waiting(rail))

    async def forget_hints(self, before: datetime, limit: int) -> int:
        """See `RailStore`."""
        old = [i for i, row in self._hints.items() if row.state == "done" and row.hint.received_at < before]
        for hint in old[:limit]:
            self._hints[hint].state = "forgotten"
        return len(old[:limit])

    def _waiting(self, rail: str) -> list[_HintRow]:
        return [row for row in self._hints.values() if row.hint.rail == rail and row.state == "waiting"]

    def _table(self, name: str) -> list[dict[str, Any]]:
        return [row for (table, _), row in self._rows.items() if table == name]

    def _payments(self, wanted: Callable[[dict[str, Any]], bool], order: str) -> list[dict[str, Any]]:
        return sorted(
            (r for r in self._table("rail_payments") if wanted(r)), key=lambda r: (r[order], r["payment_id"])
        )

    def _ids(self, wanted: Callable[[dict[str, Any]], bool], order: str, limit: int) -> list[PaymentId]:
        return [PaymentId(row["payment_id"]) for row in self._payments(wanted, order)[:limit]]
