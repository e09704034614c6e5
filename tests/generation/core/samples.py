"""One instance of every job event."""

from __future__ import annotations

from datetime import UTC, datetime

from generation.domain import events as e
from ledger.identifiers import AccountId, HoldId, JobId
from ledger.log.model import Event

ACCOUNT = AccountId("acct_01k00000000000000000000001")
JOB = JobId("job_01k00000000000000000000001")
HOLD = HoldId("hold_01k00000000000000000000001")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

SAMPLES: dict[str, Event] = {
    "generation.job_requested.v1": e.JobRequested(
        account_id=ACCOUNT,
        hold_id=HOLD,
        price_credits=1,
        graph="sketch@1",
        deadline=NOON,
        input_digest="00ff",
        live=True,
        session_id="s1",
        seq=3,
    ),
    "generation.job_funded.v1": e.JobFunded(payment_id="pay_1", hold_id=HOLD),
    "generation.job_started.v1": e.JobStarted(worker_id="wrk_1", epoch=1),
    "generation.job_requeued.v1": e.JobRequeued(worker_id="wrk_1", epoch=1, reason="worker_lost"),
    "generation.job_settling.v1": e.JobSettling(worker_id="wrk_1", epoch=1, sha256="ab", size_bytes=9),
    "generation.job_completed.v1": e.JobCompleted(
        worker_id="wrk_1",
        epoch=1,
        sha256="ab",
        size_bytes=9,
        width=1024,
        height=768,
        gpu_milliseconds=2000,
        captured_credits=1,
    ),
    "generation.job_failed.v1": e.JobFailed(reason="out_of_memory", failure="infrastructure"),
    "generation.job_cancelled.v1": e.JobCancelled(by="person"),
    "generation.job_superseded.v1": e.JobSuperseded(by_job=JOB),
    "generation.job_expired.v1": e.JobExpired(),
    "generation.job_blocked.v1": e.JobBlocked(stage="prompt", category="violence"),
}
