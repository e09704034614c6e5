"""Why a worker's report was refused, as the job's history tells it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from generation.domain import events as e
from generation.domain.errors import NotTheHolder, SketchRejected, StaleLease
from generation.domain.rejections import Cause, rejection_cause
from ledger.identifiers import AccountId, CommandKey
from ledger.log.model import Envelope, Event

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)

REQUESTED = e.JobRequested(
    account_id=AccountId("acct_1"), price_credits=1, graph="g", deadline=NOW, input_digest="d"
)
STARTED = e.JobStarted(worker_id="wrk_a", epoch=1)
LOST = e.JobRequeued(worker_id="wrk_a", epoch=1, reason="worker_lost")
FAILED = e.JobRequeued(worker_id="wrk_a", epoch=1, reason="broken")
AGAIN = e.JobStarted(worker_id="wrk_b", epoch=2)


def history(*events: Event) -> list[Envelope]:
    return [
        Envelope(number, "job_1", number, "n", CommandKey("k"), "a", NOW, NOW, 1, event)
        for number, event in enumerate(events, start=1)
    ]


@pytest.mark.parametrize(
    ("events", "worker_id", "epoch", "cause"),
    [
        ((), "wrk_a", 1, "unknown_job"),
        ((REQUESTED,), "wrk_a", 1, "forged_epoch"),
        ((REQUESTED, STARTED), "wrk_a", 2, "forged_epoch"),
        ((REQUESTED, STARTED), "wrk_b", 1, "other_worker"),
        ((REQUESTED, STARTED, LOST, AGAIN), "wrk_a", 2, "other_worker"),
        ((REQUESTED, STARTED, LOST), "wrk_a", 1, "zombie"),
        ((REQUESTED, STARTED, LOST, AGAIN), "wrk_a", 1, "zombie"),
        ((REQUESTED, STARTED, FAILED, AGAIN), "wrk_a", 1, "replay"),
        # What became of the later attempt says nothing of the earlier one.
        ((REQUESTED, STARTED, FAILED, AGAIN, e.JobExpired()), "wrk_a", 1, "replay"),
        ((REQUESTED, STARTED, LOST, AGAIN, e.JobCancelled(by="person")), "wrk_b", 2, "replay"),
        ((REQUESTED, STARTED, e.JobExpired()), "wrk_a", 1, "zombie"),
        (
            (REQUESTED, STARTED, e.JobFailed(reason="worker_lost", failure="infrastructure")),
            "wrk_a",
            1,
            "zombie",
        ),
        ((REQUESTED, STARTED, e.JobFailed(reason="broken", failure="infrastructure")), "wrk_a", 1, "replay"),
        ((REQUESTED, STARTED, e.JobCancelled(by="worker_lost")), "wrk_a", 1, "replay"),
    ],
)
def test_the_history_says_why_a_report_was_refused(
    events: tuple[Event, ...], worker_id: str, epoch: int, cause: Cause
) -> None:
    assert rejection_cause(history(*events), worker_id=worker_id, epoch=epoch) == cause


def test_whoever_is_refused_hears_why() -> None:
    refusal = StaleLease(state="queued", epoch=2)
    refused = NotTheHolder(refusal)
    assert refused.refusal is refusal
    assert str(refused) == StaleLease.message
    rejected = SketchRejected("blank_sketch", "The sketch is empty.")
    assert (rejected.code, rejected.detail, str(rejected)) == (
        "blank_sketch",
        "The sketch is empty.",
        "The sketch is empty.",
    )
