"""The rules of a job, one command at a time, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from generation.domain import commands as c
from generation.domain import events as e
from generation.domain.commands import FailureKind, Lease
from generation.domain.deciding import ATTEMPTS_MAX, Situation, decide
from generation.domain.errors import (
    AskTheWorker,
    JobAlreadyEnded,
    JobNotFound,
    NotDue,
    NotWaiting,
    StaleLease,
)
from generation.domain.job import Job, evolve
from generation.domain.rows import FundingEntry, FundingStep, QueueEntry
from generation.domain.sessions import LiveSession
from generation.domain.states import JobState
from ledger.identifiers import AccountId, HoldId, JobId
from ledger.log.model import Event

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DEADLINE = NOW + timedelta(minutes=10)
JOB, ACCOUNT, HOLD = JobId("job_1"), AccountId("acct_1"), HoldId("hold_1")
MINE, OTHERS = Lease("wrk_a", 1), Lease("wrk_b", 1)

REQUEST = c.RequestJob(
    account_id=ACCOUNT,
    hold_id=HOLD,
    price_credits=1,
    graph="sketch@1",
    deadline=DEADLINE,
    input_digest="d",
)
IMAGE = c.CompleteJob(lease=MINE, sha256="s", size_bytes=9, width=64, height=32, gpu_milliseconds=700)


def entry_of(job: Job, **changes: Any) -> QueueEntry:
    entry = QueueEntry(
        job_id=JOB,
        account_id=ACCOUNT,
        graph="sketch@1",
        state=job.state,
        rank=0,
        tag=0,
        requested_at=NOW,
        deadline=DEADLINE,
        worker_id=MINE.worker_id,
        epoch=MINE.epoch,
        lease_expires_at=NOW + timedelta(seconds=30),
    )
    return replace(entry, **changes)


def waiting(**changes: Any) -> Situation:
    job = evolve(Job(), decide(Situation(job_id=JOB, job=Job()), REQUEST, NOW)[0])
    job = replace(job, **changes)
    entry = entry_of(job, worker_id=None, epoch=0, lease_expires_at=None)
    return Situation(job_id=JOB, job=job, entry=entry, hold_open=True)


def running(*failures: tuple[str, str, str | None], **changes: Any) -> Situation:
    """A job that `MINE` works on, after these failures (worker, code, node) of others."""
    job = waiting().job
    for number, (worker_id, code, node) in enumerate(failures, start=1):
        job = evolve(job, e.JobStarted(worker_id=worker_id, epoch=number))
        job = evolve(job, e.JobRequeued(worker_id=worker_id, epoch=number, reason=code, node=node))
    job = replace(evolve(job, e.JobStarted(worker_id=MINE.worker_id, epoch=MINE.epoch)), **changes)
    return Situation(job_id=JOB, job=job, entry=entry_of(job), hold_open=True)


def settling() -> Situation:
    job = replace(running().job, state=JobState.SETTLING, hold_id=None)
    facts = {
        "event": {
            "worker_id": "wrk_a",
            "epoch": 1,
            "sha256": "s",
            "size_bytes": 9,
            "width": 64,
            "height": 64,
            "gpu_milliseconds": 700,
            "captured_credits": 1,
        },
        "row": {},
    }
    return Situation(job_id=JOB, job=job, entry=entry_of(job), funding=funding(FundingStep.SETTLING, facts))


def funding(state: FundingStep, result: dict[str, Any] | None = None) -> FundingEntry:
    return FundingEntry(
        job_id=JOB,
        account_id=ACCOUNT,
        method="fake",
        price_credits=1,
        state=state,
        reference="pay_1",
        result=result,
        due_at=NOW,
    )


def ended(event: Event) -> Situation:
    return Situation(job_id=JOB, job=evolve(running().job, event))


def with_(at: Situation, **changes: Any) -> Situation:
    kept = {name: getattr(at, name) for name in Situation.__slots__}
    return Situation(**{**kept, **changes})


def failing(code: str = "broken", kind: str = "infrastructure", node: str | None = None) -> c.EndAttempt:
    return c.EndAttempt(lease=MINE, kind=kind, code=code, node=node)


# --- asking ---


def test_a_request_is_recorded_as_it_was_asked() -> None:
    command = c.RequestJob(
        account_id=ACCOUNT,
        hold_id=HOLD,
        price_credits=3,
        graph="sketch@2",
        deadline=DEADLINE,
        input_digest="abc",
        live=True,
        session_id="s1",
        seq=7,
    )
    assert decide(Situation(job_id=JOB, job=Job()), command, NOW) == [
        e.JobRequested(
            account_id=ACCOUNT,
            hold_id=HOLD,
            price_credits=3,
            graph="sketch@2",
            deadline=DEADLINE,
            input_digest="abc",
            live=True,
            session_id="s1",
            seq=7,
        )
    ]


def test_a_request_is_recorded_once_whatever_its_command_key() -> None:
    assert decide(waiting(), REQUEST, NOW) == []


def test_without_a_hold_a_job_waits_for_its_payment() -> None:
    unpaid = c.RequestJob(
        account_id=ACCOUNT,
        hold_id=None,
        price_credits=1,
        graph="sketch@1",
        deadline=DEADLINE,
        input_digest="d",
    )
    (requested,) = decide(Situation(job_id=JOB, job=Job()), unpaid, NOW)
    assert evolve(Job(), requested).state is JobState.AWAITING_PAYMENT


# --- leases ---


def test_only_who_has_leased_a_waiting_job_starts_it() -> None:
    leased = with_(waiting(), entry=entry_of(waiting().job))
    assert decide(leased, c.StartJob(MINE), NOW) == [e.JobStarted(worker_id="wrk_a", epoch=1)]
    assert decide(leased, c.StartJob(OTHERS), NOW) == []
    assert decide(leased, c.StartJob(Lease("wrk_a", 2)), NOW) == []
    assert decide(with_(leased, entry=None), c.StartJob(MINE), NOW) == []


def test_a_running_job_is_not_started_again() -> None:
    assert decide(running(), c.StartJob(MINE), NOW) == []


@pytest.mark.parametrize("lease", [OTHERS, Lease("wrk_a", 2), Lease("wrk_b", 7)])
def test_whoever_does_not_hold_the_lease_reports_nothing(lease: Lease) -> None:
    image = c.CompleteJob(lease=lease, sha256="s", size_bytes=9, width=8, height=8, gpu_milliseconds=1)
    attempt = c.EndAttempt(lease=lease, kind="infrastructure", code="broken")
    for report in (image, attempt, c.BlockJob("image", "nudity", lease)):
        with pytest.raises(StaleLease) as refused:
            decide(running(), report, NOW)
        assert refused.value.details == {"state": "running", "epoch": 1}


def test_a_report_about_a_job_that_has_left_the_queue_is_refused() -> None:
    with pytest.raises(StaleLease) as refused:
        decide(with_(running(), entry=None), failing(), NOW)
    assert refused.value.details == {"state": "running", "epoch": 1}


def test_a_report_about_an_unknown_job_is_refused_as_such() -> None:
    nothing = Situation(job_id=JOB, job=Job())
    for report in (IMAGE, failing(), c.BlockJob("image", "nudity", MINE), c.CancelJob()):
        with pytest.raises(JobNotFound):
            decide(nothing, report, NOW)


# --- failures ---


def test_a_machines_failure_is_tried_elsewhere() -> None:
    for node in (None, "7"):
        (requeued,) = decide(running(), failing(node=node), NOW)
        assert requeued == e.JobRequeued(worker_id="wrk_a", epoch=1, reason="broken", node=node)


def test_the_last_attempt_ends_the_job() -> None:
    others = [(f"wrk_{number}", "broken", None) for number in range(ATTEMPTS_MAX - 1)]
    assert decide(running(*others), failing(), NOW) == [
        e.JobFailed(reason="broken", failure="infrastructure")
    ]
    assert isinstance(decide(running(*others[:-1]), failing(), NOW)[0], e.JobRequeued)


def test_the_same_node_failing_the_same_way_on_two_workers_is_the_jobs_fault() -> None:
    at = running(("wrk_b", "node_failed", "7"))
    assert decide(at, failing("node_failed", node="7"), NOW) == [
        e.JobFailed(reason="node_failed", failure="poison")
    ]


@pytest.mark.parametrize("code", ["graph_refused", "graph_unknown"])
def test_two_workers_that_lack_the_same_node_do_not_make_it_the_jobs_fault(code: str) -> None:
    at = running(("wrk_b", code, "7"))
    assert decide(at, failing(code, node="7"), NOW) == [
        e.JobRequeued(worker_id="wrk_a", epoch=1, reason=code, node="7")
    ]


def test_a_failure_of_ours_is_tried_again_and_is_never_the_jobs_fault() -> None:
    before: list[tuple[str, str, str | None]] = [("wrk_b", "storage_failed", "7")]
    ours = failing("storage_failed", kind="service", node="7")
    assert isinstance(decide(running(*before), ours, NOW)[0], e.JobRequeued)
    before.append(("wrk_c", "storage_failed", "7"))
    assert decide(running(*before), ours, NOW) == [e.JobFailed(reason="storage_failed", failure="service")]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (("wrk_b", "node_failed", "7"), ("node_failed", "8")),
        (("wrk_b", "out_of_memory", "7"), ("node_failed", "7")),
        (("wrk_b", "node_failed", None), ("node_failed", None)),
        (("wrk_a", "node_failed", "7"), ("node_failed", "7")),
    ],
    ids=["another node", "another fault", "no node known", "the same worker twice"],
)
def test_anything_less_than_that_is_tried_again(
    before: tuple[str, str, str | None], now: tuple[str, str | None]
) -> None:
    code, node = now
    assert isinstance(decide(running(before), failing(code, node=node), NOW)[0], e.JobRequeued)


def test_a_fault_of_the_input_is_final_at_once() -> None:
    assert decide(running(), failing("sketch_unreadable", "input"), NOW) == [
        e.JobFailed(reason="sketch_unreadable", failure="input")
    ]


def test_what_is_given_back_is_no_failed_attempt_however_often() -> None:
    at = running()
    for _ in range(ATTEMPTS_MAX + 2):
        (requeued,) = decide(at, failing("given_back", "given_back"), NOW)
        assert requeued == e.JobRequeued(worker_id="wrk_a", epoch=1, reason="given_back", counts=False)
        job = evolve(evolve(at.job, requeued), e.JobStarted(worker_id="wrk_a", epoch=1))
        assert job.failures == ()
        at = with_(at, job=job)


def test_a_job_that_is_to_be_cancelled_is_cancelled_when_its_attempt_ends() -> None:
    at = running()
    at = with_(at, entry=replace(entry_of(at.job), cancel_asked=True))
    assert decide(at, failing(), NOW) == [e.JobCancelled(by="person")]


def test_an_attempt_that_ends_after_the_deadline_expires_the_job() -> None:
    assert decide(running(), failing(), DEADLINE) == [e.JobExpired()]


# --- images ---


def test_a_verified_image_completes_the_job_at_its_price() -> None:
    assert decide(running(price_credits=3), IMAGE, NOW) == [
        e.JobCompleted(
            worker_id="wrk_a",
            epoch=1,
            sha256="s",
            size_bytes=9,
            width=64,
            height=32,
            gpu_milliseconds=700,
            captured_credits=3,
        )
    ]


def test_a_verified_upload_wins_over_a_cancel() -> None:
    at = running()
    at = with_(at, entry=replace(entry_of(at.job), cancel_asked=True))
    assert isinstance(decide(at, IMAGE, NOW)[0], e.JobCompleted)


@pytest.mark.parametrize(("late", "kind"), [(-1, e.JobCompleted), (0, e.JobExpired), (1, e.JobExpired)])
def test_an_image_counts_until_the_deadline_and_not_at_it(late: int, kind: type[Event]) -> None:
    now = DEADLINE + timedelta(microseconds=late)
    assert isinstance(decide(running(), IMAGE, now)[0], kind)


def test_an_image_whose_hold_was_closed_is_not_shown() -> None:
    assert decide(with_(running(), hold_open=False), IMAGE, NOW) == [
        e.JobFailed(reason="hold_closed", failure="payment")
    ]


@pytest.mark.parametrize(("seq", "superseded"), [(4, True), (5, True), (6, False)])
def test_a_frame_is_delivered_only_if_it_is_newer_than_the_newest_delivered(
    seq: int, superseded: bool
) -> None:
    session = LiveSession(session_id="s", delivered_seq=5, delivered_job="job_9", updated_at=NOW)
    at = with_(running(live=True, seq=seq), session=session)
    (event,) = decide(at, IMAGE, NOW)
    assert (
        event == e.JobSuperseded(by_job=JobId("job_9")) if superseded else isinstance(event, e.JobCompleted)
    )


def test_a_variation_is_never_superseded() -> None:
    session = LiveSession(session_id="s", delivered_seq=5, delivered_job="job_9", updated_at=NOW)
    at = with_(running(live=False, seq=1), session=session)
    assert isinstance(decide(at, IMAGE, NOW)[0], e.JobCompleted)


# --- payments for one image ---


def test_an_image_that_is_paid_for_alone_is_settled_before_it_is_shown() -> None:
    at = with_(running(hold_id=None), funding=funding(FundingStep.HELD), hold_open=False)
    assert decide(at, IMAGE, NOW) == [e.JobSettling(worker_id="wrk_a", epoch=1, sha256="s", size_bytes=9)]
    assert decide(with_(at, funding=None), IMAGE, NOW) == [e.JobFailed(reason="not_paid", failure="payment")]


def test_a_settled_payment_shows_the_image_that_was_withheld() -> None:
    (completed,) = decide(settling(), c.ConcludeSettlement(), NOW)
    assert isinstance(completed, e.JobCompleted)
    assert completed.sha256 == "s"


def test_credits_that_could_not_be_held_show_no_image() -> None:
    assert decide(settling(), c.ConcludeSettlement("account_in_debt"), NOW) == [
        e.JobFailed(reason="account_in_debt", failure="payment")
    ]


def test_a_settlement_is_concluded_once() -> None:
    done = with_(settling(), job=replace(settling().job, state=JobState.COMPLETED))
    for command in (c.ConcludeSettlement(), c.FailSettlement()):
        assert decide(done, command, NOW) == []
        assert decide(running(), command, NOW) == []
    for unknown in (None, funding(FundingStep.SETTLING)):
        assert decide(with_(settling(), funding=unknown), c.ConcludeSettlement(), NOW) == []


def test_a_payment_that_went_back_fails_the_job() -> None:
    assert decide(settling(), c.FailSettlement(), NOW) == [
        e.JobFailed(reason="payment_failed", failure="payment")
    ]


def test_time_does_not_end_a_job_whose_payment_is_being_settled() -> None:
    with pytest.raises(NotDue):
        decide(settling(), c.ExpireJob(), DEADLINE + timedelta(days=1))


def test_money_is_taken_for_a_job_only_while_it_waits_for_it() -> None:
    until = NOW + timedelta(minutes=5)
    fund = c.FundJob(payment_id="pay_1", hold_id=None, deadline=until)
    job = replace(waiting().job, state=JobState.AWAITING_PAYMENT, hold_id=None)
    at = with_(waiting(), job=job, funding=funding(FundingStep.WAITING))
    assert decide(at, fund, NOW) == [e.JobFunded(payment_id="pay_1", deadline=until)]
    by_credits = c.FundJob(payment_id="pay_1", hold_id=HOLD, deadline=until)
    assert decide(at, by_credits, NOW) == [e.JobFunded(payment_id="pay_1", hold_id=HOLD, deadline=until)]
    for other in (running(), settling(), with_(at, funding=None), with_(at, entry=None)):
        assert decide(other, fund, NOW) == []


# --- ends that people and time bring ---


def test_a_waiting_job_is_cancelled_and_a_running_one_is_asked_about() -> None:
    assert decide(waiting(), c.CancelJob(), NOW) == [e.JobCancelled(by="person")]
    for at in (running(), settling()):
        with pytest.raises(AskTheWorker):
            decide(at, c.CancelJob(), NOW)


def test_what_has_ended_cannot_be_cancelled() -> None:
    with pytest.raises(JobAlreadyEnded) as refused:
        decide(ended(e.JobExpired()), c.CancelJob(), NOW)
    assert refused.value.details == {"state": "expired"}


@pytest.mark.parametrize("early", [1, 0])
def test_a_job_expires_at_its_deadline_and_not_before(early: int) -> None:
    now = DEADLINE - timedelta(microseconds=early)
    if early:
        with pytest.raises(NotDue):
            decide(waiting(), c.ExpireJob(), now)
    else:
        assert decide(waiting(), c.ExpireJob(), now) == [e.JobExpired()]


def test_a_waiting_frame_gives_way_and_a_started_one_does_not() -> None:
    give_way = c.SupersedeJob(JobId("job_2"))
    assert decide(waiting(), give_way, NOW) == [e.JobSuperseded(by_job=JobId("job_2"))]
    leased = with_(waiting(), entry=entry_of(waiting().job))
    for at in (running(), leased, with_(waiting(), hold_open=False), with_(waiting(), entry=None)):
        assert decide(at, give_way, NOW) == []


def test_only_what_waits_in_a_paused_session_is_stopped() -> None:
    paused = LiveSession(session_id="s", paused=True, updated_at=NOW)
    going_on = replace(paused, paused=False)
    assert decide(with_(waiting(), session=paused), c.StopPausedJob(), NOW) == [
        e.JobCancelled(by="session_paused")
    ]
    leased = entry_of(waiting().job)
    for at in (
        with_(waiting(), session=going_on),
        waiting(),
        with_(running(), session=paused),
        with_(waiting(), session=paused, entry=leased),
    ):
        with pytest.raises(NotWaiting):
            decide(at, c.StopPausedJob(), NOW)
    lapsed = replace(leased, lease_expires_at=NOW - timedelta(microseconds=1))
    assert decide(with_(waiting(), session=paused, entry=lapsed), c.StopPausedJob(), NOW)


def test_what_cannot_be_made_fails_and_what_is_not_allowed_is_blocked() -> None:
    for at in (waiting(), running()):
        assert decide(at, c.FailJob("inputs_erased", FailureKind.INPUT), NOW) == [
            e.JobFailed(reason="inputs_erased", failure="input")
        ]
    assert decide(waiting(), c.BlockJob("prompt", "nudity"), NOW) == [
        e.JobBlocked(stage="prompt", category="nudity")
    ]
    assert decide(running(), c.BlockJob("image", "nudity", MINE), NOW) == [
        e.JobBlocked(stage="image", category="nudity")
    ]


def test_an_ended_job_is_neither_failed_nor_blocked_again() -> None:
    over = ended(e.JobExpired())
    assert decide(over, c.FailJob("inputs_erased", FailureKind.INPUT), NOW) == []
    assert decide(over, c.BlockJob("prompt", "nudity"), NOW) == []
    assert decide(over, c.ExpireJob(), NOW) == []
