"""A range is built of a line, a turn and the painting; each part stands for itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from generation.domain.fairness import SLOT
from generation.queueing.estimating import Estimate, Place, Span, estimate, in_line, until_turn
from generation.queueing.pace import NOTED_FOR, TELLING_AFTER, UNSEEN_MAX, Pace, PaceWatch
from ledger.identifiers import JobId
from tests.generation.core.world import World

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TWO_SECONDS = [2000] * 20


def place(
    position: int, *, running: int = 10, workers: int = 10, ahead: int = 0, pace: Pace | None = None
) -> Place:
    return Place(position, running, workers, rank=5 * SLOT + ahead, virtual_time=5 * SLOT, pace=pace)


# --- the line ---


def test_with_a_free_worker_there_is_only_the_painting() -> None:
    one = place(2, running=8)
    assert in_line(one, 10, 2000) == Span(0, 0)
    assert estimate(one, TWO_SECONDS) == Estimate(2, 2, 3, one.workers)


def test_those_before_it_are_painted_by_all_workers_together() -> None:
    near, far = in_line(place(11), 10, 2000), in_line(place(101), 10, 2000)
    assert near == Span(2000 * 6 // 10, 2200 * 18 // 10 + 400)
    assert far.low == 10 * near.low
    assert far == Span(20_000 * 6 // 10, 20_200 * 18 // 10 + 400)


def test_the_next_in_line_may_get_a_worker_at_once_or_let_two_pass() -> None:
    assert in_line(place(1, running=1, workers=1), 1, 2000) == Span(0, 3600 + 4000)


def test_jobs_that_run_where_no_worker_was_heard_of_lately_count_as_workers() -> None:
    unheard = estimate(place(1, running=4, workers=0), TWO_SECONDS)
    assert unheard[:3] == estimate(place(1, running=4, workers=4), TWO_SECONDS)[:3]


@pytest.mark.parametrize(("workers", "images"), [(0, TWO_SECONDS), (3, [])])
def test_without_a_worker_or_an_image_no_range_is_promised(workers: int, images: list[int]) -> None:
    assert estimate(place(4, running=0, workers=workers), images) == Estimate(4, None, None, workers)


# --- the painting ---


def test_the_painting_is_as_quick_as_the_quickest_and_as_slow_as_the_slowest_tenth() -> None:
    images = [1000] * 15 + [2500] * 70 + [9000] * 15
    assert estimate(place(1, running=0), images) == Estimate(1, 1, 10, place(1).workers)


# --- the turn ---


def test_a_turn_far_ahead_takes_as_long_as_virtual_time_needs_to_get_there() -> None:
    pace = Pace(moved=6 * SLOT, milliseconds=60_000)
    assert until_turn(place(1, ahead=3 * SLOT, pace=pace), 10) == Span(18_000, 45_000)
    assert estimate(place(1, ahead=3 * SLOT, pace=pace), TWO_SECONDS) == Estimate(1, 20, 48, place(1).workers)


def test_the_longer_one_of_line_and_turn_counts() -> None:
    quick = Pace(moved=600 * SLOT, milliseconds=60_000)
    assert estimate(place(101, ahead=SLOT, pace=quick), TWO_SECONDS) == estimate(place(101), TWO_SECONDS)


@pytest.mark.parametrize(
    "one",
    [
        place(5, ahead=0, pace=Pace(SLOT, 1000)),
        place(5, ahead=-3 * SLOT, pace=Pace(SLOT, 1000)),
        place(5, ahead=3 * SLOT),
        place(1, running=2, ahead=3 * SLOT, pace=Pace(SLOT, 60_000)),
    ],
    ids=["due", "ahead of others", "pace not known", "a worker is free"],
)
def test_a_turn_that_is_due_or_unknown_or_not_needed_adds_nothing(one: Place) -> None:
    assert until_turn(one, 10) == Span(0, 0)


# --- the pace ---


def walked(seconds: int, *, speed: int = 1000, step: int = 1) -> PaceWatch:
    """A watch that was looked at all the time while virtual time moved."""
    watch = PaceWatch()
    for now in range(0, seconds + 1, step):
        watch.note(NOON + now * SECOND, now * speed, waiting=True)
    return watch


def test_a_pace_wants_a_while() -> None:
    few = TELLING_AFTER // SECOND
    assert walked(few - 1).pace(NOON + (few - 1) * SECOND, 1_000_000) is None
    assert walked(few).pace(NOON + few * SECOND, few * 1000) == Pace(few * 1000, few * 1000)
    assert PaceWatch().pace(NOON, 7) is None


def test_a_pace_is_that_of_the_last_minute() -> None:
    watch = walked(300, speed=10)
    for now in range(300, 361):
        watch.note(NOON + now * SECOND, 3000 + (now - 300) * 500, waiting=True)
    found = watch.pace(NOON + 360 * SECOND, 33_000)
    assert found is not None
    assert found.milliseconds <= NOTED_FOR // timedelta(milliseconds=1)
    assert found.moved * 1000 // found.milliseconds == 500


def test_while_nobody_waits_virtual_time_says_nothing() -> None:
    watch = walked(30)
    watch.note(NOON + 31 * SECOND, 31_000, waiting=False)
    assert watch.pace(NOON + 32 * SECOND, 32_000) is None
    watch.note(NOON + 42 * SECOND, 36_000, waiting=True)
    assert watch.pace(NOON + 42 * SECOND, 36_000) == Pace(5000, 11_000)


def test_a_time_in_which_nobody_looked_is_not_counted() -> None:
    watch, later = walked(30), NOON + 30 * SECOND + UNSEEN_MAX + SECOND
    watch.note(later, 31_000, waiting=True)
    assert watch.pace(later, 31_000) is None


def test_virtual_time_that_stands_still_has_no_pace() -> None:
    assert walked(30, speed=0).pace(NOON + 30 * SECOND, 0) is None


# --- the queue ---


async def test_a_place_says_where_virtual_time_is_and_how_fast_it_goes(world: World) -> None:
    person, worker = await world.person(100), await world.worker()
    jobs: list[JobId] = [await world.ask(person) for _ in range(20)]
    first = await world.queue.place(jobs[-1], world.clock())
    assert first is not None
    assert (first.position, first.virtual_time, first.pace) == (20, 0, None)
    assert first.rank == 19 * SLOT
    for _ in range(12):
        world.pass_time(seconds=1)
        await worker.paint()
        later = await world.queue.place(jobs[-1], world.clock())
    assert later is not None
    assert (later.position, later.rank, later.virtual_time) == (8, 19 * SLOT, 11 * SLOT)
    assert later.pace is not None
    assert later.pace.moved == 11 * SLOT
    assert 12_000 <= later.pace.milliseconds < 13_000
