"""Stored job events must stay readable for ever: golden files are added, never edited."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from generation.domain.job import JOBS, Job, evolve
from generation.domain.states import JobState
from ledger.log.categories import Categories
from tests.generation.core.samples import SAMPLES

GOLDEN = Path(__file__).parent / "golden"
LOG = Categories([JOBS])


@pytest.mark.parametrize("name", sorted(JOBS.events))
def test_every_event_is_stored_as_its_golden_file_says(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_bytes()
    assert LOG.decode(name, golden) == SAMPLES[name]
    assert json.loads(msgspec.json.encode(SAMPLES[name])) == json.loads(golden)


def test_every_golden_file_belongs_to_a_version_that_is_still_read() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(LOG.names)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_no_fact_is_ever_refused_whatever_the_state(name: str) -> None:
    for other in SAMPLES.values():
        assert isinstance(evolve(evolve(Job(), other), SAMPLES[name]), Job)


def test_a_job_runs_through_its_states() -> None:
    job, seen = Job(), []
    for name in ("requested", "started", "requeued", "started", "completed"):
        job = evolve(job, SAMPLES[f"generation.job_{name}.v1"])
        seen.append(job.state)
    assert seen == [
        JobState.QUEUED,
        JobState.RUNNING,
        JobState.QUEUED,
        JobState.RUNNING,
        JobState.COMPLETED,
    ]
    assert (job.attempts, job.captured_credits) == (2, 1)


def test_a_snapshot_gives_the_same_job_back() -> None:
    job = evolve(Job(), SAMPLES["generation.job_requested.v1"])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(job), type=Job) == job
