"""The port to what the payment core keeps beside the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from ledger.identifiers import PaymentId
from rails.contract import Notification, ReferenceStore
from rails.domain.openings import Openings


class RetryTask(StrEnum):
    """What is tried again with a payment. Each waits for itself. Stored."""

    OBSERVE = "observe"
    """Ask what is so, and book what is new; money that waits for a rate is booked by this, too."""
    EXPIRE = "expire"
    """Close it: its quote has run out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReference:
    """A payment's place on its rail. `reference` is None until the payment request is open."""

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
class StoredNotification:
    """A verified notification that waits to be dealt with."""

    id: int
    rail: str
    reference: str | None
    attempts: int
    received_at: datetime


class TooManyWaiting(Exception):
    """As many notifications of a rail wait as may. This one was not stored."""


class RailStore(ReferenceStore, Protocol):
    """Rows of `rails.store.tables`. Rows that belong to a transaction are written through the log, not here."""

    async def payment(self, payment_id: str) -> Mapping[str, Any] | None:
        """The row of `rail_payments`."""

    async def reference(self, payment_id: str) -> StoredReference | None:
        """The payment's place on its rail."""

    async def instructions(self, payment_id: str) -> StoredInstructions | None:
        """How to pay, if it has not been erased."""

    async def method_of(self, payment_id: str) -> str | None:
        """The saved payment method that a payment is to be charged to."""

    async def find(self, rail: str, reference: str) -> PaymentId | None:
        """Whose reference this is."""

    async def attempts(self, root_id: str) -> Sequence[Mapping[str, Any]]:
        """Rows of `rail_payments` of one top-up, oldest first."""

    async def of_account(self, account_id: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """The payments of the account and of guests merged into it, newest first."""

    async def owns(self, account_id: str, owner: str) -> bool:
        """Whether `owner` is the account, or a guest merged into it."""

    async def openings(self, account_id: str, now: datetime, *, by_link: bool = False) -> Openings:
        """Which payment requests of an account are open, of its own or of links: as the next transaction that
        opens one would find it."""

    async def watched(self, rail: str, now: datetime, after: str, limit: int) -> Sequence[PaymentId]:
        """Payments to ask about unbidden, in order of id, from just after `after`."""

    async def unpriced(self, rail: str, now: datetime, after: str, limit: int) -> Sequence[PaymentId]:
        """Payments with money that waits for a rate, in order of id."""

    async def overdue(self, rail: str, now: datetime, after: str, limit: int) -> Sequence[PaymentId]:
        """Unpaid payments whose quote has run out, in order of id.

        Neither this one nor `watched` and `unpriced` give what is postponed beyond `now`.
        """

    async def postpone(
        self,
        payment_id: PaymentId,
        task: RetryTask,
        rail: str,
        due_at: datetime,
        attempts: int,
        problem: str,
    ) -> None:
        """This failed so many times in a row with this payment: leave it alone until then."""

    async def resume(self, payment_id: PaymentId, task: RetryTask) -> None:
        """It fails no more. What else failed with the payment goes on waiting."""

    async def postponed(self, task: RetryTask, payments: Sequence[PaymentId]) -> Mapping[str, int]:
        """Which of these failed when it was last tried, and how often in a row."""

    async def forget_retries(self, now: datetime, limit: int) -> int:
        """Delete what need not be tried again, because the payment has ended; returns how many."""

    async def keep_cursor(self, rail: str, cursor: str) -> None:
        """Remember where to go on."""

    async def store_notification(
        self, rail: str, notification: Notification, now: datetime, waiting_max: int | None = None
    ) -> bool:
        """Store a notification, once per `notification_id`. False if it was known.

        Raises `TooManyWaiting` if `waiting_max` of the rail wait, however many come at once.
        """

    async def due_notifications(self, rail: str, now: datetime, limit: int) -> Sequence[StoredNotification]:
        """Waiting notifications whose time has come, oldest first."""

    async def next_due_at(self, rail: str) -> datetime | None:
        """When the next waiting notification is due."""

    async def close_notification(self, notification: int, state: str) -> None:
        """`done`, or `unmatched`: about a payment of ours, and not dealt with. That one is never forgotten.

        What another process has dealt with stays done.
        """

    async def postpone_notification(self, notification: int, due_at: datetime, problem: str) -> None:
        """Try again later; counts the try."""

    async def forget_notifications(self, before: datetime, limit: int) -> int:
        """Delete notifications that were dealt with before; returns how many."""
