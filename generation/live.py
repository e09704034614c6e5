"""Live sketch sessions: the newest frame wins, a limit bounds what is spent, a person can pause.

A paused session accepts nothing, and nothing of it is dispatched or held: what waits is cancelled
within the call that pauses, and whatever comes back to the queue later (its box died) by the next
sweep. What a box is painting already is finished. A session whose limit is reached accepts nothing
that costs more; what it had accepted within the limit is still painted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

import structlog

from generation.ending import end_without_charge, hold_is_open, rows_of
from generation.errors import OutOfOrder, SessionPaused, SessionSpendCapReached, TooManyVariations
from generation.job import Job, JobState
from generation.job_events import JobCancelled, JobSuperseded
from generation.metrics import Metrics
from generation.queue import JobQueue, Turn
from generation.returning import Returns
from generation.tables import QUEUE, SESSIONS
from generation.wishes import Limits, Wish
from ledger.domain.commands import MoveHold
from ledger.domain.drafts import move_in
from ledger.identifiers import AccountId, CommandKey, JobId
from ledger.log.model import Draft, LogWriter, Transaction

PausedBy: TypeAlias = Literal["person", "spend_cap"]
BY_PERSON: PausedBy = "person"
BY_SPEND_CAP: PausedBy = "spend_cap"
PAUSED_REASON = "session_paused"
"""Why a waiting image of a paused session was cancelled."""


class SessionMoved(Exception):
    """The live session changed between reading and deciding; decide again."""


class _NotWaiting(Exception):
    """There is nothing to stop (any more); nothing is recorded, so that it can be asked again."""


class TakenOver(NamedTuple):
    """What a frame gets from the waiting one that it replaces: its place, and how its hold was counted."""

    turn: Turn
    free_credits: int
    networks: list[str]
    superseded: bool = False
    """Whether there was a waiting one, which has ended by this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionChange:
    """What a person changes; None leaves it as it is."""

    paused: bool | None = None
    cap_credits: int | None = None
    uncap: bool = False
    """Whether the person's own limit goes; ours stays."""


class SessionView(NamedTuple):
    """A live session as it is."""

    paused_by: PausedBy | None
    """None if it goes on."""
    cap_credits: int | None
    limit_credits: int
    """The smaller one of the person's limit and ours."""
    spent_credits: int
    """Charged, or held for what waits and is painted."""
    variations: int


class LiveSessions:
    """What a person can do with a session as a whole. `session_id` is the digest that jobs carry."""

    def __init__(
        self, *, log: LogWriter, queue: JobQueue, returns: Returns, limits: Limits, metrics: Metrics
    ) -> None:
        self._log = log
        self._queue = queue
        self._returns = returns
        self._limits = limits
        self._metrics = metrics
        self._logger = structlog.get_logger("generation.live")

    async def look(self, account_id: AccountId, session_id: str) -> SessionView:
        """How a session stands; one that was never heard of has spent nothing."""
        row = await self._queue.session(session_key(account_id, session_id))
        return _view(_new_session("") if row is None else row._asdict(), self._limits)

    async def change(
        self, key: CommandKey, account_id: AccountId, session_id: str, change: SessionChange
    ) -> SessionView:
        """Limit, pause or resume. When a pause is answered nothing of the session waits or is held,
        but for what is being painted.

        Raises `SessionSpendCapReached` if it is to go on but has nothing left to spend.
        """
        name = session_key(account_id, session_id)

        def decide(draft: Draft) -> None:
            session = {**(draft.get(SESSIONS, name) or _new_session(name)), "updated_at": draft.now}
            if change.cap_credits is not None or change.uncap:
                session["cap_credits"] = change.cap_credits
            if change.paused is not None:
                session["paused"] = change.paused
            view = _view(session, self._limits)
            if change.paused is False and view.paused_by == BY_SPEND_CAP:
                raise _cap_reached(view)
            draft.put(SESSIONS, session)

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

        def decide(draft: Draft) -> None:
            job: Job = draft.state(job_id)
            queued, session = draft.get(QUEUE, job_id), draft.get(SESSIONS, row.session_id)
            paused = session is not None and session["paused"]
            if not paused or job.state is not JobState.QUEUED or not _unclaimed(queued, draft.now):
                raise _NotWaiting
            end_without_charge(draft, job_id, JobCancelled(by=PAUSED_REASON), reason="cancelled")

        try:
            receipt = await self._log.submit(
                Transaction(
                    key=CommandKey(f"{job_id}:pause"),
                    actor="system:sessions",
                    body=["pause", job_id],
                    streams=(row.account_id, job_id),
                    rows=(*rows_of(job_id), (SESSIONS, row.session_id)),
                    decide=decide,
                )
            )
        except _NotWaiting:
            return False
        if not receipt.replayed:
            self._metrics.ended(JobState.CANCELLED.value)
        return True


def session_key(account_id: str, session_id: str | None) -> str:
    """The name of a session's row."""
    return f"{account_id}/{session_id}"


def enter(
    draft: Draft, wish: Wish, price: int, *, deadline: datetime, replaced: str | None, limits: Limits
) -> TakenOver | None:
    """Let a frame or variation into its session; a frame takes over what the waiting one has, if there is one."""
    name = session_key(wish.account_id, wish.session_id)
    session = {**(draft.get(SESSIONS, name) or _new_session(name)), "updated_at": draft.now}
    if session["paused"]:
        raise SessionPaused(paused_by=BY_PERSON)
    if wish.session_cap is not None:
        # Never raised here: a frame on its way may hold what the person has lowered since.
        cap = session["cap_credits"]
        session["cap_credits"] = wish.session_cap if cap is None else min(cap, wish.session_cap)
    taken = None
    if wish.variation:
        session["variations"] += 1
        if session["variations"] > limits.variations_max:
            raise TooManyVariations(limit=limits.variations_max)
    else:
        if session["waiting_job"] != replaced:
            raise SessionMoved
        seq = wish.seq or 0
        if seq <= session["newest_seq"]:
            raise OutOfOrder(newest=session["newest_seq"])
        session.update(newest_seq=seq, waiting_job=wish.job_id)
        taken = _take_over(draft, wish, deadline, replaced) if replaced else None
    if taken is None:
        view = _view(session, limits)
        if view.spent_credits + price > view.limit_credits:
            raise _cap_reached(view)
        session["requested_credits"] += price
    draft.put(SESSIONS, session)
    return taken


def _take_over(draft: Draft, wish: Wish, deadline: datetime, replaced: str) -> TakenOver | None:
    """The newest frame takes the waiting frame's hold and rank; a started one is left alone."""
    old: Job = draft.state(replaced)
    row = draft.get(QUEUE, replaced)
    started = old.state is not JobState.QUEUED or row is None or row["worker_id"] is not None
    if started or row is None or old.hold_id is None or not hold_is_open(draft, old):
        return None
    move_in(
        draft,
        wish.account_id,
        MoveHold(hold_id=old.hold_id, to_hold_id=wish.hold_id, job_id=wish.job_id, deadline=deadline),
    )
    draft.append(replaced, [JobSuperseded(by_job=wish.job_id)])
    draft.delete(QUEUE, replaced)
    # One less wins against whoever came between: the place is the old frame's.
    turn = Turn(row["rank"] - 1, row["tag"] - 1)
    return TakenOver(turn, row.get("free_credits") or 0, row.get("networks") or [], superseded=True)


def _unclaimed(row: Mapping[str, Any] | None, now: datetime) -> bool:
    """Whether no box has it. One that took it and never began lets it go when its lease lapses."""
    return row is not None and (row["lease_expires_at"] is None or row["lease_expires_at"] < now)


def _view(session: Mapping[str, Any], limits: Limits) -> SessionView:
    cap, spent = session["cap_credits"], session["requested_credits"]
    limit = limits.session_credits_max if cap is None else min(cap, limits.session_credits_max)
    by_cap = BY_SPEND_CAP if spent >= limit else None
    return SessionView(BY_PERSON if session["paused"] else by_cap, cap, limit, spent, session["variations"])


def _cap_reached(view: SessionView) -> SessionSpendCapReached:
    return SessionSpendCapReached(limit=view.limit_credits, spent=view.spent_credits, paused_by=BY_SPEND_CAP)


def _new_session(name: str) -> dict[str, Any]:
    return {
        "session_id": name,
        "newest_seq": -1,
        "delivered_seq": -1,
        "delivered_job": None,
        "waiting_job": None,
        "requested_credits": 0,
        "cap_credits": None,
        "paused": False,
        "variations": 0,
    }
