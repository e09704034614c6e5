"""The store in memory, over the rows of a `MemoryLog`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ledger.identifiers import PaymentId
from rails.contract import Notification, OpenReference
from rails.domain.openings import Openings
from rails.store.port import (
    RetryTask,
    StoredInstructions,
    StoredNotification,
    StoredReference,
    TooManyWaiting,
)

Rows = dict[tuple[str, str], dict[str, Any]]
"""`MemoryLog.tables`."""


@dataclass(slots=True)
class _NotificationRow:
    notification: StoredNotification
    notification_id: str | None
    state: str
    due_at: datetime
    problem: str | None = None


class MemoryRailStore:
    """Implements `RailStore`. One event loop, no durability."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._cursors: dict[str, str] = {}
        self._notifications: dict[int, _NotificationRow] = {}
        self._stored = 0
        self._retries: dict[tuple[str, RetryTask], tuple[datetime, int]] = {}

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

    async def method_of(self, payment_id: str) -> str | None:
        """See `RailStore`."""
        row = self._rows.get(("rail_charges", payment_id))
        return None if row is None else str(row["method"])

    async def find(self, rail: str, reference: str) -> PaymentId | None:
        """See `RailStore`."""
        for row in self._table("rail_references"):
            if row["rail"] == rail and row["reference"] == reference:
                return PaymentId(row["payment_id"])
        return None

    async def all(self, rail: str) -> Sequence[OpenReference]:
        """See `ReferenceStore`."""
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

    async def owns(self, account_id: str, owner: str) -> bool:
        """See `RailStore`; nobody is merged here."""
        return account_id == owner

    async def openings(self, account_id: str, now: datetime, *, by_link: bool = False) -> Openings:
        """See `RailStore`."""
        table = "rail_link_openings" if by_link else "rail_openings"
        return Openings.of(account_id, self._rows.get((table, account_id)), now)

    async def watched(self, rail: str, now: datetime, after: str, limit: int) -> Sequence[PaymentId]:
        """See `RailStore`."""
        return self._ids(
            lambda row: (
                row["rail"] == rail
                and row["watch_until"] is not None
                and row["watch_until"] >= now
                and row["payment_id"] > after
                and self._ripe(row, now, RetryTask.OBSERVE)
            ),
            "payment_id",
            limit,
        )

    async def unpriced(self, rail: str, now: datetime, after: str, limit: int) -> Sequence[PaymentId]:
        """See `RailStore`."""
        return self._ids(
            lambda row: (
                row["rail"] == rail
                and row["unpriced"]
                and row["payment_id"] > after
                and self._ripe(row, now, RetryTask.OBSERVE)
            ),
            "payment_id",
            limit,
        )

    async def overdue(self, rail: str, now: datetime, after: str, limit: int) -> Sequence[PaymentId]:
        """See `RailStore`."""
        return self._ids(
            lambda row: (
                row["rail"] == rail
                and row["unpaid"]
                and row["quote_expires_at"] <= now
                and row["payment_id"] > after
                and self._ripe(row, now, RetryTask.EXPIRE)
            ),
            "payment_id",
            limit,
        )

    async def postpone(
        self,
        payment_id: PaymentId,
        task: RetryTask,
        rail: str,
        due_at: datetime,
        attempts: int,
        problem: str,
    ) -> None:
        """See `RailStore`."""
        self._retries[(payment_id, task)] = (due_at, attempts)

    async def resume(self, payment_id: PaymentId, task: RetryTask) -> None:
        """See `RailStore`."""
        self._retries.pop((payment_id, task), None)

    async def postponed(self, task: RetryTask, payments: Sequence[PaymentId]) -> Mapping[str, int]:
        """See `RailStore`."""
        return {
            payment_id: self._retries[(payment_id, task)][1]
            for payment_id in payments
            if (payment_id, task) in self._retries
        }

    async def forget_retries(self, now: datetime, limit: int) -> int:
        """See `RailStore`."""
        ended = [key for key in self._retries if not self._to_be_tried(*key, now)][:limit]
        for key in ended:
            del self._retries[key]
        return len(ended)

    def _to_be_tried(self, payment_id: str, task: RetryTask, now: datetime) -> bool:
        row = self._rows.get(("rail_payments", payment_id))
        if row is None or task is RetryTask.EXPIRE:
            return row is not None and row["unpaid"]
        return row["unpriced"] or (row["watch_until"] is not None and row["watch_until"] >= now)

    def _ripe(self, row: Mapping[str, Any], now: datetime, task: RetryTask) -> bool:
        retry = self._retries.get((row["payment_id"], task))
        return retry is None or retry[0] <= now

    async def cursor(self, rail: str) -> str | None:
        """See `RailStore`."""
        return self._cursors.get(rail)

    async def keep_cursor(self, rail: str, cursor: str) -> None:
        """See `RailStore`."""
        self._cursors[rail] = cursor

    async def store_notification(
        self, rail: str, notification: Notification, now: datetime, waiting_max: int | None = None
    ) -> bool:
        """See `RailStore`."""
        if waiting_max is not None and len(self._waiting(rail)) >= waiting_max:
            raise TooManyWaiting
        if notification.notification_id is not None and any(
            row.notification.rail == rail and row.notification_id == notification.notification_id
            for row in self._notifications.values()
        ):
            return False
        self._stored += 1
        stored = StoredNotification(
            id=self._stored,
            rail=rail,
            reference=notification.reference,
            attempts=0,
            received_at=now,
        )
        self._notifications[stored.id] = _NotificationRow(
            notification=stored, notification_id=notification.notification_id, state="waiting", due_at=now
        )
        return True

    async def due_notifications(self, rail: str, now: datetime, limit: int) -> Sequence[StoredNotification]:
        """See `RailStore`."""
        due = [row for row in self._waiting(rail) if row.due_at <= now]
        return [
            row.notification for row in sorted(due, key=lambda row: (row.due_at, row.notification.id))[:limit]
        ]

    async def next_due_at(self, rail: str) -> datetime | None:
        """See `RailStore`."""
        return min((row.due_at for row in self._waiting(rail)), default=None)

    async def close_notification(self, notification: int, state: str) -> None:
        """See `RailStore`."""
        if self._notifications[notification].state != "done":
            self._notifications[notification].state = state

    async def postpone_notification(self, notification: int, due_at: datetime, problem: str) -> None:
        """See `RailStore`."""
        row = self._notifications[notification]
        old = row.notification
        row.notification = StoredNotification(
            id=old.id,
            rail=old.rail,
            reference=old.reference,
            attempts=old.attempts + 1,
            received_at=old.received_at,
        )
        row.due_at, row.problem = due_at, problem

    async def forget_notifications(self, before: datetime, limit: int) -> int:
        """See `RailStore`."""
        old = [
            i
            for i, row in self._notifications.items()
            if row.state == "done" and row.notification.received_at < before
        ]
        for notification in old[:limit]:
            del self._notifications[notification]
        return len(old[:limit])

    def _waiting(self, rail: str) -> list[_NotificationRow]:
        return [
            row
            for row in self._notifications.values()
            if row.notification.rail == rail and row.state == "waiting"
        ]

    def _table(self, name: str) -> list[dict[str, Any]]:
        return [row for (table, _), row in self._rows.items() if table == name]

    def _payments(self, wanted: Callable[[dict[str, Any]], bool], order: str) -> list[dict[str, Any]]:
        return sorted(
            (r for r in self._table("rail_payments") if wanted(r)), key=lambda r: (r[order], r["payment_id"])
        )

    def _ids(self, wanted: Callable[[dict[str, Any]], bool], order: str, limit: int) -> list[PaymentId]:
        return [PaymentId(row["payment_id"]) for row in self._payments(wanted, order)[:limit]]
