"""Live sketch sessions as a whole: limit, pause, resume. The rules are in `generation.domain.sessions`.

Nothing of a paused session is dispatched or held: what waits is cancelled within the call that pauses,
and whatever comes back to the queue later (its worker died) by the next sweep.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from generation.domain.commands import StopPausedJob
from generation.domain.errors import NotWaiting, QueueFull
from generation.domain.requests import session_key
from generation.domain.sessions import (
    RACES_MAX,
    LiveSession,
    SessionChange,
    SessionLimits,
    SessionMoved,
    SessionView,
    changed,
    continued,
    uncharged,
    view_of,
)
from generation.domain.states import JobState
from generation.jobs.metrics import Metrics
from generation.jobs.recording import give_way, record, rows_of, session_of, situation
from generation.jobs.usage_reversal import UsageReversals
from generation.queueing.queue import JobQueue
from generation.store.tables import QUEUE, SESSIONS
from ledger.identifiers import AccountId, CommandKey, JobId
from ledger.log.model import LogWriter, Transaction, UnitOfWork


class LiveSessions:
    """What a person can do with a session as a whole. `session_id` is the digest that jobs carry."""

    def __init__(
        self,
        *,
        log: LogWriter,
        queue: JobQueue,
        returns: UsageReversals,
        limits: SessionLimits,
        metrics: Metrics,
    ) -> None:
        self._log = log
        self._queue = queue
        self._returns = returns
        self._limits = limits
        self._metrics = metrics
        self._logger = structlog.get_logger("generation.jobs.live")

    async def look(self, account_id: AccountId, session_id: str, earlier: Sequence[str] = ()) -> SessionView:
        """How a session is; one that was never used has spent nothing. Changes nothing: until the account uses
        it, what a guest has begun is shown as the guest left it (`earlier` as for `bring_along`).
        """
        session = await self._queue.session(session_key(account_id, session_id))
        if session is None and earlier:
            session = await self._queue.newest_session(earlier)
        return view_of(session, self._limits)

    async def bring_along(
        self, key: CommandKey, account_id: AccountId, session_id: str, earlier: Sequence[str]
    ) -> None:
        """Let a session that a guest began go on as this account's: with its limit, with what it has spent, and with
        its jobs, which are this session's from then on. So a newer frame replaces the guest's, and a pause stops it.

        `earlier` are the names of the rows that it may have had. Raises `QueueFull` if it changed each time.
        """
        name = session_key(account_id, session_id)
        if not earlier:
            return
        for attempt in range(RACES_MAX):
            begun = await self._begun(name, earlier)
            if begun is None:
                return
            transaction = await self._continuing(CommandKey(f"{key}:{attempt}"), account_id, name, begun)
            with contextlib.suppress(SessionMoved):
                receipt = await self._log.submit(transaction)
                if receipt.result and not receipt.replayed:
                    self._metrics.ended(JobState.SUPERSEDED.value)
        raise QueueFull

    async def _begun(self, name: str, earlier: Sequence[str]) -> LiveSession | None:
        """The next one that is not part of the session `name`; of one that the account uses only jobs are missing."""
        if await self._queue.session(name) is None:
            return await self._queue.newest_session(earlier)
        return await self._queue.unfinished_session(earlier)

    async def _continuing(
        self, key: CommandKey, account_id: AccountId, name: str, begun: LiveSession
    ) -> Transaction:
        jobs = await self._queue.jobs_of_session(begun.session_id)
        rows = [(SESSIONS, name), (SESSIONS, begun.session_id)]
        rows += [row for job in jobs for row in rows_of(*job)]
        return Transaction(
            key=key,
            actor=account_id,
            body=["bring_session", name, begun.session_id],
            streams=sorted({part for job in jobs for part in job}),
            rows=list(dict.fromkeys(rows)),
            decide=lambda uow: _continue(uow, name, begun, [job.job_id for job in jobs]),
        )

    async def change(
        self, key: CommandKey, account_id: AccountId, session_id: str, change: SessionChange
    ) -> SessionView:
        """Limit, pause or resume. When a pause is answered nothing of the session waits or is held,
        but for what is being made.

        Raises `SessionSpendCapReached` if it is to go on but has nothing left to spend.
        """
        name = session_key(account_id, session_id)

        def decide(uow: UnitOfWork) -> None:
            session = session_of(uow, name) or LiveSession(session_id=name, updated_at=uow.now)
            uow.put(SESSIONS, changed(session, change, self._limits, uow.now).to_row())

        await self._log.submit(
            Transaction(
                key=key,
                actor=account_id,
                body=["change_session", name, change.paused, change.cap_credits, change.uncap],
                streams=(),
                rows=((SESSIONS, name),),
                decide=decide,
            )
        )
        if change.paused:
            _, faults = await self._stop_waiting(name)
            if faults:
                raise faults[0]
            # A sweep may have stopped some of it first, and be about to count it back.
            await self._returns.count_back(name)
        return await self.look(account_id, session_id)

    async def sweep(self) -> int:
        """Stop what waits in paused sessions, at most a hundred; returns how many were stopped."""
        stopped, faults = await self._stop_waiting(None)
        for error in faults[:3]:
            self._logger.error("stop_of_job_failed", error=repr(error))
        return stopped

    async def _stop_waiting(self, name: str | None) -> tuple[int, list[BaseException]]:
        """How many were stopped, and why others were not: one that fails holds up none."""
        rows = await self._queue.waiting_in_paused(name)
        done = await asyncio.gather(*(self._stop(row) for row in rows), return_exceptions=True)
        stopped = done.count(True)
        if stopped:
            await self._returns.sweep()
        return stopped, [error for error in done if isinstance(error, BaseException)]

    async def _stop(self, row: Any) -> bool:
        job_id = JobId(row.job_id)

        def decide(uow: UnitOfWork) -> None:
            record(uow, situation(uow, job_id, session_key=row.session_id), StopPausedJob())

        try:
            receipt = await self._log.submit(
                Transaction(
                    key=CommandKey(f"{job_id}:pause"),
                    actor="system:sessions",
                    body=["pause", job_id],
                    streams=(row.account_id, job_id),
                    rows=(*rows_of(job_id, row.account_id), (SESSIONS, row.session_id)),
                    decide=decide,
                )
            )
        except NotWaiting:
            return False
        if not receipt.replayed:
            self._metrics.ended(JobState.CANCELLED.value)
        return True


def _continue(uow: UnitOfWork, name: str, seen: LiveSession, jobs: Sequence[JobId]) -> bool:
    """Make the guest's session, with these jobs, part of the person's; returns whether a waiting frame gave way.

    Raises `SessionMoved` if a newer frame came.
    """
    begun, own = session_of(uow, seen.session_id), session_of(uow, name)
    if begun is None or begun.waiting_job != seen.waiting_job:
        raise SessionMoved
    moved = [job_id for job_id in jobs if _moved(uow, job_id, begun.session_id, name)]
    price = sum(uow.state(job_id).price_credits for job_id in moved)
    session = continued(begun, own, name=name, price=price)
    waits = JobId(begun.waiting_job or "")
    newest = None if own is None else own.waiting_job or own.delivered_job
    gone = 0
    if newest is not None and waits in moved:
        # The person's newer frame came first: the merge was not recorded yet.
        gone = give_way(uow, waits, JobId(newest))
        session = uncharged(session, gone)
    uow.put(SESSIONS, session.to_row())
    uow.put(SESSIONS, msgspec.structs.replace(begun, waiting_job=None).to_row())
    return gone > 0


def _moved(uow: UnitOfWork, job_id: JobId, earlier_name: str, name: str) -> bool:
    entry = uow.get(QUEUE, job_id)
    if entry is None or entry["session_id"] != earlier_name:
        return False
    uow.put(QUEUE, {**entry, "session_id": name})
    return True
