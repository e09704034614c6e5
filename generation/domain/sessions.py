"""Live sketch sessions: the newest frame wins, a limit bounds what is spent, a person can pause. Pure.

A paused session accepts nothing; what a worker makes already is finished. A session whose limit is
reached accepts nothing that costs more; what it had accepted within the limit is still made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from generation.domain.errors import (
    NotDecided,
    OutOfOrder,
    SessionPaused,
    SessionSpendCapReached,
    TooManyVariations,
)
from ledger.identifiers import JobId

PausedBy: TypeAlias = Literal["person", "spend_cap"]
BY_PERSON: PausedBy = "person"
BY_SPEND_CAP: PausedBy = "spend_cap"


RACES_MAX = 5
"""How often something is decided again because its live session changed meanwhile, or the day ended."""


class SessionMoved(NotDecided):
    """The live session changed between reading and deciding; decide again."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Our bounds on one session."""

    credits_max: int = 500
    variations_max: int = 16


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
    """Charged, or held for what waits and is made."""
    variations: int


class LiveSession(msgspec.Struct, frozen=True, kw_only=True):
    """A live session (`live_sessions`)."""

    session_id: str
    newest_seq: int = -1
    """The newest frame requested."""
    delivered_seq: int = -1
    """The newest frame delivered, and its job."""
    delivered_job: str | None = None
    waiting_job: str | None = None
    """The pending frame that a newer one replaces."""
    requested_credits: int = 0
    cap_credits: int | None = None
    """The person's own limit."""
    paused: bool = False
    variations: int = 0
    updated_at: datetime

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> LiveSession:
        """From the table's columns."""
        return cls(**row)

    def to_row(self) -> dict[str, Any]:
        """All of the table's columns."""
        return msgspec.structs.asdict(self)


def view_of(session: LiveSession | None, limits: SessionLimits) -> SessionView:
    """How a session is; one that was never used has spent nothing."""
    if session is None:
        return SessionView(None, None, limits.credits_max, 0, 0)
    cap, spent = session.cap_credits, session.requested_credits
    limit = limits.credits_max if cap is None else min(cap, limits.credits_max)
    by_cap = BY_SPEND_CAP if spent >= limit else None
    return SessionView(BY_PERSON if session.paused else by_cap, cap, limit, spent, session.variations)


def changed(session: LiveSession, change: SessionChange, limits: SessionLimits, now: datetime) -> LiveSession:
    """Limit, pause or resume. Raises `SessionSpendCapReached` if it is to go on with nothing left to spend."""
    after = msgspec.structs.replace(
        session,
        cap_credits=change.cap_credits
        if change.cap_credits is not None or change.uncap
        else session.cap_credits,
        paused=session.paused if change.paused is None else change.paused,
        updated_at=now,
    )
    view = view_of(after, limits)
    if change.paused is False and view.paused_by == BY_SPEND_CAP:
        raise _cap_reached(view)
    return after


def entered(
    session: LiveSession,
    *,
    job_id: JobId,
    seq: int | None,
    cap_credits: int | None,
    limits: SessionLimits,
    now: datetime,
) -> LiveSession:
    """With a frame (`seq`) or, without one, a variation let in. Its cost is for `charged`.

    Raises `SessionPaused`, `OutOfOrder`, `TooManyVariations`.
    """
    if session.paused:
        raise SessionPaused(paused_by=BY_PERSON)
    # Never raised here: a frame on its way may hold what the person has lowered since.
    caps = [cap for cap in (session.cap_credits, cap_credits) if cap is not None]
    session = msgspec.structs.replace(session, cap_credits=min(caps, default=None), updated_at=now)
    if seq is None:
        if session.variations >= limits.variations_max:
            raise TooManyVariations(limit=limits.variations_max)
        return msgspec.structs.replace(session, variations=session.variations + 1)
    if seq <= session.newest_seq:
        raise OutOfOrder(newest=session.newest_seq)
    return msgspec.structs.replace(session, newest_seq=seq, waiting_job=job_id)


def charged(session: LiveSession, price: int, limits: SessionLimits) -> LiveSession:
    """With the price of what was let in. Raises `SessionSpendCapReached`."""
    view = view_of(session, limits)
    if view.spent_credits + price > view.limit_credits:
        raise _cap_reached(view)
    return msgspec.structs.replace(session, requested_credits=session.requested_credits + price)


def continued(begun: LiveSession, own: LiveSession | None, *, name: str, price: int) -> LiveSession:
    """The session `name` of a person once what a guest has begun (`begun`) is part of it.

    One that the person has not used goes on as the guest left it. Else (`own`) it gets the guest's jobs that have not
    ended, of this price in credits, and the guest's newest frame unless there are frames of its own.
    """
    if own is None:
        return msgspec.structs.replace(begun, session_id=name)
    spent = own.requested_credits + price
    if own.newest_seq >= 0:
        return msgspec.structs.replace(own, requested_credits=spent)
    return msgspec.structs.replace(
        own, requested_credits=spent, newest_seq=begun.newest_seq, waiting_job=begun.waiting_job
    )


def uncharged(session: LiveSession, price: int) -> LiveSession:
    """Without the price of what was let in and never came."""
    return msgspec.structs.replace(session, requested_credits=max(0, session.requested_credits - price))


def delivered(session: LiveSession, job_id: JobId, seq: int, now: datetime) -> LiveSession:
    """With this frame as the newest one delivered."""
    waiting = None if session.waiting_job == job_id else session.waiting_job
    return msgspec.structs.replace(
        session, delivered_seq=seq, delivered_job=job_id, waiting_job=waiting, updated_at=now
    )


def newer_delivered(session: LiveSession, seq: int) -> JobId | None:
    """The job that delivered a newer frame than `seq`, None if there is none."""
    return JobId(session.delivered_job or "") if seq <= session.delivered_seq else None


def _cap_reached(view: SessionView) -> SessionSpendCapReached:
    return SessionSpendCapReached(limit=view.limit_credits, spent=view.spent_credits, paused_by=BY_SPEND_CAP)
