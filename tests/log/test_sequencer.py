"""The sequencer on real PostgreSQL: many of them at once, lost answers, bad rows, bounds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import structlog
from psycopg_pool import AsyncConnectionPool

from ledger.clock import ManualClock
from ledger.errors import LogUnavailable, OutcomeUnknown, TooBusy
from ledger.identifiers import CommandKey
from ledger.log.cache import SNAPSHOT_EVERY
from ledger.log.categories import Categories
from ledger.log.model import Event, Receipt, Transaction, UnitOfWork
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import CATCH_UP_LIMIT, Sequencer
from ledger.log.verify import verify
from tests.log.conftest import CATEGORIES, StartSequencer, answers_to, log_held
from tests.log.faulty import FaultyRecorder, Watch
from tests.log.purse import NOTES, PURSES, CoinsAdded, Purse, TooFewCoins, add, move, note, take

ROOT = Path(__file__).resolve().parents[2]
ATTEMPTS = 3


def fill(key: str, purse: str, events: int) -> Transaction:
    """One command with many events."""

    def decide(uow: UnitOfWork) -> None:
        uow.append(purse, [CoinsAdded(amount=1)] * events)

    return Transaction(
        key=CommandKey(key),
        actor="system:test",
        body=["fill", purse, events],
        streams=(purse,),
        decide=decide,
    )


@pytest.mark.parametrize("many", [2, pytest.param(10, marks=pytest.mark.slow_suite)])
async def test_processes_side_by_side_lose_no_update_and_progress_evenly(
    log_database: str, coins: Callable[[str], Awaitable[int]], many: int
) -> None:
    each = 2_000 // many
    uneven = []
    for attempt in range(1, ATTEMPTS + 1):
        assert await _side_by_side(log_database, f"a{attempt}", many, each) == [0] * many
        assert await coins("purse_hot") == each * many * attempt
        turns = _turns_while_all_were_at_it(log_database, f"a{attempt}")
        assert len(turns) == many
        # The bench measures shares on a calm machine; here nobody may starve, unless the machine itself lets them.
        if min(turns) * many * 5 >= sum(turns):
            return
        uneven.append(turns)
    pytest.fail(f"one of them was left behind each time: {uneven}")


async def _side_by_side(url: str, name: str, many: int, each: int) -> list[int]:
    """Let so many processes write to one stream at once; returns how they ended."""
    started = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.log.busy", url, f"{name}p{number}", str(each)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        for number in range(many)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write(b"\n")
        return [await asyncio.wait_for(process.wait(), 60) for process in started]
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()


def _turns_while_all_were_at_it(url: str, name: str) -> list[int]:
    """How many batches each process had between the last one's first and the first one's last, from the log."""
    query = """
        WITH done AS (
            SELECT split_part(key, '-', 1) AS name, batch FROM log_outcomes
            WHERE key LIKE %s AND key NOT LIKE '%%first'
        ),
             each AS (SELECT name, min(batch) AS first, max(batch) AS last FROM done GROUP BY name),
             span AS (SELECT max(first) AS first, min(last) AS last FROM each)
        SELECT count(DISTINCT batch) FILTER (WHERE done.batch BETWEEN span.first AND span.last)
        FROM done, span GROUP BY name
    """
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute(query, (f"{name}p%",)).fetchall()]


async def test_ten_sequencers_on_one_hot_stream_lose_no_update(
    start: StartSequencer, coins: Callable[[str], Awaitable[int]]
) -> None:
    commands = [[add(f"k{number}-{step}", "purse_hot", 1) for step in range(40)] for number in range(10)]
    await asyncio.gather(*(answers_to(start(batch_limit=7), mine) for mine in commands))
    assert await coins("purse_hot") == 400


async def test_no_coin_is_spent_twice_by_two_sequencers(
    start: StartSequencer, coins: Callable[[str], Awaitable[int]]
) -> None:
    one, other = start(), start()
    await one.submit(add("k0", "purse_a", 25))
    answers = await asyncio.gather(
        answers_to(one, [take(f"a{n}", "purse_a", 1) for n in range(20)]),
        answers_to(other, [take(f"b{n}", "purse_a", 1) for n in range(20)]),
    )
    refused = [a for batch in answers for a in batch if isinstance(a, TooFewCoins)]
    assert len(refused) == 15
    assert await coins("purse_a") == 0


async def test_the_same_command_at_two_sequencers_is_done_once(
    start: StartSequencer, coins: Callable[[str], Awaitable[int]]
) -> None:
    sequencers = [start() for _ in range(4)]
    for key in range(10):
        answers = await asyncio.gather(*(s.submit(add(f"k{key}", "purse_a", 1)) for s in sequencers))
        assert [a.replayed for a in answers].count(False) == 1
        assert {a.position for a in answers} == {key + 1}
    assert await coins("purse_a") == 10


async def test_a_row_that_postgresql_refuses_fails_alone(
    start: StartSequencer, log_database: str, coins: Callable[[str], Awaitable[int]]
) -> None:
    sequencer = start()
    commands = [note(f"k{n}", f"row{n}", step=100 if n == 5 else 1, purse="purse_a") for n in range(12)]
    with structlog.testing.capture_logs() as reported:
        with log_held(log_database):
            waiting = asyncio.create_task(answers_to(sequencer, commands))
            await asyncio.sleep(0)
        answers = await waiting
    [failed] = [entry for entry in reported if entry["event"] == "command_failed"]
    assert (failed["log_level"], failed["key"]) == ("error", "k5")
    assert "CheckViolation" in failed["error"]
    assert [type(a) for a in answers].count(Receipt) == 11
    assert isinstance(answers[5], psycopg.errors.CheckViolation)
    assert await coins("purse_a") == 11
    assert verify(log_database, CATEGORIES).ok


async def test_a_row_that_must_be_the_only_one_of_its_kind_fails_alone(
    start: StartSequencer, log_database: str, coins: Callable[[str], Awaitable[int]]
) -> None:
    """Not to be taken for a command that is known already, which shows itself in the same way."""
    with psycopg.connect(log_database) as connection:
        connection.execute("CREATE UNIQUE INDEX one_of_each_count ON test_notes (count)")
    sequencer = start()
    commands = [note(f"k{n}", f"row{n}", step=1 + n % 7, purse="purse_a") for n in range(8)]
    with log_held(log_database):
        waiting = asyncio.create_task(answers_to(sequencer, commands))
        await asyncio.sleep(0)
    answers = await waiting
    assert [type(answer) for answer in answers] == [*[Receipt] * 7, psycopg.errors.UniqueViolation]
    assert await coins("purse_a") == 7
    assert verify(log_database, CATEGORIES).ok


@pytest.mark.parametrize("lost", [1, 2])
async def test_an_answer_lost_after_commit_is_found_again(
    start: StartSequencer, log_database: str, coins: Callable[[str], Awaitable[int]], lost: int
) -> None:
    watch = Watch(lose_answers=lost)
    sequencer = start(watch)
    sequencer._pause.set()
    answers = await answers_to(sequencer, [add(f"k{n}", "purse_a", 1) for n in range(8)])
    assert all(isinstance(answer, Receipt) for answer in answers)
    assert await coins("purse_a") == 8
    report = verify(log_database, CATEGORIES)
    assert (report.ok, report.events, report.outcomes) == (True, 8, 8)


async def test_a_connection_lost_before_commit_is_tried_again(
    start: StartSequencer, coins: Callable[[str], Awaitable[int]]
) -> None:
    sequencer = start(Watch(lose_commits=2))
    sequencer._pause.set()
    receipt = await sequencer.submit(add("k1", "purse_a", 5))
    assert (receipt.position, receipt.replayed) == (1, False)
    assert await coins("purse_a") == 5


async def test_without_a_database_nothing_was_decided(start: StartSequencer) -> None:
    sequencer = start(Watch(refuse_connections=True))
    sequencer._pause.set()
    with pytest.raises(LogUnavailable):
        await sequencer.submit(add("k1", "purse_a", 5))


async def test_an_answer_lost_for_good_is_unknown_and_asking_again_tells(
    start: StartSequencer, coins: Callable[[str], Awaitable[int]]
) -> None:
    watch = Watch(lose_answers=1)
    sequencer = start(watch)
    sequencer._pause.set()
    await sequencer.submit(add("k0", "purse_a", 1))
    watch.lose_answers = 1

    original = FaultyRecorder.writing

    def gone(recorder: FaultyRecorder) -> object:
        recorder.watch.refuse_connections = watch.lose_answers == 0
        return original(recorder)

    recorder = sequencer._recorder
    assert isinstance(recorder, FaultyRecorder)
    recorder.writing = lambda: gone(recorder)  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(OutcomeUnknown):
        await sequencer.submit(add("k1", "purse_a", 5))
    del recorder.writing
    watch.refuse_connections = False
    again = await sequencer.submit(add("k1", "purse_a", 5))
    assert (again.replayed, again.position) == (True, 2)
    assert await coins("purse_a") == 6


async def test_a_connection_lost_while_sending_leaves_unknown_what_became_of_it(
    start: StartSequencer, coins: Callable[[str], Awaitable[int]]
) -> None:
    """The bytes may have arrived: nobody may be told that nothing was decided."""
    watch = Watch(break_off_sending=1)
    sequencer = start(watch)
    sequencer._pause.set()
    with pytest.raises(OutcomeUnknown):
        await sequencer.submit(add("k1", "purse_a", 5))
    watch.refuse_connections = False
    assert (await sequencer.submit(add("k1", "purse_a", 5))).replayed
    assert await coins("purse_a") == 5


@pytest.mark.parametrize("events", [10, 10_000])
async def test_loading_a_stream_reads_a_bounded_number_of_events(start: StartSequencer, events: int) -> None:
    writer = start()
    pages, rest = divmod(events, 90)
    await asyncio.gather(*(writer.submit(fill(f"f{n}", "purse_a", 90)) for n in range(pages)))
    await writer.submit(fill("rest", "purse_a", rest))
    watch = Watch()
    receipt = await start(watch).submit(add("k1", "purse_a", 1))
    assert receipt.result == {"coins": events + 1}
    assert watch.rows_read < SNAPSHOT_EVERY * 2


async def test_a_snapshot_of_another_shape_is_ignored(
    start: StartSequencer, log_database: str, coins: Callable[[str], Awaitable[int]]
) -> None:
    writer = start()
    for n in range(3):
        await writer.submit(fill(f"f{n}", "purse_a", 90))
    with psycopg.connect(log_database) as connection:
        changed = connection.execute("UPDATE log_snapshots SET shape = 'old', state = '\\x00'")
        assert changed.rowcount == 1
        connection.commit()
    assert await coins("purse_a") == 270
    receipt = await start().submit(add("k1", "purse_a", 1))
    assert receipt.result == {"coins": 271}
    assert verify(log_database, CATEGORIES).ok


async def test_the_cache_is_bounded_and_forgets_nothing_that_matters(start: StartSequencer) -> None:
    sequencer = start(cache_capacity=10)
    for _ in range(2):
        answers = await answers_to(sequencer, [add(f"{_}-{n}", f"purse_{n}", 1) for n in range(50)])
        assert all(isinstance(a, Receipt) and a.result == {"coins": _ + 1} for a in answers)
        assert len(sequencer._cache) <= 10


async def test_what_others_appended_is_folded_in_without_reading_it_all_again(start: StartSequencer) -> None:
    watch = Watch()
    one, other = start(watch), start()
    await one.submit(fill("f0", "purse_a", 50))
    await other.submit(add("k1", "purse_a", 5))
    watch.rows_read = 0
    receipt = await one.submit(add("k2", "purse_a", 1))
    assert receipt.result == {"coins": 56}
    assert watch.rows_read == 1


async def test_more_than_the_catch_up_limit_is_not_read_but_the_cache_starts_afresh(
    start: StartSequencer,
) -> None:
    watch = Watch()
    one, other = start(watch), start()
    await one.submit(add("k1", "purse_a", 1))
    pages = CATCH_UP_LIMIT // 500 + 1
    await asyncio.gather(*(other.submit(fill(f"f{n}", f"purse_{n}", 500)) for n in range(pages)))
    await other.submit(add("k2", "purse_a", 1))
    watch.rows_read = 0
    receipt = await one.submit(add("k3", "purse_a", 1))
    assert receipt.result == {"coins": 3}
    assert watch.rows_read == 2


async def test_a_full_queue_says_so_and_decides_nothing(
    start: StartSequencer, log_database: str, coins: Callable[[str], Awaitable[int]]
) -> None:
    sequencer = start(queue_limit=5, batch_limit=2)
    with log_held(log_database):
        waiting = asyncio.create_task(answers_to(sequencer, [add(f"k{n}", "purse_a", 1) for n in range(40)]))
        await asyncio.sleep(0)
    answers = await waiting
    busy = [a for a in answers if isinstance(a, TooBusy)]
    accepted = [a for a in answers if isinstance(a, Receipt)]
    assert len(busy) + len(accepted) == 40
    assert 5 <= len(accepted) <= 7
    assert await coins("purse_a") == len(accepted)


async def test_stopping_finishes_what_waits_and_takes_nothing_new(
    start: StartSequencer, log_database: str, coins: Callable[[str], Awaitable[int]]
) -> None:
    sequencer = start(batch_limit=8)
    with log_held(log_database):
        waiting = asyncio.create_task(answers_to(sequencer, [add(f"k{n}", "purse_a", 1) for n in range(50)]))
        await asyncio.sleep(0)
        stopped = asyncio.create_task(asyncio.to_thread(sequencer.stop))
        await asyncio.sleep(0)
    answers = await waiting
    await stopped
    assert all(isinstance(answer, Receipt) for answer in answers)
    assert await coins("purse_a") == 50
    with pytest.raises(LogUnavailable):
        await sequencer.submit(add("late", "purse_a", 1))


async def test_a_caller_that_gave_up_does_not_disturb_the_others(
    start: StartSequencer, log_database: str, coins: Callable[[str], Awaitable[int]]
) -> None:
    sequencer = start()
    with log_held(log_database):
        impatient = asyncio.create_task(sequencer.submit(add("k1", "purse_a", 1)))
        patient = asyncio.create_task(sequencer.submit(add("k2", "purse_a", 1)))
        await asyncio.sleep(0)
        impatient.cancel()
    assert (await patient).replayed is False
    assert await coins("purse_a") == 2, "what was handed in is done, whether or not anybody waits"


async def test_a_clock_that_runs_ahead_does_not_carry_the_log_into_the_future(
    log_database: str, clock: ManualClock
) -> None:
    clock.set(datetime.now(UTC) + timedelta(days=365))
    categories = Categories([PURSES])
    with open_datastore(log_database) as datastore:
        sequencer = Sequencer(
            LogRecorder(datastore), categories, clock, clock_ahead_max=timedelta(seconds=10)
        )
        with structlog.testing.capture_logs() as reported:
            sequencer.start()
            await sequencer.submit(add("k1", "purse_a", 1))
            sequencer.stop()
    [ahead] = [entry for entry in reported if entry["event"] == "clock_runs_ahead"]
    assert ahead["log_level"] == "error"
    assert ahead["by_seconds"] == pytest.approx(365 * 86_400, abs=600)
    async with AsyncConnectionPool(log_database, min_size=1, open=False) as pool:
        (entry,) = await PostgresLogReader(pool, categories).events("purse_a")
    assert entry.recorded_at < datetime.now(UTC) + timedelta(minutes=1)


async def test_a_clock_that_is_ahead_within_its_bound_is_believed(
    log_database: str, clock: ManualClock
) -> None:
    clock.set(datetime.now(UTC) + timedelta(minutes=30))
    with open_datastore(log_database) as datastore:
        sequencer = Sequencer(LogRecorder(datastore), CATEGORIES, clock, clock_ahead_max=timedelta(hours=1))
        sequencer.start()
        await sequencer.submit(add("k1", "purse_a", 1))
        sequencer.stop()
    async with AsyncConnectionPool(log_database, min_size=1, open=False) as pool:
        (entry,) = await PostgresLogReader(pool, CATEGORIES).events("purse_a")
    assert entry.recorded_at == clock()


async def test_whoever_watches_a_category_sees_each_new_event_in_its_transaction(
    log_database: str, clock: ManualClock
) -> None:
    def on_event(uow: UnitOfWork, stream: str, version: int, event: Event, after: Purse) -> None:
        row = {"id": f"{stream} {version}", "count": after.coins, "data": {"seen": type(event).__name__}}
        uow.put(NOTES, row)

    watched = Categories([replace(PURSES, on_event=on_event)])
    with open_datastore(log_database) as datastore:
        sequencer = Sequencer(LogRecorder(datastore), watched, clock)
        sequencer.start()
        await sequencer.submit(add("k1", "purse_a", 5))
        with pytest.raises(TooFewCoins):
            await sequencer.submit(move("k2", "purse_a", "purse_b", 9))
        await sequencer.submit(take("k3", "purse_a", 2))
        assert (await sequencer.submit(take("k3", "purse_a", 2))).replayed
        sequencer.stop()
    with psycopg.connect(log_database) as connection:
        seen = connection.execute("SELECT id, count, data->>'seen' FROM test_notes ORDER BY id").fetchall()
    assert seen == [("purse_a 1", 5, "CoinsAdded"), ("purse_a 2", 3, "CoinsTaken")]


async def test_what_is_remembered_is_never_without_what_another_process_recorded_before(
    start: StartSequencer,
) -> None:
    here, there = start(), start()
    await here.submit(add("k0", "purse_a", 1))
    for number in range(1, 30):
        elsewhere = await there.submit(add(f"there{number}", "purse_a", 1))
        assert here.seen("purse_a", elsewhere.position) is None
        turn = asyncio.create_task(here.submit(add(f"here{number}", "purse_b", 1)))
        while not turn.done():
            assert here.seen("purse_a", elsewhere.position) in (None, Purse(1 + number))
            await asyncio.sleep(0)
        assert here.seen("purse_b", (await turn).position) == Purse(number)
    await here.submit(add("last", "purse_a", 0))
    assert here.seen("purse_a", elsewhere.position) == Purse(30)
