"""Live sessions: order of frames, limits, pauses. Without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from generation.domain.errors import OutOfOrder, SessionPaused, SessionSpendCapReached, TooManyVariations
from generation.domain.sessions import (
    LiveSession,
    SessionChange,
    SessionLimits,
    changed,
    charged,
    delivered,
    entered,
    newer_delivered,
    view_of,
)
from ledger.identifiers import JobId

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LIMITS = SessionLimits(credits_max=10, variations_max=2)
JOB = JobId("job_1")


def session(**values: object) -> LiveSession:
    return LiveSession(session_id="acct_1/s", updated_at=NOW, **values)  # type: ignore[arg-type]


def enter(now: LiveSession, seq: int | None = 0, cap: int | None = None) -> LiveSession:
    return entered(now, job_id=JOB, seq=seq, cap_credits=cap, limits=LIMITS, now=NOW)


def test_frames_come_in_order_or_not_at_all() -> None:
    first = enter(session(), 4)
    assert (first.newest_seq, first.waiting_job) == (4, JOB)
    for late in (3, 4):
        with pytest.raises(OutOfOrder) as refused:
            enter(first, late)
        assert refused.value.newest == 4
    assert enter(first, 5).newest_seq == 5


def test_variations_are_counted_and_wait_in_nobodys_place() -> None:
    after = enter(enter(session(waiting_job="job_9"), None), None)
    assert (after.variations, after.waiting_job, after.newest_seq) == (2, "job_9", -1)
    with pytest.raises(TooManyVariations) as refused:
        enter(after, None)
    assert refused.value.details == {"limit": 2}


def test_a_paused_session_takes_nothing() -> None:
    for seq in (7, None):
        with pytest.raises(SessionPaused) as refused:
            enter(session(paused=True), seq)
        assert refused.value.details == {"paused_by": "person"}


def test_a_limit_is_reached_exactly_and_not_passed() -> None:
    assert charged(session(requested_credits=9), 1, LIMITS).requested_credits == 10
    with pytest.raises(SessionSpendCapReached) as refused:
        charged(session(requested_credits=9), 2, LIMITS)
    assert refused.value.details == {"limit": 10, "spent": 9, "paused_by": "spend_cap"}


@pytest.mark.parametrize(("cap", "limit"), [(None, 10), (4, 4), (10, 10), (500, 10)])
def test_the_smaller_limit_counts(cap: int | None, limit: int) -> None:
    assert view_of(session(cap_credits=cap), LIMITS).limit_credits == limit


@pytest.mark.parametrize(
    ("had", "asks", "has"), [(None, None, None), (None, 5, 5), (3, 5, 3), (5, 3, 3), (5, None, 5)]
)
def test_a_frame_lowers_the_limit_and_never_raises_it(
    had: int | None, asks: int | None, has: int | None
) -> None:
    assert enter(session(cap_credits=had), 1, asks).cap_credits == has


def test_what_was_never_used_has_spent_nothing() -> None:
    assert view_of(None, LIMITS) == (None, None, 10, 0, 0)


def test_a_session_is_shown_as_it_is() -> None:
    used = session(cap_credits=4, requested_credits=3, variations=2)
    assert view_of(used, LIMITS) == (None, 4, 4, 3, 2)


def test_whatever_changes_a_session_says_when() -> None:
    now = NOW + timedelta(seconds=1)
    frame = entered(session(), job_id=JOB, seq=1, cap_credits=None, limits=LIMITS, now=now)
    variation = entered(session(), job_id=JOB, seq=None, cap_credits=None, limits=LIMITS, now=now)
    paused = changed(session(), SessionChange(paused=True), LIMITS, now)
    shown = delivered(session(), JOB, 1, now)
    assert [each.updated_at for each in (frame, variation, paused, shown)] == [now] * 4


def test_who_paused_it_is_said_person_before_limit() -> None:
    assert view_of(session(paused=True, requested_credits=10), LIMITS).paused_by == "person"
    assert view_of(session(requested_credits=10), LIMITS).paused_by == "spend_cap"
    assert view_of(session(requested_credits=9), LIMITS).paused_by is None


def test_a_change_leaves_what_it_does_not_name() -> None:
    before = session(cap_credits=4, paused=True)
    assert changed(before, SessionChange(paused=False), LIMITS, NOW).cap_credits == 4
    assert changed(before, SessionChange(cap_credits=6), LIMITS, NOW).paused
    assert changed(before, SessionChange(uncap=True), LIMITS, NOW).cap_credits is None


def test_a_session_that_has_nothing_left_is_not_resumed() -> None:
    spent = session(cap_credits=4, requested_credits=4, paused=True)
    with pytest.raises(SessionSpendCapReached):
        changed(spent, SessionChange(paused=False), LIMITS, NOW)
    assert not changed(spent, SessionChange(paused=False, cap_credits=5), LIMITS, NOW).paused


def test_delivering_moves_the_newest_and_frees_only_its_own_place() -> None:
    before = session(waiting_job=JOB, newest_seq=3)
    after = delivered(before, JOB, 3, NOW)
    assert (after.delivered_seq, after.delivered_job, after.waiting_job) == (3, JOB, None)
    assert delivered(session(waiting_job="job_2"), JOB, 3, NOW).waiting_job == "job_2"
    assert newer_delivered(after, 3) == JOB
    assert newer_delivered(after, 2) == JOB
    assert newer_delivered(after, 4) is None
