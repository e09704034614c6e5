"""What the same library does without us: its recorder fed in bulk, and its applications used as shown."""

from __future__ import annotations

import time
from typing import Any, ClassVar
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder

from ledger.log.recorder import open_datastore

BATCH_EVENTS = 1_000


def bare_recorder(url: str, seconds: float, number: int) -> dict[str, Any]:
    """The stock recorder, 1,000 events of our size per transaction; nothing is decided."""
    state = b'{"key":"cmd_01m82nk0000000000000000000","actor":"system:ledger","data":"' + b"x" * 320 + b'"}'
    with open_datastore(url) as datastore:
        recorder = PostgresApplicationRecorder(datastore, events_table_name=f"bare_events_{number}")
        recorder.create_table()
        began, events = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            rows = [
                StoredEvent(f"acct_{number}_{events + n}", 1, "ledger.credits_held.v1", state)
                for n in range(BATCH_EVENTS)
            ]
            recorder.insert_events(rows)
            events += BATCH_EVENTS
        taken = time.perf_counter() - began
    return {"cycles_per_second": events / 2 / taken, "events_per_transaction": BATCH_EVENTS, "errors": 0}


class NaiveAccount(Aggregate):
    """A credit account as the library's tutorial would write it: no lots, no outcomes, no chain."""

    @event("Opened")
    def __init__(self, amount: int) -> None:
        self.credits = amount
        self.holds: dict[str, int] = {}

    @event("Held")
    def hold(self, hold_id: str, amount: int) -> None:
        if amount > self.credits - sum(self.holds.values()):
            raise ValueError("insufficient credits")
        self.holds[hold_id] = amount

    @event("Captured")
    def capture(self, hold_id: str) -> None:
        self.credits -= self.holds.pop(hold_id)


class NaiveLedger(Application[UUID]):
    """Load, act, save: one command, one transaction."""

    snapshotting_intervals: ClassVar[dict[type, int]] = {}

    def open(self, amount: int) -> UUID:
        account = NaiveAccount(amount)
        self.save(account)
        return account.id

    def hold(self, account_id: UUID, hold_id: str) -> None:
        account: NaiveAccount = self.repository.get(account_id)
        account.hold(hold_id, 1)
        self.save(account)

    def capture(self, account_id: UUID, hold_id: str) -> None:
        account: NaiveAccount = self.repository.get(account_id)
        account.capture(hold_id)
        self.save(account)


def naive_library(url: str, seconds: float, number: int) -> dict[str, Any]:
    """One caller over 500 accounts; its concurrency would be ours to add."""
    env = {"PERSISTENCE_MODULE": "eventsourcing.postgres", **_address(url)}
    application = NaiveLedger(env=env)
    try:
        accounts = [application.open(1_000_000) for _ in range(500)]
        began, cycles = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            account, hold_id = accounts[cycles % len(accounts)], uuid4().hex
            application.hold(account, hold_id)
            application.capture(account, hold_id)
            cycles += 1
        taken = time.perf_counter() - began
    finally:
        application.close()
    return {"cycles_per_second": cycles / taken, "callers": 1, "errors": 0}


def _address(url: str) -> dict[str, str]:
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    return {
        "POSTGRES_DBNAME": parts.path.lstrip("/"),
        "POSTGRES_HOST": parts.hostname or "",
        "POSTGRES_PORT": str(parts.port),
        "POSTGRES_USER": unquote(parts.username or ""),
        "POSTGRES_PASSWORD": unquote(parts.password or ""),
    }
