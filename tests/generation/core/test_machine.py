"""Random histories of people and workers against a naive model: nothing lost, nothing paid twice."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from generation.delivery.dispatch import Assignment
from generation.domain.errors import JobAlreadyEnded, SessionPaused, StaleLease
from generation.domain.sessions import SessionChange
from generation.domain.states import JobState
from generation.store.tables import job_queue, job_results
from ledger.domain.refusals import InsufficientCredits
from ledger.identifiers import AccountId, JobId
from tests.effort import lives
from tests.generation.core.world import FakeWorker, World, forget_everything, open_world

T = TypeVar("T")
ALLOWANCE = 20


@asynccontextmanager
async def _world(url: str) -> AsyncIterator[World]:
    forget_everything(url)
    with tempfile.TemporaryDirectory() as folder:
        async with open_world(url, Path(folder)) as world:
            yield world


class Histories(RuleBasedStateMachine):
    """The model: who asked for what, and which images were delivered."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.world: World = self.now(self.stack.enter_async_context(_world(self.url)))
        self.people: list[AccountId] = [self.now(self.world.person()) for _ in range(2)]
        self.workers: list[FakeWorker] = [self.now(self.world.worker()) for _ in range(3)]
        self.jobs: dict[JobId, AccountId] = {}
        self.leases: list[tuple[FakeWorker, Assignment]] = []
        self.delivered: dict[AccountId, int] = dict.fromkeys(self.people, 0)
        self.seq = 0
        self.frames: set[JobId] = set()
        self.paused: set[AccountId] = set()

    def now(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.now(self.stack.aclose())
        self.runner.close()

    @rule(who=st.integers(0, 1), live=st.booleans())
    def ask(self, who: int, live: bool) -> None:
        person = self.people[who]
        self.seq += 1
        try:
            request = self.world.frame(person, self.seq) if live else self.world.ask(person)
            job_id = self.now(request)
        except SessionPaused:
            assert live
            assert person in self.paused
        except InsufficientCredits:
            assert self.now(self.world.available(person)) == 0
        else:
            assert not live or person not in self.paused
            self.jobs[job_id] = person
            if live:
                self.frames.add(job_id)

    @rule(who=st.integers(0, 1), paused=st.booleans())
    def pause(self, who: int, paused: bool) -> None:
        person, sessions = self.people[who], self.world.generations.sessions
        change = SessionChange(paused=paused)
        self.now(sessions.change(self.world.ids.command(), person, "s1", change))
        (self.paused.add if paused else self.paused.discard)(person)
        if paused:
            assert not self.waiting_frames(person), "nothing waits, or is held, when a pause is answered"

    def waiting_frames(self, person: AccountId) -> set[JobId]:
        rows = self.now(self.world.rows(job_queue))
        waiting = {row["job_id"] for row in rows if row["state"] == "queued"}
        return {job_id for job_id in waiting & self.frames if self.jobs[job_id] == person}

    @rule(number=st.integers(0, 2))
    def claim(self, number: int) -> None:
        worker = self.workers[number]
        job = self.now(worker.claim())
        if job is not None:
            job_id = job.claim.job_id
            assert job_id not in self.frames or self.jobs[job_id] not in self.paused
            self.leases.append((worker, job))

    def report(self, number: int, work: Callable[[FakeWorker, Assignment], Coroutine[Any, Any, str]]) -> None:
        worker, job = self.leases[number % len(self.leases)]
        before = self.now(self.world.state(job.claim.job_id))
        try:
            state = self.now(work(worker, job))
        except StaleLease:
            return
        if state == "completed" and before is not JobState.COMPLETED:
            self.delivered[self.jobs[job.claim.job_id]] += 1

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 50))
    def deliver(self, number: int) -> None:
        self.report(number, lambda worker, job: worker.deliver(job))

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 50), failure=st.sampled_from(["input", "infrastructure"]))
    def fail(self, number: int, failure: str) -> None:
        self.report(number, lambda worker, job: worker.fail(job, failure, "broken", "KSampler"))

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 50))
    def give_back(self, number: int) -> None:
        give_back = self.world.dispatch.give_back
        self.report(number, lambda worker, job: give_back(worker.worker, job.claim.job_id, job.claim.epoch))

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 50))
    def cancel(self, number: int) -> None:
        job_id, person = list(self.jobs.items())[number % len(self.jobs)]
        try:
            self.now(self.world.generations.cancel(person, job_id))
        except JobAlreadyEnded:
            assert self.now(self.world.state(job_id)).final

    @rule(seconds=st.sampled_from([1, 31, 200, 601]))
    def pass_time(self, seconds: int) -> None:
        self.world.pass_time(seconds=seconds)
        self.now(self.world.dispatch.sweep())
        self.now(self.world.generations.sessions.sweep())
        assert not any(self.waiting_frames(person) for person in self.paused)

    @invariant()
    def every_hold_stands_for_a_job_and_every_image_is_paid_once(self) -> None:
        rows = {row["job_id"] for row in self.now(self.world.rows(job_queue))}
        open_jobs: dict[AccountId, set[JobId]] = {person: set() for person in self.people}
        for job_id, person in self.jobs.items():
            if not self.now(self.world.state(job_id)).final:
                open_jobs[person].add(job_id)
        assert rows == set().union(*open_jobs.values())
        for person in self.people:
            assert self.now(self.world.open_holds(person)) == open_jobs[person]
            spent = self.delivered[person] + len(open_jobs[person])
            assert self.now(self.world.available(person)) == ALLOWANCE - spent
            self.now(self.world.generations.returns.sweep())
            session = self.now(self.world.generations.sessions.look(person, "s1"))
            assert session.spent_credits == len(self.painted(person) | open_jobs[person] & self.frames)
        images = len(self.now(self.world.rows(job_results)))
        assert images == sum(self.delivered.values())

    def painted(self, person: AccountId) -> set[JobId]:
        """The frames of this person that were delivered."""
        images = {row["job_id"] for row in self.now(self.world.rows(job_results))}
        return {job_id for job_id in images & self.frames if self.jobs[job_id] == person}


@pytest.mark.slow
def test_whatever_people_and_workers_do_images_and_credits_agree(generation_database: str) -> None:
    run_state_machine_as_test(
        type("OnThisDatabase", (Histories,), {"url": generation_database}),
        settings=settings(
            max_examples=lives(6),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
