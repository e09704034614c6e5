"""What every log promises, asked of the one in memory and of the one in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from ledger.errors import IdempotencyConflict, InvariantViolated
from ledger.identifiers import CommandKey
from ledger.log.model import Receipt, Transaction, UnitOfWork
from tests.log.conftest import LogUnderTest
from tests.log.purse import NOTES, CoinsAdded, Purse, TooFewCoins, add, erase, move, note, overdraw, take


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


async def test_the_first_answer_is_what_the_same_command_gets_later(log: LogUnderTest) -> None:
    """Of what JSON keeps otherwise, too: a tuple is a list at once."""

    def decide(uow: UnitOfWork) -> Any:
        uow.append("purse_a", [CoinsAdded(amount=1)])
        return {"parts": (1, 2)}

    command = Transaction(
        key=CommandKey("k1"), actor="system:test", body=[1], streams=("purse_a",), decide=decide
    )
    first, again = await log.writer.submit(command), await log.writer.submit(command)
    assert first.result == again.result == {"parts": [1, 2]}


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


async def test_a_command_that_keeps_no_refusals_is_decided_anew_until_it_is_done(log: LogUnderTest) -> None:
    command = msgspec.structs.replace(take("k1", "purse_a", 5), keeps_refusals=False)
    for _ in range(2):
        with pytest.raises(TooFewCoins):
            await log.writer.submit(command)
    await log.writer.submit(add("k2", "purse_a", 9))
    answers = await asyncio.gather(*(log.writer.submit(command) for _ in range(3)))
    assert [answer.result for answer in answers] == [answers[0].result] * 3
    assert (await log.reader.state("purse_a")).state == Purse(4)
    assert (await log.writer.submit(command)).replayed


async def test_what_was_done_and_would_be_refused_now_is_answered_as_it_was_first_beside_others(
    log: LogUnderTest,
) -> None:
    spend = msgspec.structs.replace(take("k1", "purse_a", 5), keeps_refusals=False)
    never = msgspec.structs.replace(take("k2", "purse_a", 6), keeps_refusals=False)
    another = msgspec.structs.replace(take("k1", "purse_a", 7), keeps_refusals=False)
    await log.writer.submit(add("k0", "purse_a", 5))
    done = await log.writer.submit(spend)
    commands = [add("k3", "purse_a", 1), never, spend, another, add("k4", "purse_a", 1)]
    answers = await asyncio.gather(*(log.writer.submit(c) for c in commands), return_exceptions=True)
    assert [type(answer) for answer in answers] == [
        Receipt,
        TooFewCoins,
        Receipt,
        IdempotencyConflict,
        Receipt,
    ]
    assert answers[2] == Receipt(done.position, {"coins": 0}, replayed=True)
    assert (await log.reader.state("purse_a")).state == Purse(2)


@pytest.mark.parametrize("now", ["breaks_an_invariant", "fails"])
async def test_what_was_done_and_could_not_be_done_now_is_answered_as_it_was_first(
    log: LogUnderTest, now: str
) -> None:
    await log.writer.submit(add("k0", "purse_a", 9))
    again = overdraw("k1", "purse_a", 9)
    done = await log.writer.submit(again)
    if now == "fails":
        again = msgspec.structs.replace(again, decide=lambda _: 1 // 0)
    commands = [add("k2", "purse_a", 1), again, add("k3", "purse_a", 1)]
    answers = await asyncio.gather(*(log.writer.submit(c) for c in commands), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Receipt] * 3
    assert answers[1] == Receipt(done.position, None, replayed=True)
    assert (await log.reader.state("purse_a")).state == Purse(3)


async def test_what_was_done_and_the_database_would_not_take_now_is_answered_as_it_was_first(
    log: LogUnderTest,
) -> None:
    done = await log.writer.submit(note("k1", "n1", step=99))
    again = await log.writer.submit(note("k1", "n1", step=99))
    assert again == Receipt(done.position, {"count": 99}, replayed=True)


async def test_twins_that_keep_no_refusals_are_each_decided(log: LogUnderTest) -> None:
    command = msgspec.structs.replace(take("k1", "purse_a", 5), keeps_refusals=False)
    refused = await asyncio.gather(*(log.writer.submit(command) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in refused] == [TooFewCoins] * 3
    assert await log.reader.head() == 0


async def test_a_state_that_was_used_is_remembered_and_others_are_not(log: LogUnderTest) -> None:
    assert log.writer.seen("purse_a") is None
    await log.writer.submit(add("k1", "purse_a", 5))
    assert log.writer.seen("purse_a") == Purse(5)
    assert log.writer.seen("purse_b") is None


async def test_a_remembered_state_is_known_to_include_what_was_recorded_before_and_nothing_later(
    log: LogUnderTest,
) -> None:
    first = await log.writer.submit(add("k1", "purse_a", 5))
    second = await log.writer.submit(add("k2", "purse_b", 1))
    assert log.writer.seen("purse_a", first.position) == Purse(5)
    assert log.writer.seen("purse_a", second.position) == Purse(5)
    assert log.writer.seen("purse_a", second.position + 1) is None


async def test_a_key_can_be_refused_by_a_command_that_touches_nothing_else(log: LogUnderTest) -> None:
    await log.writer.submit(add("k1", "purse_a", 5))

    def never(_: UnitOfWork) -> Any:
        raise TooFewCoins(wanted=1, there=0)

    known, fresh = add("k1", "purse_a", 5), add("k2", "purse_a", 5)
    forbid = {"streams": (), "rows": (), "decide": never, "suspected": True}
    assert (await log.writer.submit(msgspec.structs.replace(known, **forbid))).result == {"coins": 5}
    for command in (msgspec.structs.replace(fresh, **forbid), fresh):
        with pytest.raises(TooFewCoins):
            await log.writer.submit(command)
    assert (await log.reader.state("purse_a")).state == Purse(5)


async def test_a_refusal_undoes_everything_its_command_had_decided(log: LogUnderTest) -> None:
    await log.writer.submit(add("k1", "purse_a", 5))
    with pytest.raises(TooFewCoins):
        await log.writer.submit(move("k2", "purse_a", "purse_b", 6))
    assert (await log.reader.state("purse_b")).version == 0
    assert (await log.reader.head()) == 1


async def test_what_breaks_an_invariant_is_undone_as_a_whole_and_its_neighbours_go_on(
    log: LogUnderTest,
) -> None:
    commands = [add("k1", "purse_a", 5), overdraw("k2", "purse_a", 9), add("k3", "purse_a", 1)]
    answers = await asyncio.gather(*(log.writer.submit(c) for c in commands), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Receipt, InvariantViolated, Receipt]
    assert (await log.reader.state("purse_a")).state == Purse(6)
    assert (await log.reader.state("purse_z")).version == 0
    assert await log.reader.head() == 2


async def test_what_broke_an_invariant_may_be_sent_again_with_the_same_key(log: LogUnderTest) -> None:
    for _ in range(2):
        with pytest.raises(InvariantViolated, match="purse_a 2: the purse has -8 coins"):
            await log.writer.submit(overdraw("k1", "purse_a", 9))
    await log.writer.submit(add("k2", "purse_a", 9))
    again = await log.writer.submit(overdraw("k1", "purse_a", 9))
    assert not again.replayed
    assert (await log.reader.state("purse_a")).state == Purse(1)


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


def command(key: str, decide: Callable[[UnitOfWork], Any]) -> Transaction:
    """Anything done to a purse and a note."""
    return Transaction(
        key=CommandKey(key),
        actor="system:test",
        body=key,
        streams=("purse_a",),
        rows=((NOTES, "n1"),),
        decide=decide,
    )


def fails_at_the_end(uow: UnitOfWork) -> object:
    uow.append("purse_a", [CoinsAdded(amount=1)])
    uow.put(NOTES, {"id": "n1", "count": 9})
    return object()  # nothing that could be stored


def spoils_what_it_read(uow: UnitOfWork) -> None:
    row: Any = uow.get(NOTES, "n1")
    row["count"] = 9
    raise ZeroDivisionError


def names_no_such_column(uow: UnitOfWork) -> None:
    uow.append("purse_a", [CoinsAdded(amount=1)])
    uow.put(NOTES, {"id": "n1", "colour": "red"})


@pytest.mark.parametrize("fault", [fails_at_the_end, spoils_what_it_read, names_no_such_column])
async def test_a_command_that_fails_anywhere_leaves_events_and_rows_as_they_were(
    log: LogUnderTest, fault: Callable[[UnitOfWork], Any]
) -> None:
    await log.writer.submit(note("k1", "n1", purse="purse_a"))
    before = await log.note("n1")
    spoiled, read = command("k2", fault), command("k3", lambda uow: (uow.get(NOTES, "n1") or {})["count"])
    answers = await asyncio.gather(
        log.writer.submit(spoiled), log.writer.submit(read), return_exceptions=True
    )
    assert isinstance(answers[0], Exception)
    assert isinstance(answers[1], Receipt)
    assert answers[1].result == 1
    assert await log.note("n1") == before
    assert (await log.reader.state("purse_a")).version == await log.reader.head() == 1


async def test_columns_that_a_row_does_not_name_keep_what_they_have(log: LogUnderTest) -> None:
    await log.writer.submit(note("k1", "n1"))

    def change(uow: UnitOfWork) -> Any:
        uow.put(NOTES, {"id": "n1", "count": 5})
        return uow.get(NOTES, "n1")

    changed = {"id": "n1", "count": 5, "data": {"seen": [1]}}
    assert (await log.writer.submit(command("k2", change))).result == changed
    assert await log.note("n1") == changed


async def test_a_row_that_was_deleted_and_is_there_again_begins_anew(log: LogUnderTest) -> None:
    await log.writer.submit(note("k1", "n1"))

    def anew(uow: UnitOfWork) -> None:
        uow.delete(NOTES, "n1")
        uow.put(NOTES, {"id": "n1", "count": 5})

    await log.writer.submit(command("k2", anew))
    assert await log.note("n1") == {"id": "n1", "count": 5, "data": None}


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


async def test_the_log_is_read_on_from_any_position_in_pages(log: LogUnderTest) -> None:
    for n in range(1, 6):
        await log.writer.submit(add(f"k{n}", f"purse_{n % 2}", n))
    pages = [await log.reader.read(after=after, limit=2) for after in (0, 2, 4, 5)]
    assert [[entry.position for entry in page] for page in pages] == [[1, 2], [3, 4], [5], []]
    assert await log.reader.head() == 5


async def test_nothing_has_happened_yet_in_an_empty_log(log: LogUnderTest) -> None:
    assert await log.reader.head() == 0
    assert await log.reader.state("purse_a") == (Purse(), 0, 0)
    assert list(await log.reader.events("purse_a")) == []
    assert list(await log.reader.read(after=0, limit=9)) == []
