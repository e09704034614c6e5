"""Whether a request becomes a job, decided under the log's lock: bounds, session, price, place.

Read `admit` from top to bottom: it is the whole of a reservation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from generation.domain import fairness, quotas, sessions
from generation.domain.commands import RequestJob, SupersedeJob
from generation.domain.deciding import Situation
from generation.domain.errors import (
    AllowanceSharedOut,
    NoWorkerCanServe,
    QueueFull,
    TooManyInFlight,
    TooManyPaidApart,
)
from generation.domain.fairness import NO_TURN, VARIATION_SLOTS, Tier, Turn
from generation.domain.quotas import AnotherDay, NetworkQuota
from generation.domain.requests import GenerationRequest, Limits
from generation.domain.rows import FundingEntry, FundingStep, QueueEntry
from generation.domain.sessions import LiveSession, SessionMoved
from generation.domain.states import JobState
from generation.jobs import paying_apart
from generation.jobs.recording import give_way, record, rows_of, session_of, situation, state_of
from generation.jobs.tiers import tier_of
from generation.queueing.queue import WaitingFrame
from generation.queueing.watch import QueueSummary
from generation.store.tables import FUNDING, INPUTS, NETWORKS, QUEUE, SESSIONS, SHARES
from ledger.domain.applying import hold_in, move_in
from ledger.domain.commands import HoldCredits, MoveHold
from ledger.domain.refusals import InsufficientCredits
from ledger.identifiers import AccountId, JobId
from ledger.log.model import SideTable, Transaction, UnitOfWork

OPENING_AGAIN = timedelta(seconds=2)
"""When the sweep opens a payment request that could not be opened at once."""
REQUEST_KIND = "request_generation"
"""The first word of what the log digests of a request."""


@dataclass(slots=True)
class Asked:
    """A request with what was read for it before the lock. `replaced` is the frame that waits in its session."""

    request: GenerationRequest
    digest: str
    """Keyed digest of prompt, sketch and parameters."""
    summary: QueueSummary
    replaced: WaitingFrame | None
    networks: Sequence[NetworkQuota]
    """Where its free images are counted, if it is decided on the day of these."""
    rank: int | None = None
    """Of the job that the newest decision put in line."""


class Place(NamedTuple):
    """What a job gets in the line, and how its hold was counted."""

    turn: Turn
    free_credits: int = 0
    """Credits of the daily allowance in its hold."""
    networks: list[str] | None = None
    """Where those were counted."""


class Entrance(NamedTuple):
    """How a request came into its live session, if it is of one."""

    place: Place | None = None
    """What it has taken over from the frame that it replaces; None if it takes a place and a hold of its own."""
    superseded: JobId | None = None
    """That frame."""


def transaction(asked: Asked, limits: Limits) -> Transaction:
    """The command that makes the job. Of a refusal nothing is recorded: it may be sent again."""
    request = asked.request
    rows: list[tuple[SideTable, str]] = [
        (SHARES, str(request.account_id)),
        *((NETWORKS, quota.key) for quota in asked.networks),
    ]
    rows += paying_apart.rows_of_account(request.account_id)
    if request.funding is not None:
        rows += paying_apart.rows_of_networks(quota.key for quota in asked.networks)
    if request.session_key is not None:
        rows.append((SESSIONS, request.session_key))
    streams: list[str] = [request.account_id, request.job_id]
    if asked.replaced is not None and asked.replaced.account_id is not None:
        replaced, owner = asked.replaced.job_id, asked.replaced.account_id
        streams += [replaced] if owner == request.account_id else [replaced, owner]
        rows += [row for row in rows_of(replaced, owner) if row not in rows]
    return Transaction(
        key=request.key,
        actor=request.account_id,
        body=body(request, asked.digest),
        streams=streams,
        rows=rows,
        decide=lambda uow: admit(uow, asked, limits),
        keeps_refusals=False,
    )


def body(request: GenerationRequest, digest: str) -> list[str]:
    """What makes two requests the same: under a client's key, what was sent; else the job, and what is painted."""
    same = (request.key, request.sent_digest) if request.sent_digest else (request.job_id, digest)
    return [REQUEST_KIND, *same]


def admit(uow: UnitOfWork, asked: Asked, limits: Limits) -> dict[str, str]:
    """Make the job, and hold its price. Returns its state, and which waiting frame it replaced."""
    request = asked.request
    if uow.state(request.job_id).state is not JobState.UNKNOWN:
        # Asked for under another key: never a second time.
        return {"job_id": request.job_id, "state": state_of(uow, request.job_id)}
    tier = request.tier or tier_of(uow.state(request.account_id), uow.now)
    _check_bounds(uow, asked, tier, limits)
    deadline = uow.now + timedelta(seconds=limits.job_seconds)
    entrance = Entrance()
    if request.funding is not None:
        place = _await_payment(uow, asked, deadline)
    else:
        entrance = _enter_session(uow, asked, limits, deadline)
        place = entrance.place or _hold_price(uow, asked, tier, deadline)
    _record(uow, asked, deadline)
    state: JobState = uow.state(request.job_id).state
    entry = _entry(request, tier, uow.now, deadline, place, state)
    uow.put(QUEUE, entry.to_row())
    uow.put(INPUTS, _inputs(request, uow.now))
    asked.rank = entry.rank if state is JobState.QUEUED else None
    answer = {"job_id": request.job_id, "state": state.value}
    return answer if entrance.superseded is None else {**answer, "superseded": entrance.superseded}


def sketch_key(request: GenerationRequest) -> str:
    """By the job: each attempt at a request is a job of its own, and only one of them is ever made."""
    return f"sketches/{request.job_id}.png"


def take_turn(uow: UnitOfWork, account_id: AccountId, virtual_time: int, price: int, tier: Tier) -> Turn:
    """The next place of this person in the line. The transaction declares their row of `fair_shares`."""
    share = uow.get(SHARES, account_id)
    turn, finish = fairness.turn_of(virtual_time, share["finish"] if share else 0, price, tier)
    uow.put(SHARES, {"account_id": account_id, "finish": finish})
    return turn


def _check_bounds(uow: UnitOfWork, asked: Asked, tier: Tier, limits: Limits) -> None:
    summary, request = asked.summary, asked.request
    if not summary.servable:
        raise NoWorkerCanServe(graph=request.graph)
    if summary.queued >= limits.queue_max:
        raise QueueFull()
    if request.funding is not None:
        _check_bounds_paid_apart(uow, asked, limits)
    held = sum(len(bucket) for bucket in uow.state(request.account_id).holds)
    if held + paying_apart.of_account(uow, request.account_id) >= tier.in_flight_max:
        raise TooManyInFlight(limit=tier.in_flight_max)


def _check_bounds_paid_apart(uow: UnitOfWork, asked: Asked, limits: Limits) -> None:
    """Money that is held for an image is a promise to its payer, and costs everybody on its way a place."""
    if paying_apart.of_everybody(uow) >= min(limits.paid_apart, limits.queue_max):
        raise QueueFull()
    if paying_apart.of_account(uow, asked.request.account_id) >= limits.paid_apart_account:
        raise TooManyPaidApart(limit=limits.paid_apart_account)
    for quota, most in zip(asked.networks, limits.paid_apart_networks, strict=False):
        if paying_apart.of_network(uow, quota.key) >= most:
            raise TooManyPaidApart(limit=most)


def _await_payment(uow: UnitOfWork, asked: Asked, deadline: datetime) -> Place:
    """The intent is stored together with the job; the payment request is opened afterwards."""
    request = asked.request
    order = request.order()
    entry = FundingEntry(
        job_id=order.job_id,
        account_id=order.account_id,
        method=order.method,
        price_credits=order.price_credits,
        state=FundingStep.OPENING,
        due_at=uow.now + OPENING_AGAIN,
    )
    uow.put(FUNDING, entry.to_row())
    paying_apart.enter(uow, request.account_id, deadline)
    for quota in asked.networks:
        paying_apart.enter_network(uow, quota.key, deadline)
    return Place(NO_TURN)


def _enter_session(uow: UnitOfWork, asked: Asked, limits: Limits, deadline: datetime) -> Entrance:
    """Let a frame or variation into its live session.

    A frame takes over hold and place of the waiting one, if there is one: then nothing more is spent. That of a guest
    who became this person gives way, with its hold released: a hold never goes from one account to another.
    """
    request, key = asked.request, asked.request.session_key
    if key is None:
        return Entrance()
    replaced, owner = asked.replaced or (None, None)
    session = session_of(uow, key) or LiveSession(session_id=key, updated_at=uow.now)
    if not request.variation and session.waiting_job != replaced and not session.paused:
        raise SessionMoved
    session = sessions.entered(
        session,
        job_id=request.job_id,
        seq=None if request.variation else request.seq or 0,
        cap_credits=request.session_cap,
        limits=limits.of_session,
        now=uow.now,
    )
    taken, gone = None, 0
    if replaced is not None and not request.variation:
        if owner == request.account_id:
            taken = _take_over(uow, request, replaced, deadline)
        elif owner is not None:
            gone = give_way(uow, replaced, request.job_id)
            session = sessions.uncharged(session, gone)
    if taken is None:
        session = sessions.charged(session, request.price, limits.of_session)
    uow.put(SESSIONS, session.to_row())
    return Entrance(taken, replaced if taken is not None or gone else None)


def _take_over(
    uow: UnitOfWork, request: GenerationRequest, replaced: JobId, deadline: datetime
) -> Place | None:
    """Supersede the waiting frame. None if it does not wait any more: a started one is left alone."""
    at = situation(uow, replaced)
    if not record(uow, at, SupersedeJob(by_job=request.job_id)):
        return None
    assert at.entry is not None
    assert at.job.hold_id is not None
    move = MoveHold(
        hold_id=at.job.hold_id, to_hold_id=request.hold_id, job_id=request.job_id, deadline=deadline
    )
    move_in(uow, request.account_id, move)
    # Ahead of whoever came between: the place is the old frame's.
    turn = Turn(at.entry.rank, at.entry.tag).just_before()
    return Place(turn, at.entry.free_credits, at.entry.networks)


def _hold_price(uow: UnitOfWork, asked: Asked, tier: Tier, deadline: datetime) -> Place:
    """Hold the price; count what of it is free at the person's networks; take the next turn.

    Raises the ledger's refusals (`InsufficientCredits`, `AccountInDebt`) and `AllowanceSharedOut`; and `AnotherDay`,
    with nothing recorded, if the networks' day is not that of the decision.
    """
    request, networks = asked.request, asked.networks
    if not all(quota.of_day(uow.now) for quota in networks):
        raise AnotherDay(uow.now)
    used = {quota.key: _used(uow, quota.key) for quota in networks}
    shared_out = quotas.exhausted(networks, used, request.price)
    command = HoldCredits(
        hold_id=request.hold_id,
        job_id=request.job_id,
        credits=request.price,
        deadline=deadline,
        allowance=shared_out is None,
    )
    try:
        free = hold_in(uow, request.account_id, command).allowance_credits
    except InsufficientCredits:
        if shared_out is None:
            raise
        raise AllowanceSharedOut(cap=shared_out) from None
    counted = networks if free else ()
    for quota in counted:
        row = {"id": quota.key, "used": used[quota.key] + free, "expires_at": quota.expires_at}
        uow.put(NETWORKS, row)
    turn = take_turn(uow, request.account_id, asked.summary.virtual_time, request.price, tier)
    if request.variation:
        turn = turn.behind(VARIATION_SLOTS)
    return Place(turn, free if counted else 0, [quota.key for quota in counted] or None)


def _used(uow: UnitOfWork, key: str) -> int:
    row = uow.get(NETWORKS, key)
    return int(row["used"]) if row else 0


def _record(uow: UnitOfWork, asked: Asked, deadline: datetime) -> None:
    request = asked.request
    command = RequestJob(
        account_id=request.account_id,
        hold_id=request.hold_id if request.funding is None else None,
        price_credits=request.price,
        graph=request.graph,
        deadline=deadline,
        input_digest=asked.digest,
        live=request.live,
        session_id=request.session_id,
        seq=request.seq,
    )
    record(uow, Situation(job_id=request.job_id, job=uow.state(request.job_id)), command)


def _entry(
    request: GenerationRequest, tier: Tier, now: datetime, deadline: datetime, place: Place, state: JobState
) -> QueueEntry:
    entry = QueueEntry(
        job_id=request.job_id,
        account_id=request.account_id,
        session_id=request.session_key,
        graph=request.graph,
        state=state,
        rank=0,
        tag=0,
        weight=tier.weight,
        held=request.funding is None,
        free_credits=place.free_credits,
        networks=place.networks,
        requested_at=now,
        deadline=deadline,
    )
    return entry.at(place.turn)


def _inputs(request: GenerationRequest, now: datetime) -> dict[str, object]:
    return {
        "job_id": request.job_id,
        "account_id": request.account_id,
        "prompt": request.prompt,
        "seed": request.seed,
        "strength": request.strength_permille,
        "width": request.sketch.width,
        "height": request.sketch.height,
        "sketch_key": sketch_key(request),
        "sketch_sha256": request.sketch.sha256,
        "requested_at": now,
    }
