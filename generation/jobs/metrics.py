"""What is counted about generations, in one registry that the gateway shows at `/metrics`."""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from generation.domain.rejections import Cause
from generation.domain.states import JobState

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one process. Labels are small fixed sets, never ids."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.wait_seconds = Histogram(
            "llamasketch_job_wait_seconds", "Requested to leased.", buckets=_SECONDS, registry=self.registry
        )
        self.paint_seconds = Histogram(
            "llamasketch_job_paint_seconds", "Leased to delivered.", buckets=_SECONDS, registry=self.registry
        )
        self.gpu_seconds = Histogram(
            "llamasketch_gpu_seconds_per_image",
            "GPU time of a delivered image, as its worker says.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.gpu_seconds_total = Counter(
            "llamasketch_gpu_seconds", "GPU time of all delivered images.", registry=self.registry
        )
        self.credits_total = Counter(
            "llamasketch_credits_captured",
            "Credits captured for the images whose GPU time is counted.",
            registry=self.registry,
        )
        self.leases = Counter("llamasketch_leases", "Leases given.", registry=self.registry)
        self.claim_batch = Histogram(
            "llamasketch_claim_batch_size",
            "Leases given in one transaction.",
            buckets=_BATCHES,
            registry=self.registry,
        )
        self.outcomes = Counter(
            "llamasketch_jobs_ended", "Jobs by their end.", ["state"], registry=self.registry
        )
        self.requeues = Counter(
            "llamasketch_jobs_requeued",
            "Attempts that ended without an image.",
            ["why"],
            registry=self.registry,
        )
        self.refused = Counter(
            "llamasketch_worker_reports_refused",
            "Reports of workers that do not hold the lease.",
            ["report", "cause"],
            registry=self.registry,
        )
        # Every series is there from the start: a rate over one that appears with its first event misses it.
        for state in JobState:
            if state.final:
                self.outcomes.labels(state.value)
        for report in ("heartbeat", "complete", "end"):
            for cause in get_args(Cause):
                self.refused.labels(report, cause)
        for why in ("failed", "given_back", "lost"):
            self.requeues.labels(why)

    def ended(self, state: str) -> None:
        """A job has ended so. Whoever recorded the end says it, once; not who found it ended."""
        self.outcomes.labels(state).inc()

    def delivered(self, *, gpu_milliseconds: int, paint_milliseconds: int, earned_credits: int) -> None:
        """An image was delivered, and paid."""
        self.gpu_seconds.observe(gpu_milliseconds / 1000)
        self.gpu_seconds_total.inc(gpu_milliseconds / 1000)
        self.paint_seconds.observe(paint_milliseconds / 1000)
        self.credits_total.inc(earned_credits)
