"""What every log promises, asked of the one in memory and of the one in PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from ledger.errors import IdempotencyConflict
from tests.log.conftest import LogUnderTest
from tests.log.purse import Purse, TooFewCoins, add, erase, move, note, take


async def test_an_accepted_command_is_there_when_it_is_acknowledged(log: LogUnderTest) -> None:
    receipt = await log.writer.submit(add("k1", "purse_a", 5))
    assert (receipt.position, receipt.result, receipt.replayed) == (1, {"coins": 5}, False)
    assert (await log.reader.state("purse_a")) == (Purse(5), 1, 1)


async def test_the_same_command_again_gives_the_first_answer_and_changes_nothing(log: LogUnderTest) -> None:
    await log.writer.submit(add("k1", "purse_a", 5))
    await log.writer.submit(add("k2", "purse_a", 5))
    again = await log.writer.submit(add("k1", "purse_a", 5))
    assert (again.position, again.result, again.replayed) == (1, {"coins": 5}, True)
    assert (await log.reader.state("purse_a")).state == Purse(10)


async def test_a_known_key_with_another_body_is_a_conflict(log: LogUnderTest) -> None:
    await log.writer.submit(add("k1", "purse_a", 5))
    with pytest.raises(IdempotencyConflict):
        await log.writer.submit(add("k1", "purse_a", 6))
    assert (await log.reader.head()) == 1


async def test_a_refusal_is_remembered_with_its_details(log: LogUnderTest) -> None:
    for _ in range(2):
        with pytest.raises(TooFewCoins) as refused:
            await log.writer.submit(take("k1", "purse_a", 5))
        assert refused.value.details == {"wanted": 5, "there": 0}
    await log.writer.submit(add("k2", "purse_a", 9))
    with pytest.raises(TooFewCoins):
        await log.writer.submit(take("k1", "purse_a", 5))


async def test_a_refusal_undoes_everything_its_command_had_drafted(log: LogUnderTest) -> None:
    await log.writer.submit(add("k1", "purse_a", 5))
    with pytest.raises(TooFewCoins):
        await log.writer.submit(move("k2", "purse_a", "purse_b", 6))
    assert (await log.reader.state("purse_b")).version == 0
    assert (await log.reader.head()) == 1


async def test_a_command_over_two_streams_has_neighbouring_positions(log: LogUnderTest) -> None:
    await log.writer.submit(add("k1", "purse_a", 5))
    receipt = await log.writer.submit(move("k2", "purse_a", "purse_b", 5))
    entries = await log.reader.read(after=0, limit=10)
    assert [(e.position, e.stream, e.version) for e in entries] == [
        (1, "purse_a", 1),
        (2, "purse_b", 1),
        (3, "purse_a", 2),
    ]
    assert receipt.position == 3
    assert entries[1].batch == entries[2].batch


async def test_the_envelope_says_who_when_and_why(log: LogUnderTest) -> None:
    await log.writer.submit(add("k1", "purse_a", 5))
    (entry,) = await log.reader.events("purse_a")
    assert (entry.name, entry.key, entry.actor) == ("test.coins_added.v1", "k1", "system:test")
    assert entry.occurred_at == entry.recorded_at == log.clock()


async def test_recorded_at_never_decreases_when_the_clock_is_set_back(log: LogUnderTest) -> None:
    await log.writer.submit(add("k1", "purse_a", 1))
    noon = log.clock()
    log.clock.advance(timedelta(hours=-3))
    await log.writer.submit(add("k2", "purse_a", 1))
    first, second = await log.reader.events("purse_a")
    assert first.recorded_at == second.recorded_at == noon


async def test_a_stream_can_be_read_as_of_a_time_and_as_of_a_position(log: LogUnderTest) -> None:
    await log.writer.submit(add("k1", "purse_a", 1))
    before = log.clock()
    log.clock.advance(timedelta(minutes=1))
    await log.writer.submit(add("k2", "purse_a", 2))
    assert [e.version for e in await log.reader.events("purse_a", up_to_time=before)] == [1]
    assert [e.version for e in await log.reader.events("purse_a", up_to_position=1)] == [1]
    assert [e.version for e in await log.reader.events("purse_a", after_version=1)] == [2]
    assert [e.version for e in await log.reader.events("purse_a", limit=1)] == [1]


async def test_rows_of_other_tables_change_together_with_events(log: LogUnderTest) -> None:
    await log.writer.submit(note("k1", "n1", purse="purse_a"))
    await log.writer.submit(note("k2", "n1"))
    assert await log.note("n1") == {"id": "n1", "count": 2, "data": {"seen": [2]}}
    await log.writer.submit(erase("k3", "n1"))
    assert await log.note("n1") is None


async def test_commands_of_one_batch_see_each_other(log: LogUnderTest) -> None:
    commands = [add("k0", "purse_a", 10)]
    commands += [take(f"k{n}", "purse_a", 3) for n in range(1, 6)]
    commands += [note(f"n{n}", "shared") for n in range(5)]
    answers = await asyncio.gather(*(log.writer.submit(c) for c in commands), return_exceptions=True)
    assert sum(isinstance(a, TooFewCoins) for a in answers) == 2
    assert (await log.reader.state("purse_a")).state == Purse(1)
    row = await log.note("shared")
    assert row is not None
    assert row["count"] == 5


async def test_twins_in_one_batch_are_done_once(log: LogUnderTest) -> None:
    answers = await asyncio.gather(*(log.writer.submit(add("k1", "purse_a", 5)) for _ in range(8)))
    assert sorted(a.replayed for a in answers) == [False] + [True] * 7
    assert (await log.reader.state("purse_a")).state == Purse(5)


async def test_twins_with_other_bodies_are_conflicts(log: LogUnderTest) -> None:
    answers = await asyncio.gather(
        *(log.writer.submit(add("k1", "purse_a", n)) for n in (5, 6)), return_exceptions=True
    )
    assert isinstance(answers[1], IdempotencyConflict)
    assert (await log.reader.state("purse_a")).state == Purse(5)


async def test_a_bug_in_one_command_fails_nobody_else(log: LogUnderTest) -> None:
    answers = await asyncio.gather(
        *(log.writer.submit(add(f"k{n}", "purse_a", 1, fails=n == 3)) for n in range(6)),
        return_exceptions=True,
    )
    assert [type(a) for a in answers].count(ZeroDivisionError) == 1
    assert (await log.reader.state("purse_a")).state == Purse(5)


async def test_an_undeclared_stream_or_row_is_a_fault(log: LogUnderTest) -> None:
    command = add("k1", "purse_a", 1)
    sneaky = type(command)(
        key=command.key, actor=command.actor, body=1, streams=("purse_b",), decide=command.decide
    )
    with pytest.raises(LookupError):
        await log.writer.submit(sneaky)
    assert await log.reader.head() == 0
