"""Live sketch sessions as a whole: limit, pause, resume. The rules are in `generation.domain.sessions`.

Nothing of a paused session is dispatched or held: what waits is cancelled within the call that pauses,
and whatever comes back to the queue later (its worker died) by the next sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from generation.domain.commands import StopPausedJob
from generation.domain.errors import NotWaiting
from generation.domain.requests import session_key
from generation.domain.sessions import (
    LiveSession,
    SessionChange,
    SessionLimits,
    SessionView,
    changed,
    view_of,
)
from generation.domain.states import JobState
from generation.jobs.metrics import Metrics
from generation.jobs.recording import record, rows_of, session_of, situation
from generation.jobs.usage_reversal import UsageReversals
from generation.queueing.queue import JobQueue
from generation.store.tables import SESSIONS
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

    async def look(self, account_id: AccountId, session_id: str) -> SessionView:
        """How a session is; one that was never used has spent nothing."""
        return view_of(await self._queue.session(session_key(account_id, session_id)), self._limits)

    async def bring_along(
        self, key: CommandKey, account_id: AccountId, session_id: str, earlier: Sequence[str]
    ) -> None:
        """Let a session that a guest began go on as this account's: with its limit, and with what it has spent.

        `earlier` are the names of the rows that it may have had. A frame that waits in one of them stays there.
        """
        name = session_key(account_id, session_id)
        if not earlier or await self._queue.session(name) is not None:
            return
        newest = await self._queue.newest_session(earlier)
        if newest is None:
            return
        earlier_name = newest.session_id

        def decide(uow: UnitOfWork) -> None:
            begun = session_of(uow, earlier_name)
            if begun is not None and session_of(uow, name) is None:
                taken_over = msgspec.structs.replace(begun, session_id=name, waiting_job=None)
                uow.put(SESSIONS, taken_over.to_row())

        await self._log.submit(
            Transaction(
                key=key,
                actor=account_id,
                body=["bring_session", name, earlier_name],
                streams=(),
                rows=((SESSIONS, name), (SESSIONS, earlier_name)),
                decide=decide,
            )
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
