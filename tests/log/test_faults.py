"""What goes wrong beside the commands: everybody is answered, and nobody is told that nothing happened if it did."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog

from ledger.clock import ManualClock
from ledger.errors import CorruptLog, InvariantViolated, OutcomeUnknown
from ledger.identifiers import CommandKey
from ledger.log import recorder
from ledger.log.categories import Categories
from ledger.log.model import Category, Event, Receipt, Transaction, UnitOfWork
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from ledger.log.verify import verify
from tests.log.conftest import CATEGORIES, START, StartSequencer, answers_to, log_held
from tests.log.faulty import FaultyConnection, Watch
from tests.log.purse import NOTES, PURSES, Purse, add, evolve, note, overdraw
from tests.waiting import SECONDS_MAX

ROOT = Path(__file__).resolve().parents[2]
Coins = Callable[[str], Awaitable[int]]


def command(key: str, decide: Callable[[UnitOfWork], Any], *streams: str) -> Transaction:
    return Transaction(key=CommandKey(key), actor="system:test", body=[key], streams=streams, decide=decide)


class CoinsBurnt(Event):
    amount: int


@contextmanager
def newer_process(url: str) -> Iterator[Sequencer]:
    """A process of the next release, which writes an event that this one does not know."""
    events = {**PURSES.events, "test.coins_burnt.v1": CoinsBurnt}
    newer = Category(
        prefix="purse", events=events, initial=Purse(), evolve=evolve, snapshot_type=PURSES.snapshot_type
    )
    with open_datastore(url) as datastore:
        sequencer = Sequencer(LogRecorder(datastore), Categories([newer]), ManualClock(START))
        sequencer.start()
        yield sequencer
        sequencer.stop()


async def test_an_event_from_the_next_release_does_not_fail_those_it_does_not_concern(
    start: StartSequencer, log_database: str, coins: Coins
) -> None:
    old = start()
    await answers_to(old, [add("k0", "purse_b", 1), add("k1", "purse_a", 1)])
    with newer_process(log_database) as newer:
        burn = command("k2", lambda uow: uow.append("purse_b", [CoinsBurnt(amount=1)]), "purse_b")
        await newer.submit(burn)
    with structlog.testing.capture_logs() as reported:
        assert (await old.submit(add("k3", "purse_a", 5))).result == {"coins": 6}
    [report] = [entry for entry in reported if entry["event"] == "not_decided_ahead"]
    assert report["log_level"] == "error"
    assert "CorruptLog" in report["error"]
    with pytest.raises(CorruptLog):
        await old.submit(add("k4", "purse_b", 1))
    assert (await old.submit(add("k5", "purse_a", 1))).result == {"coins": 7}
    assert await coins("purse_a") == 7


def stops(_: UnitOfWork) -> None:
    raise StopIteration


def gives_up(_: UnitOfWork) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("decide", [stops, gives_up])
async def test_what_a_future_cannot_carry_is_told_as_a_fault_and_disturbs_nobody(
    start: StartSequencer, log_database: str, decide: Callable[[UnitOfWork], None]
) -> None:
    sequencer = start()
    commands = [add("x", "purse_a", 1), command("bad", decide), add("y", "purse_a", 1)]
    with log_held(log_database):
        waiting = asyncio.create_task(answers_to(sequencer, commands))
        await asyncio.sleep(0)
    async with asyncio.timeout(SECONDS_MAX):
        one, bad, other = await waiting
    assert isinstance(bad, RuntimeError)
    assert [type(one), type(other)] == [Receipt, Receipt]
    assert (await sequencer.submit(add("z", "purse_a", 1))).result == {"coins": 3}


async def test_after_a_fault_of_the_sequencer_itself_nobody_is_told_that_nothing_happened(
    start: StartSequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequencer = start()
    await sequencer.submit(add("k0", "purse_a", 1))

    def broken(*_: object) -> None:
        monkeypatch.undo()
        raise SystemExit

    monkeypatch.setattr(sequencer, "_catch_up", broken)
    async with asyncio.timeout(recorder.STALLED_SECONDS - 5):
        with pytest.raises(OutcomeUnknown):
            await sequencer.submit(add("k1", "purse_a", 1))
        assert (await start().submit(add("k2", "purse_a", 1))).result == {"coins": 2}, "the lock is free"
        assert (await sequencer.submit(add("k3", "purse_a", 1))).result == {"coins": 3}


class FullDisk:
    """A log that cannot be written to."""

    def __getattr__(self, level: str) -> Any:
        raise OSError(28, "No space left on device")


async def test_a_full_disk_for_the_log_file_costs_nobody_an_answer(
    start: StartSequencer, monkeypatch: pytest.MonkeyPatch, coins: Coins
) -> None:
    sequencer = start()
    await sequencer.submit(add("k0", "purse_a", 1))
    monkeypatch.setattr(sequencer, "_log", FullDisk())

    async with asyncio.timeout(SECONDS_MAX):
        answers = await answers_to(sequencer, [overdraw("bad", "purse_a", 9), add("k1", "purse_a", 1)])
        assert [type(answer) for answer in answers] == [InvariantViolated, Receipt]
        (failed,) = await answers_to(sequencer, [note("k2", "row", step=100)])
        assert isinstance(failed, OutcomeUnknown), "the sequencer itself failed, when it tried to say why"
        assert (await sequencer.submit(add("k3", "purse_a", 1))).result == {"coins": 3}
    assert sequencer.violations == 1
    assert await coins("purse_a") == 3


async def test_a_connection_that_cannot_even_be_rolled_back_costs_nobody_an_answer(
    start: StartSequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequencer = start()
    await sequencer.submit(add("k0", "purse_a", 1))

    def broken(*_: object) -> None:
        raise SystemExit

    def stuck(_: FaultyConnection) -> None:
        monkeypatch.undo()
        raise ValueError("this is no connection any more")

    monkeypatch.setattr(sequencer, "_catch_up", broken)
    monkeypatch.setattr(FaultyConnection, "rollback", stuck)
    async with asyncio.timeout(SECONDS_MAX):
        with pytest.raises(OutcomeUnknown):
            await sequencer.submit(add("k1", "purse_a", 1))


async def test_answers_that_nobody_waits_for_any_more_are_dropped_and_the_others_given(
    start: StartSequencer, log_database: str, coins: Coins
) -> None:
    sequencer = start()

    def ask_and_leave() -> None:
        loop = asyncio.new_event_loop()
        asked = [loop.create_task(sequencer.submit(add(f"left{n}", "purse_a", 1))) for n in range(2)]
        loop.run_until_complete(asyncio.sleep(0))
        for task in asked:
            task.cancel()
        loop.run_until_complete(asyncio.wait(asked))
        loop.close()

    with structlog.testing.capture_logs() as reported:
        with log_held(log_database):
            await asyncio.to_thread(ask_and_leave)
            mine = asyncio.create_task(sequencer.submit(add("mine", "purse_a", 1)))
            await asyncio.sleep(0)
        async with asyncio.timeout(SECONDS_MAX):
            await mine
    assert await coins("purse_a") == 3
    dropped = [entry for entry in reported if entry["event"] == "answers_dropped"]
    assert sum(entry["count"] for entry in dropped) == 2


async def test_a_process_that_ends_without_stopping_it_is_not_kept_alive() -> None:
    program = (
        "from ledger.clock import system_clock\n"
        "from ledger.log.categories import Categories\n"
        "from ledger.log.sequencer import Sequencer\n"
        "Sequencer(None, Categories([]), system_clock).start()\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT)
    try:
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()


@pytest.mark.parametrize("many", [1, 2])
async def test_an_outcome_that_is_unknown_stays_unknown_when_the_batch_is_divided(
    start: StartSequencer, log_database: str, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """COMMIT happened and its answer was lost; then the look-up fails for another reason, or the server is away."""
    watch = Watch()
    sequencer = start(watch)
    sequencer._pause.set()
    await sequencer.submit(add("k0", "purse_a", 1))
    watch.lose_answers = 1
    first = [True]
    look_up = FaultyConnection.outcomes

    def outcomes(connection: FaultyConnection, keys: list[str]) -> Any:
        if not first:
            return look_up(connection, keys)
        first.clear()
        watch.refuse_connections = many == 2
        if many == 2:
            connection._connection.close()
        raise psycopg.errors.QueryCanceled("canceled for a test")

    monkeypatch.setattr(FaultyConnection, "outcomes", outcomes)
    with log_held(log_database):
        waiting = asyncio.create_task(
            answers_to(sequencer, [add(f"k{n + 1}", "purse_a", 1) for n in range(many)])
        )
        await asyncio.sleep(0)
    answers = await waiting
    assert {type(answer) for answer in answers} <= {Receipt, OutcomeUnknown}
    assert verify(log_database, CATEGORIES).events == 1 + many


async def test_whatever_goes_wrong_once_a_batch_is_on_its_way_its_outcome_is_unknown(
    start: StartSequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is no fault of PostgreSQL's: the batch is there, and whoever was told otherwise would ask twice."""
    sequencer = start()
    hears = FaultyConnection.sent

    def misheard(connection: FaultyConnection) -> None:
        monkeypatch.undo()
        hears(connection)
        raise ValueError("the answer makes no sense")

    monkeypatch.setattr(FaultyConnection, "sent", misheard)
    with pytest.raises(OutcomeUnknown):
        await sequencer.submit(add("k1", "purse_a", 5))
    again = await sequencer.submit(add("k1", "purse_a", 5))
    assert (again.result, again.replayed) == ({"coins": 5}, True)


async def test_a_batch_that_takes_too_long_is_divided_and_goes_through_in_parts(
    start: StartSequencer, log_database: str, monkeypatch: pytest.MonkeyPatch, coins: Coins
) -> None:
    sequencer = start()

    def too_long(*_: object) -> None:
        monkeypatch.undo()
        raise psycopg.errors.QueryCanceled("canceled for a test")

    monkeypatch.setattr(sequencer, "_catch_up", too_long)
    with log_held(log_database):
        waiting = asyncio.create_task(answers_to(sequencer, [add(f"k{n}", "purse_a", 1) for n in range(5)]))
        await asyncio.sleep(0)
    assert {type(answer) for answer in await waiting} == {Receipt}
    assert await coins("purse_a") == 5


async def test_a_turn_that_was_cut_off_is_tried_again(
    log_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "STALLED_SECONDS", 1)
    with open_datastore(log_database) as datastore:
        sequencer = Sequencer(LogRecorder(datastore), CATEGORIES, ManualClock(START))
        sequencer.start()
        await sequencer.submit(add("k0", "purse_a", 1))
        stopped = sequencer._catch_up

        def stalled(connection: Any, newest: Any) -> None:
            monkeypatch.setattr(sequencer, "_catch_up", stopped)
            with psycopg.connect(log_database, autocommit=True) as other:
                other.execute("SELECT pg_sleep(1.5)")
            stopped(connection, newest)

        monkeypatch.setattr(sequencer, "_catch_up", stalled)
        assert (await sequencer.submit(add("k1", "purse_new", 1))).result == {"coins": 1}
        await asyncio.to_thread(sequencer.stop)


async def test_a_server_that_became_read_only_is_left(
    start: StartSequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequencer = start()
    sequencer._pause.set()
    await sequencer.submit(add("k0", "purse_a", 1))
    demoted = sequencer._connection
    begin = FaultyConnection.begin

    def refused(connection: FaultyConnection) -> Any:
        if connection is demoted:
            raise psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction")
        return begin(connection)

    monkeypatch.setattr(FaultyConnection, "begin", refused)
    answers = await answers_to(sequencer, [add(f"r{n}", "purse_a", 1) for n in range(4)])
    assert {type(answer) for answer in answers} == {Receipt}


async def test_the_log_does_not_rely_on_the_databases_default_isolation(
    start: StartSequencer, log_database: str, coins: Coins
) -> None:
    name = log_database.rpartition("/")[2]
    with psycopg.connect(log_database, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_isolation = "repeatable read"')
    started = [start(batch_limit=3) for _ in range(4)]
    answers = await asyncio.gather(
        *(
            answers_to(sequencer, [add(f"{number}-{n}", "purse_a", 1) for n in range(30)])
            for number, sequencer in enumerate(started)
        )
    )
    assert {type(answer) for mine in answers for answer in mine} == {Receipt}
    assert await coins("purse_a") == 120


async def test_a_table_that_comes_later_is_found(start: StartSequencer, log_database: str) -> None:
    sequencer = start()
    await sequencer.submit(note("n0", "row"))

    def put(key: str) -> Transaction:
        return command(key, lambda uow: uow.put(NOTES, {"id": key, "count": 1}))

    with psycopg.connect(log_database, autocommit=True) as connection:
        connection.execute("ALTER TABLE test_notes RENAME TO away")
        (failed,) = await answers_to(sequencer, [put("p1")])
        connection.execute("ALTER TABLE away RENAME TO test_notes")
    assert isinstance(failed, psycopg.errors.UndefinedTable)
    assert isinstance(await sequencer.submit(put("p2")), Receipt)


async def test_a_stream_that_was_written_behind_what_is_remembered_is_read_anew(
    start: StartSequencer, log_database: str, coins: Coins
) -> None:
    sequencer = start()
    await sequencer.submit(add("k1", "purse_a", 1))
    with psycopg.connect(log_database, autocommit=True) as connection:
        # At no position that anybody looks at for what is new.
        connection.execute(
            "INSERT INTO stored_events (originator_id, originator_version, topic, state, notification_id)"
            " SELECT originator_id, 2, topic, state, -1 FROM stored_events"
        )
    await sequencer.submit(add("k2", "purse_a", 1))
    assert await coins("purse_a") == 3
