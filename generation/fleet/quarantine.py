"""Which workers get no more work, on what evidence, and how they come back.

A failed attempt is evidence against its worker only as far as nobody else can be its cause: neither our own
store (`FailureKind.SERVICE`), nor one job however often it is tried, nor one account whatever it sends. So a
worker is quarantined when attempts of `ACCOUNTS_MIN` different accounts have failed on it and it delivered
nothing in between. A quarantined worker is asked to test itself, later each time it comes to that again, and
works again as soon as it passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from generation.domain.reasons import Reason
from generation.store.tables import worker_failures, workers
from ledger.clock import Clock
from ledger.identifiers import AccountId, JobId

ACCOUNTS_MIN: Final = 3
"""Accounts whose jobs must have failed on a worker since its last image."""
NO_EVIDENCE: Final = frozenset({Reason.BLANK_IMAGE.value})
"""Codes of failures that a prompt or a sketch can cause on any worker."""
FIRST_WAIT: Final = timedelta(minutes=1)
LONGEST_WAIT: Final = timedelta(hours=1)

_mine = worker_failures.c.worker_id == workers.c.worker_id
_accounts = (
    sa.select(sa.func.count(sa.distinct(worker_failures.c.account_id)))
    .where(_mine)
    .correlate(workers)
    .scalar_subquery()
)


def failed_accounts() -> sa.ColumnElement[int]:
    """Column of a query on `workers`: of how many accounts jobs failed on it since its last image."""
    return _accounts.label("failed_accounts")


class Quarantine:
    """Keeps the evidence. `changed` is called when a worker's state may have changed here."""

    def __init__(self, engine: AsyncEngine, clock: Clock, changed: Callable[[], None]) -> None:
        self._engine = engine
        self._clock = clock
        self._changed = changed

    async def note_failure(self, worker_id: str, job_id: JobId, account_id: AccountId, code: str) -> None:
        """An attempt failed that nobody but the worker seems to blame for. May quarantine it."""
        if code in NO_EVIDENCE:
            return
        now = self._clock()
        row = {"worker_id": worker_id, "job_id": job_id, "account_id": account_id}
        async with self._engine.begin() as connection:
            row_of_worker = await _locked(connection, worker_id)
            await connection.execute(
                insert(worker_failures).values(**row, code=code, failed_at=now).on_conflict_do_nothing()
            )
            tests = 0 if row_of_worker is None else row_of_worker.self_tests
            await connection.execute(
                sa.update(workers)
                .where(workers.c.worker_id == worker_id, workers.c.state == "active")
                .where(_accounts >= ACCOUNTS_MIN)
                .values(state="quarantined", self_test_at=now + wait_before(tests), self_tests=tests + 1)
            )
        self._changed()

    async def forgive(self, job_id: JobId) -> None:
        """What was blamed on workers was the job's own."""
        blamed_workers = sa.select(worker_failures.c.worker_id).where(worker_failures.c.job_id == job_id)
        async with self._engine.begin() as connection:
            await lock(connection, workers.c.worker_id.in_(blamed_workers))
            blamed = sa.delete(worker_failures).where(worker_failures.c.job_id == job_id)
            found = await connection.execute(blamed.returning(worker_failures.c.worker_id))
            await connection.execute(
                sa.update(workers)
                .where(workers.c.worker_id.in_(found.scalars().all()))
                .where(workers.c.state == "quarantined", _accounts < ACCOUNTS_MIN)
                .values(state="active", self_test_at=None)
            )
        self._changed()

    async def self_tested(self, worker_id: str, *, passed: bool) -> str:
        """A worker that was asked to test itself has done so. Returns its state; early or unasked, nothing changes."""
        now = self._clock()
        async with self._engine.begin() as connection:
            row = await _locked(connection, worker_id)
            if row is None:
                return "gone"
            if row.state != "quarantined" or row.self_test_at is None or row.self_test_at > now:
                return str(row.state)
            mine = workers.c.worker_id == worker_id
            if passed:
                await _acquit(connection, [worker_id])
                change: dict[str, Any] = {"state": "active", "self_test_at": None}
            else:
                waited = wait_before(row.self_tests)
                change = {"self_test_at": now + waited, "self_tests": row.self_tests + 1}
            await connection.execute(sa.update(workers).where(mine).values(**change))
        self._changed()
        return "active" if passed else "quarantined"


def wait_before(self_tests: int) -> timedelta:
    """How long a worker waits before its next self-test, after so many since its last image."""
    return min(LONGEST_WAIT, FIRST_WAIT * (1 << min(self_tests, 10)))


async def clear(connection: AsyncConnection, worker_ids: Iterable[str]) -> None:
    """These workers have delivered: what spoke against them before counts no more."""
    names = list(worker_ids)
    await lock(connection, workers.c.worker_id.in_(names))
    await _acquit(connection, names)
    tested = sa.and_(workers.c.worker_id.in_(names), workers.c.self_tests > 0)
    await connection.execute(sa.update(workers).where(tested).values(self_tests=0))


async def lock(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> None:
    """Lock these workers in the order of their ids, as everybody does who changes more than one.

    Before the evidence is changed: whoever adds to it meanwhile decides on what is then left.
    """
    query = sa.select(workers.c.worker_id).where(which).order_by(workers.c.worker_id)
    await connection.execute(query.with_for_update())


def due(self_test_at: datetime | None, now: datetime) -> timedelta | None:
    """How long until a quarantined worker should test itself; None if it never is asked to."""
    return None if self_test_at is None else max(timedelta(0), self_test_at - now)


async def _acquit(connection: AsyncConnection, worker_ids: list[str]) -> None:
    await connection.execute(sa.delete(worker_failures).where(worker_failures.c.worker_id.in_(worker_ids)))


async def _locked(connection: AsyncConnection, worker_id: str) -> Any | None:
    query = sa.select(workers.c.state, workers.c.self_tests, workers.c.self_test_at)
    found = await connection.execute(query.where(workers.c.worker_id == worker_id).with_for_update())
    return found.one_or_none()
