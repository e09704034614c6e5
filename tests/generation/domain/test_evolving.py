"""What each event leaves: the job's state, and its entry in the queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from generation.domain import events as e
from generation.domain.fairness import Turn
from generation.domain.job import Attempt, Job, evolve
from generation.domain.rows import FundingEntry, FundingStep, QueueEntry, entry_after
from generation.domain.sessions import LiveSession
from generation.domain.states import JobState
from ledger.domain.events import DebtForgiven
from ledger.identifiers import AccountId, HoldId, JobId
from ledger.log.model import Event

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SOON = NOW + timedelta(seconds=30)
JOB, ACCOUNT, HOLD = JobId("job_1"), AccountId("acct_1"), HoldId("hold_1")

REQUESTED = e.JobRequested(
    account_id=ACCOUNT,
    hold_id=HOLD,
    price_credits=3,
    graph="sketch@1",
    deadline=SOON,
    input_digest="d",
    live=True,
    session_id="s1",
    seq=7,
)
QUEUED = Job(
    state=JobState.QUEUED,
    account_id=ACCOUNT,
    hold_id=HOLD,
    price_credits=3,
    graph="sketch@1",
    deadline=SOON,
    session_id="s1",
    seq=7,
    live=True,
)
RUNNING = replace(QUEUED, state=JobState.RUNNING, worker_id="wrk_a", epoch=4, attempts=1)
IMAGE = e.JobCompleted(
    worker_id="wrk_a",
    epoch=4,
    sha256="abc",
    size_bytes=9,
    width=64,
    height=32,
    gpu_milliseconds=700,
    captured_credits=3,
)

ENTRY = QueueEntry(
    job_id=JOB,
    account_id=ACCOUNT,
    graph="sketch@1",
    state=JobState.RUNNING,
    rank=1,
    tag=2,
    requested_at=NOW,
    deadline=SOON,
    attempts=2,
    refused_workers=["wrk_z"],
    worker_id="wrk_a",
    epoch=4,
    lease_expires_at=SOON,
    leased_at=NOW,
)


def test_a_request_makes_a_job_that_remembers_what_was_asked() -> None:
    assert evolve(Job(), REQUESTED) == QUEUED


def test_a_job_without_a_hold_waits_for_its_payment() -> None:
    unpaid = evolve(Job(), replace(REQUESTED, hold_id=None))
    assert unpaid == replace(QUEUED, state=JobState.AWAITING_PAYMENT, hold_id=None)
    funded = evolve(unpaid, e.JobFunded(payment_id="pay_1", hold_id=HOLD))
    assert funded == replace(QUEUED, payment_id="pay_1")
    assert evolve(unpaid, e.JobFunded(payment_id="pay_1")) == replace(
        QUEUED, hold_id=None, payment_id="pay_1"
    )


def test_a_start_is_an_attempt_of_a_worker() -> None:
    assert evolve(QUEUED, e.JobStarted(worker_id="wrk_a", epoch=4)) == RUNNING


def test_a_failed_attempt_is_remembered_and_the_job_waits_again() -> None:
    requeued = e.JobRequeued(worker_id="wrk_a", epoch=4, reason="broken", node="7")
    failed = Attempt("wrk_a", "broken", "7")
    assert evolve(RUNNING, requeued) == replace(
        RUNNING, state=JobState.QUEUED, worker_id=None, failures=(failed,)
    )


@pytest.mark.parametrize(
    ("reason", "counts"), [("given_back", True), ("given_back", False), ("broken", False)]
)
def test_what_was_given_back_is_no_failure_of_the_job(reason: str, counts: bool) -> None:
    requeued = e.JobRequeued(worker_id="wrk_a", epoch=4, reason=reason, counts=counts)
    assert evolve(RUNNING, requeued) == replace(RUNNING, state=JobState.QUEUED, worker_id=None)


def test_an_image_that_is_being_paid_for_is_known_by_its_digest() -> None:
    settling = e.JobSettling(worker_id="wrk_a", epoch=4, sha256="abc", size_bytes=9)
    assert evolve(RUNNING, settling) == replace(RUNNING, state=JobState.SETTLING, sha256="abc")


ENDS: list[tuple[Event, dict[str, object]]] = [
    (IMAGE, {"state": JobState.COMPLETED, "captured_credits": 3, "sha256": "abc"}),
    (e.JobFailed(reason="broken", failure="input"), {"state": JobState.FAILED, "reason": "broken"}),
    (e.JobCancelled(by="person"), {"state": JobState.CANCELLED, "reason": "person"}),
    (e.JobSuperseded(by_job=JobId("job_2")), {"state": JobState.SUPERSEDED, "reason": "job_2"}),
    (e.JobExpired(), {"state": JobState.EXPIRED}),
    (e.JobBlocked(stage="image", category="nudity"), {"state": JobState.BLOCKED, "reason": "nudity"}),
]


@pytest.mark.parametrize(("event", "changes"), ENDS, ids=lambda value: type(value).__name__)
def test_an_end_says_how_and_changes_nothing_else(event: Event, changes: dict[str, object]) -> None:
    assert evolve(RUNNING, event) == replace(RUNNING, **changes)


def test_a_fact_about_something_else_changes_nothing() -> None:
    other = DebtForgiven(credits=1, actor="operator:1", reason="r")
    assert evolve(RUNNING, other) is RUNNING


# --- the queue's entry ---


def test_the_entry_of_a_funded_job_is_queued_and_knows_whether_credits_stand_for_it() -> None:
    unpaid = replace(ENTRY, state=JobState.AWAITING_PAYMENT)
    for hold_id in (HOLD, None):
        after = entry_after(unpaid, e.JobFunded(payment_id="pay_1", hold_id=hold_id))
        assert after == replace(unpaid, state=JobState.QUEUED, held=hold_id is not None)


def test_the_entry_of_a_started_job_counts_the_attempt() -> None:
    queued = replace(ENTRY, state=JobState.QUEUED)
    after = entry_after(queued, e.JobStarted(worker_id="wrk_a", epoch=4))
    assert after == replace(queued, state=JobState.RUNNING, attempts=3)


@pytest.mark.parametrize(
    ("counts", "refused"), [(True, ["wrk_z", "wrk_a"]), (False, ["wrk_z"])], ids=["failed", "given back"]
)
def test_the_entry_of_a_requeued_job_has_no_lease_and_knows_who_failed_on_it(
    counts: bool, refused: list[str]
) -> None:
    event = e.JobRequeued(worker_id="wrk_a", epoch=4, reason="broken", counts=counts)
    assert entry_after(ENTRY, event) == replace(
        ENTRY,
        state=JobState.QUEUED,
        worker_id=None,
        lease_expires_at=None,
        leased_at=None,
        refused_workers=refused,
    )


def test_the_entry_of_an_image_that_is_being_paid_for_has_no_lease_that_could_lapse() -> None:
    after = entry_after(ENTRY, e.JobSettling(worker_id="wrk_a", epoch=4, sha256="abc", size_bytes=9))
    assert after == replace(ENTRY, state=JobState.SETTLING, lease_expires_at=None)


@pytest.mark.parametrize("event", [event for event, _ in ENDS], ids=lambda event: type(event).__name__)
def test_an_ended_job_has_no_entry(event: Event) -> None:
    assert entry_after(ENTRY, event) is None


def test_an_entry_is_unclaimed_once_its_lease_has_lapsed() -> None:
    assert replace(ENTRY, lease_expires_at=None).unclaimed(NOW)
    assert [ENTRY.unclaimed(SOON + timedelta(microseconds=by)) for by in (-1, 0, 1)] == [False, False, True]


def test_an_entry_takes_another_place_and_stays_the_same_otherwise() -> None:
    assert ENTRY.at(Turn(rank=-5, tag=9)) == replace(ENTRY, rank=-5, tag=9)


# --- rows ---


def test_rows_hold_everything_and_states_as_words() -> None:
    payment = FundingEntry(
        job_id=JOB,
        account_id=ACCOUNT,
        method="fake",
        price_credits=3,
        state=FundingStep.HELD,
        reference="pay_1",
        result={"event": {}},
        due_at=NOW,
    )
    session = LiveSession(session_id="acct_1/s1", newest_seq=7, cap_credits=5, updated_at=NOW)
    queue_row, funding_row = ENTRY.to_row(), payment.to_row()
    assert (type(queue_row["state"]), queue_row["state"]) == (str, "running")
    assert (type(funding_row["state"]), funding_row["state"]) == (str, "held")
    assert QueueEntry.from_row(queue_row) == ENTRY
    assert QueueEntry.from_row(queue_row).state is JobState.RUNNING
    assert FundingEntry.from_row(funding_row) == payment
    assert FundingEntry.from_row(funding_row).state is FundingStep.HELD
    assert LiveSession.from_row(session.to_row()) == session


def test_a_payment_at_another_step_is_due_then() -> None:
    opening = FundingEntry(
        job_id=JOB,
        account_id=ACCOUNT,
        method="fake",
        price_credits=3,
        state=FundingStep.OPENING,
        due_at=NOW,
    )
    after = opening.step(FundingStep.WAITING, SOON, reference="pay_1")
    assert after == replace(opening, state=FundingStep.WAITING, due_at=SOON, reference="pay_1")
