"""Random lives of a job, without a database: whatever comes in whatever order, a few things hold.

The machine keeps the rows as the real code does (`entry_after`, leases taken beside the log) and a
model that counts what a person would count: ends, images, failed attempts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from generation.domain import commands as c
from generation.domain import events as e
from generation.domain.commands import FailureKind, JobCommand, Lease
from generation.domain.deciding import ATTEMPTS_MAX, Situation, decide
from generation.domain.errors import NotDecided
from generation.domain.job import Job, evolve
from generation.domain.rows import FundingEntry, FundingStep, QueueEntry, entry_after
from generation.domain.sessions import LiveSession, delivered
from generation.domain.states import JobState
from ledger.errors import Refusal
from ledger.identifiers import AccountId, HoldId, JobId
from ledger.log.model import Event
from tests.effort import lives

BEGIN = datetime(2026, 5, 1, tzinfo=UTC)
JOB, ACCOUNT = JobId("job_1"), AccountId("acct_1")
WORKERS = st.sampled_from(["wrk_a", "wrk_b", "wrk_c"])
CODES = st.sampled_from(["node_failed", "out_of_memory"])
NODES = st.sampled_from([None, "7", "8"])
KINDS = st.sampled_from([*["infrastructure"] * 7, "given_back", "given_back", "input"])
LEASE_TIME = timedelta(seconds=30)

_INTERRUPTIONS: dict[str, Callable[[LifeOfAJob], None]] = {
    "cancel": lambda life: life.cancel(),
    "pause": lambda life: life.pause(),
    "newer frame": lambda life: life.newer_frame_is_delivered(),
    "give way": lambda life: life.give_way(),
    "nobody pays": lambda life: life.nobody_pays(),
    "late news": lambda life: life.late_news_of_the_payment(),
    "hold closed": lambda life: life.an_operator_closes_the_hold(),
}


class LifeOfAJob(RuleBasedStateMachine):
    """One job from its request to its end, and everything that may happen around it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN
        self.job = Job()
        self.entry: QueueEntry | None = None
        self.funding: FundingEntry | None = None
        self.session: LiveSession | None = None
        self.hold_open = False
        self.history: list[Event] = []
        self.leases: list[Lease] = []

    # --- the world around the decision ---

    def situation(self) -> Situation:
        return Situation(
            job_id=JOB,
            job=self.job,
            entry=self.entry,
            funding=self.funding,
            session=self.session,
            hold_open=self.hold_open,
        )

    def do(self, command: JobCommand) -> list[Event]:
        """Decide, and let the events act. A refusal leaves everything exactly as it was."""
        before = (self.job, self.entry, self.funding, self.session)
        try:
            events = decide(self.situation(), command, self.now)
        except (Refusal, NotDecided):
            assert (self.job, self.entry, self.funding, self.session) == before
            return []
        for event in events:
            if isinstance(event, e.JobCompleted) and self.job.hold_id is not None:
                assert self.hold_open, "an image is shown only while its hold stands"
            self.job = evolve(self.job, event)
            if self.entry is not None:
                self.entry = entry_after(self.entry, event)
        self.history += events
        if self.job.state.final:
            self.hold_open = False
        return events

    @initialize(paid=st.sampled_from([False, False, True]), live=st.booleans())
    def ask(self, paid: bool, live: bool) -> None:
        hold = None if paid else HoldId("hold_1")
        deadline = self.now + timedelta(minutes=10)
        self.do(
            c.RequestJob(
                account_id=ACCOUNT,
                hold_id=hold,
                price_credits=1,
                graph="sketch@1",
                deadline=deadline,
                input_digest="d",
                live=live,
                session_id="s" if live else None,
                seq=5 if live else None,
            )
        )
        self.hold_open = hold is not None
        self.entry = QueueEntry(
            job_id=JOB,
            account_id=ACCOUNT,
            graph="sketch@1",
            state=self.job.state,
            rank=0,
            tag=0,
            held=not paid,
            requested_at=self.now,
            deadline=deadline,
        )
        if paid:
            self.funding = FundingEntry(
                job_id=JOB,
                account_id=ACCOUNT,
                method="fake",
                price_credits=1,
                state=FundingStep.WAITING,
                reference="pay_1",
                due_at=self.now,
            )
        if live:
            self.session = LiveSession(session_id="s", newest_seq=5, waiting_job=JOB, updated_at=self.now)

    # --- workers ---

    @precondition(lambda self: self.entry is not None and self.entry.state is JobState.QUEUED)
    @rule(worker=WORKERS, starts=st.sampled_from([True, True, True, False]))
    def lease(self, worker: str, starts: bool) -> None:
        """As the claims do, beside the log: the row first, the event afterwards or never."""
        assert self.entry is not None
        if self.entry.unclaimed(self.now) and worker not in self.entry.refused_workers:
            epoch = self.entry.epoch + 1
            until = self.now + LEASE_TIME
            self.entry = replace(
                self.entry, worker_id=worker, epoch=epoch, lease_expires_at=until, leased_at=self.now
            )
            self.leases.append(Lease(worker, epoch))
            if starts:
                self.do(c.StartJob(self.leases[-1]))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def start_late_or_twice(self, data: st.DataObject) -> None:
        lease = self.some_lease(data)
        started = self.do(c.StartJob(lease))
        if started:
            assert lease == self.leases[-1], "only the newest lease starts a job"

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), kind=KINDS, code=CODES, node=NODES)
    def end_attempt(self, data: st.DataObject, kind: str, code: str, node: str | None) -> None:
        lease, failed = self.some_lease(data), len(self.job.failures)
        events = self.do(c.EndAttempt(lease=lease, kind=kind, code=code, node=node))
        if kind == FailureKind.GIVEN_BACK and events:
            assert len(self.job.failures) == failed
            assert not isinstance(events[0], e.JobFailed)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), rarely=st.integers(0, 3))
    def deliver(self, data: st.DataObject, rarely: int) -> None:
        lease = self.some_lease(data)
        if rarely and lease == self.leases[-1]:
            return  # it fails more often than it succeeds, so that third attempts are reached
        image = c.CompleteJob(lease=lease, sha256="s", size_bytes=1, width=8, height=8, gpu_milliseconds=1)
        events = self.do(image)
        if events:
            assert lease == Lease(self.leases[-1].worker_id, self.leases[-1].epoch)
        if (
            events
            and isinstance(events[0], e.JobCompleted | e.JobSettling)
            and self.session
            and self.job.live
        ):
            self.session = delivered(self.session, JOB, self.job.seq or 0, self.now)
        if events and isinstance(events[0], e.JobSettling) and self.funding is not None:
            shown = {"worker_id": lease.worker_id, "epoch": lease.epoch, "sha256": "s", "size_bytes": 1}
            more = {"width": 8, "height": 8, "gpu_milliseconds": 1, "captured_credits": 1}
            facts = {"event": {**shown, **more}, "row": {}}
            self.funding = self.funding.step(FundingStep.SETTLING, self.now, result=facts)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), rarely=st.integers(0, 9))
    def block(self, data: st.DataObject, rarely: int) -> None:
        if rarely == 0 or self.job.state.final:
            self.do(c.BlockJob("image", "nudity", self.some_lease(data)))

    def some_lease(self, data: st.DataObject) -> Lease:
        """One that was given, or one that somebody made up."""
        forged = st.builds(Lease, WORKERS, st.integers(0, 4))
        return data.draw(st.one_of(st.just(self.leases[-1]), st.sampled_from(self.leases), forged))

    # --- people, money, time ---

    @rule(seconds=st.sampled_from([1, 1, 1, 20, 31, 31, 200]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.do(c.ExpireJob())

    @precondition(lambda self: self.job.state is JobState.AWAITING_PAYMENT)
    @rule(settled=st.booleans())
    def pay(self, settled: bool) -> None:
        hold = HoldId("hold_1") if settled else None
        if self.do(c.FundJob(payment_id="pay_1", hold_id=hold, deadline=self.now + timedelta(minutes=10))):
            self.hold_open = settled
            if settled:
                self.funding = None

    @precondition(lambda self: self.job.state is JobState.SETTLING)
    @rule(outcome=st.sampled_from([None, "account_in_debt", "went_back"]))
    def settle(self, outcome: str | None) -> None:
        self.do(c.FailSettlement() if outcome == "went_back" else c.ConcludeSettlement(outcome))

    @rule(what=st.sampled_from(sorted(_INTERRUPTIONS)), rarely=st.integers(0, 5))
    def something_comes_between(self, what: str, rarely: int) -> None:
        """One rule for all that may end it, so that most lives are long enough to be interesting."""
        if rarely == 0:
            _INTERRUPTIONS[what](self)

    def cancel(self) -> None:
        events = self.do(c.CancelJob())
        if not events and self.entry is not None and not self.job.state.final:
            self.entry = replace(self.entry, cancel_asked=True)

    def pause(self) -> None:
        if self.session is not None:
            self.session = replace(self.session, paused=not self.session.paused)
            self.do(c.StopPausedJob())

    def newer_frame_is_delivered(self) -> None:
        if self.session is not None and self.session.delivered_job != JOB:
            self.session = delivered(self.session, JobId("job_9"), 9, self.now)

    def give_way(self) -> None:
        self.do(c.SupersedeJob(JobId("job_2")))

    def nobody_pays(self) -> None:
        if self.job.state in (JobState.AWAITING_PAYMENT, JobState.SETTLING) or self.job.state.final:
            self.do(c.FailJob("not_paid", FailureKind.PAYMENT))

    def late_news_of_the_payment(self) -> None:
        self.do(c.FundJob(payment_id="pay_1", hold_id=None, deadline=self.now + timedelta(minutes=10)))
        self.do(c.ConcludeSettlement())

    def an_operator_closes_the_hold(self) -> None:
        self.hold_open = False

    # --- what always holds ---

    @invariant()
    def it_ends_at_most_once_and_nothing_comes_after(self) -> None:
        ends = [at for at, event in enumerate(self.history) if _is_end(event)]
        assert len(ends) <= 1
        assert not ends or ends[0] == len(self.history) - 1

    @invariant()
    def it_has_an_entry_exactly_while_it_lives(self) -> None:
        if self.history:
            assert (self.entry is None) == self.job.state.final
        if self.entry is not None:
            assert self.entry.state is self.job.state
            assert self.entry.attempts == self.job.attempts

    @invariant()
    def an_image_is_shown_only_once_it_is_paid_for(self) -> None:
        for event, before in zip(self.history[1:], self.history, strict=False):
            if isinstance(event, e.JobCompleted):
                assert event.captured_credits == self.job.price_credits
                assert isinstance(before, e.JobStarted | e.JobSettling)

    @invariant()
    def nobody_fails_on_it_more_often_than_allowed(self) -> None:
        assert len(self.job.failures) < ATTEMPTS_MAX
        assert len({failure.worker_id for failure in self.job.failures}) == len(self.job.failures)

    @invariant()
    def its_history_folds_to_its_state(self) -> None:
        state: Any = Job()
        for event in self.history:
            state = evolve(state, event)
        assert state == self.job


def _is_end(event: Event) -> bool:
    return evolve(Job(), event).state.final


LifeOfAJob.TestCase.settings = settings(max_examples=lives(120), stateful_step_count=50, deadline=None)
test_whatever_happens_a_job_ends_once_and_only_its_holder_reports = LifeOfAJob.TestCase
