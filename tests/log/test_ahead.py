"""What is decided while the batch before is on its way: used if nobody came between, else made again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import psycopg
import pytest
import structlog

from ledger.errors import InvariantViolated
from ledger.log.model import Receipt, Transaction, UnitOfWork
from ledger.log.recorder import LOG_LOCK
from ledger.log.sequencer import Sequencer
from ledger.log.verify import verify
from tests.log.conftest import CATEGORIES, StartSequencer, answers_to, log_held
from tests.log.faulty import Watch
from tests.log.purse import TooFewCoins, add, note, overdraw, take

Coins = Callable[[str], Awaitable[int]]


class Counted:
    """Counts how often each command was decided."""

    def __init__(self) -> None:
        self.times: dict[str, int] = {}

    def __call__(self, transaction: Transaction) -> Transaction:
        decide = transaction.decide

        def counting(uow: UnitOfWork) -> Any:
            self.times[transaction.key] = self.times.get(transaction.key, 0) + 1
            return decide(uow)

        return msgspec.structs.replace(transaction, decide=counting)


class Gate:
    """Holds a batch back when it is about to go off, until the test has arranged the rest."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.open.wait(30), "nobody opened the gate"


class OnItsWay(NamedTuple):
    """A sequencer whose batch `first` is about to go off, while `later` waits to be decided ahead."""

    sequencer: Sequencer
    gate: Gate
    first: asyncio.Task[Receipt]
    later: asyncio.Future[list[Receipt | BaseException]]


async def on_its_way(
    start: StartSequencer,
    watch: Watch,
    url: str,
    later: list[Transaction],
    first: Transaction | None = None,
) -> OnItsWay:
    sequencer = start(watch, batch_limit=1)
    sequencer._pause.set()
    for step in range(2):
        await sequencer.submit(add(f"warm{step}", "purse_a", 1))
    watch.before_send = gate = Gate()
    with log_held(url):
        leading = asyncio.create_task(sequencer.submit(first or add("first", "purse_a", 1)))
        waiting = [asyncio.create_task(sequencer.submit(command)) for command in later]
        await asyncio.sleep(0)
    assert await asyncio.to_thread(gate.reached.wait, 30)
    return OnItsWay(sequencer, gate, leading, asyncio.gather(*waiting, return_exceptions=True))


async def test_each_batch_sees_what_the_one_before_it_decided(
    start: StartSequencer, coins: Coins, log_database: str
) -> None:
    sequencer = start(batch_limit=3)
    counted = Counted()
    answers = await answers_to(sequencer, [counted(add(f"k{n:03}", "purse_a", 1)) for n in range(100)])
    assert [a.result["coins"] for a in answers if isinstance(a, Receipt)] == list(range(1, 101))
    assert set(counted.times.values()) == {1}
    assert await coins("purse_a") == 100
    assert verify(log_database, CATEGORIES).ok


async def test_a_decision_ahead_is_made_again_when_another_process_came_between(
    start: StartSequencer, coins: Coins, log_database: str
) -> None:
    counted = Counted()
    _, gate, first, mine = await on_its_way(
        start, Watch(), log_database, [counted(take("mine", "purse_a", 3))]
    )
    theirs = asyncio.create_task(answers_to(start(), [take("theirs", "purse_a", 3)]))
    await asyncio.to_thread(wait_for_a_queue_at_the_lock, log_database)
    gate.open.set()
    assert isinstance(await first, Receipt)
    assert [type(answer) for answer in await theirs] == [Receipt]
    assert [type(answer) for answer in await mine] == [TooFewCoins]
    assert counted.times == {"mine": 2}
    assert await coins("purse_a") == 0
    assert verify(log_database, CATEGORIES).ok


async def test_what_breaks_an_invariant_ahead_is_undone_alone_and_reported_once(
    start: StartSequencer, coins: Coins, log_database: str
) -> None:
    with structlog.testing.capture_logs() as reported:
        sequencer, gate, first, later = await on_its_way(
            start,
            Watch(),
            log_database,
            [overdraw("bad", "purse_a", 9), add("good", "purse_a", 1)],
        )
        gate.open.set()
        answers = [await first, *await later]
    assert [type(answer) for answer in answers] == [Receipt, InvariantViolated, Receipt]
    assert await coins("purse_a") == 4
    assert sequencer.violations == 1
    [report] = [entry for entry in reported if entry["event"] == "invariant_violated"]
    assert (report["log_level"], report["stream"], report["version"]) == ("critical", "purse_a", 5)
    assert (report["key"], report["actor"]) == ("bad", "system:test")
    assert (report["name"], report["decided"]) == ("test.coins_taken.v1", {"amount": 9})
    assert (report["before"], report["after"]) == ({"coins": 4}, {"coins": -5})
    assert report["why"] == ("the purse has -5 coins",)
    assert verify(log_database, CATEGORIES).ok


def wait_for_a_queue_at_the_lock(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(3_000):
            found = connection.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
                "AND (classid::bigint << 32 | objid::bigint) = %s",
                (LOG_LOCK,),
            ).fetchone()
            if found is not None and found[0]:
                return
            connection.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("nobody waits for the lock")


async def test_the_same_key_in_two_batches_that_overlap_is_done_once(
    start: StartSequencer, coins: Coins, log_database: str
) -> None:
    commands = [add("first", "purse_a", 1), add("other", "purse_a", 1)]
    _, gate, first, later = await on_its_way(start, Watch(), log_database, commands)
    gate.open.set()
    one, (two, other) = await first, await later
    assert isinstance(two, Receipt)
    assert isinstance(other, Receipt)
    assert (one.position, one.replayed, two.position, two.replayed) == (3, False, 3, True)
    assert (other.position, other.replayed) == (4, False)
    assert await coins("purse_a") == 4
    assert verify(log_database, CATEGORIES).ok


async def test_what_was_done_before_and_is_refused_ahead_is_answered_as_it_was_first(
    start: StartSequencer, coins: Coins, log_database: str
) -> None:
    counted = Counted()
    spend = keeping_no_refusals(take("spend", "purse_a", 5))
    earlier = start()
    await earlier.submit(add("k0", "purse_a", 5))
    done = await earlier.submit(spend)
    _, gate, first, later = await on_its_way(
        start, Watch(), log_database, [counted(spend), add("other", "purse_a", 1)]
    )
    gate.open.set()
    await first
    again, other = await later
    assert again == Receipt(done.position, {"coins": 0}, replayed=True)
    assert isinstance(other, Receipt)
    assert other.result == {"coins": 4}
    assert counted.times == {"spend": 1}, "decided ahead, and then not again"
    assert verify(log_database, CATEGORIES).ok


async def test_what_is_still_on_its_way_and_is_refused_ahead_is_answered_as_it_was_first(
    start: StartSequencer, coins: Coins, log_database: str
) -> None:
    spend = keeping_no_refusals(take("spend", "purse_a", 2))
    others = keeping_no_refusals(take("others", "purse_a", 2))
    _, gate, first, later = await on_its_way(start, Watch(), log_database, [spend, others], first=spend)
    gate.open.set()
    done = await first
    again, refused = await later
    assert (done.result, done.replayed) == ({"coins": 0}, False)
    assert again == Receipt(done.position, {"coins": 0}, replayed=True)
    assert isinstance(refused, TooFewCoins), "it was never done"
    assert await coins("purse_a") == 0


def keeping_no_refusals(transaction: Transaction) -> Transaction:
    return msgspec.structs.replace(transaction, keeps_refusals=False)


@pytest.mark.parametrize("lost", ["lose_commits", "lose_answers"])
async def test_a_batch_that_was_lost_takes_the_decision_ahead_with_it(
    start: StartSequencer, coins: Coins, log_database: str, lost: str
) -> None:
    watch = Watch()
    commands = [take(f"k{n}", "purse_a", 1) for n in range(5)]
    _, gate, first, later = await on_its_way(start, watch, log_database, commands)
    setattr(watch, lost, 1)
    gate.open.set()
    assert isinstance(await first, Receipt)
    assert [type(answer) for answer in await later] == [Receipt] * 3 + [TooFewCoins] * 2
    assert await coins("purse_a") == 0
    assert verify(log_database, CATEGORIES).ok


async def test_what_wants_rows_is_decided_in_its_turn(start: StartSequencer, log_database: str) -> None:
    sequencer = start(batch_limit=2)
    counted = Counted()
    answers = await answers_to(sequencer, [counted(note(f"k{n}", "row", purse="purse_a")) for n in range(20)])
    assert [a.result["count"] for a in answers if isinstance(a, Receipt)] == list(range(1, 21))
    assert set(counted.times.values()) == {1}


async def test_a_small_cache_forgets_what_was_decided_ahead_on(
    start: StartSequencer, coins: Coins, log_database: str
) -> None:
    sequencer = start(batch_limit=4, cache_capacity=2)
    commands = [add(f"k{n}", f"purse_{n % 9}", 1) for n in range(180)]
    assert all(isinstance(answer, Receipt) for answer in await answers_to(sequencer, commands))
    assert [await coins(f"purse_{n}") for n in range(9)] == [20] * 9
    assert verify(log_database, CATEGORIES).ok


async def test_stopping_finishes_what_was_decided_ahead(
    start: StartSequencer, coins: Coins, log_database: str
) -> None:
    sequencer, gate, first, later = await on_its_way(
        start, Watch(), log_database, [add("last", "purse_a", 1)]
    )
    stopping = asyncio.create_task(asyncio.to_thread(sequencer.stop))
    gate.open.set()
    await stopping
    assert [type(answer) for answer in (await first, *await later)] == [Receipt, Receipt]
    assert await coins("purse_a") == 4
