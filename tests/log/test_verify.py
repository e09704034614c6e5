"""Whatever is done to the log behind our back, `verify` finds it and names it. On real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.domain.consideration import Consideration, Worth
from ledger.errors import Refusal
from ledger.identifiers import AccountId, CommandKey, JobId
from ledger.log.categories import Categories
from ledger.log.columns import batch_hash, columns
from ledger.log.encoding import NO_HASH, EventRow, OutcomeRow
from ledger.log.findings import Finding
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.recorder import EVENT_COLUMNS, LogRecorder, open_datastore
from ledger.log.seal import LogEmpty, Seal, SealRejected, load_or_make_key, read_seal, seal_head
from ledger.log.sequencer import Sequencer
from ledger.log.verify import Report, verify
from ledger.money import USD
from ledger.service import Ledger
from ledger.verification import AccountAudit
from tests.tables import create_tables

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DEADLINE = NOON + timedelta(hours=1)
RICH = AccountId("acct_01m82kas887ejz62cetnm73hej")
BUSY = AccountId("acct_01m82kas887ejz62cetnm73hek")
CATEGORIES = Categories([ACCOUNTS])
Tamper = Callable[..., None]


def paid(minor: int) -> Consideration:
    return Consideration(asset=USD, worth=Worth(minor, 0, 0, minor, 0), rail="card", payment_id="pay_1")


async def _history(url: str) -> None:
    """A refusal, a few lone commands, one batch of many, and a stream with a snapshot."""
    clock = ManualClock(NOON)
    create_tables(url)
    datastore = open_datastore(url)
    sequencer = Sequencer(LogRecorder(datastore), CATEGORIES, clock)
    sequencer.start()
    async with AsyncConnectionPool(url, min_size=1, max_size=1, open=False) as pool:
        ledger = Ledger(sequencer, PostgresLogReader(pool, CATEGORIES), clock=clock)
        await ledger.grant(RICH, 100, consideration=paid(100))
        hold = await ledger.hold(RICH, 3, job_id=JobId("job_1"), deadline=DEADLINE)
        await ledger.capture(RICH, hold, 2)
        with pytest.raises(Refusal):
            await ledger.capture(RICH, hold, key=CommandKey("cmd_refused"))
        clock.advance(timedelta(seconds=1))
        await ledger.grant(BUSY, 500, consideration=paid(500))
        for wave in range(4):
            names = [JobId(f"job_{wave}_{n}") for n in range(20)]
            held = await asyncio.gather(
                *(ledger.hold(BUSY, 1, job_id=name, deadline=DEADLINE) for name in names)
            )
            await asyncio.gather(*(ledger.capture(BUSY, hold_id) for hold_id in held))
        await ledger.hold(RICH, 5, job_id=JobId("job_open"), deadline=DEADLINE)
    sequencer.stop()
    datastore.close()


@pytest.fixture(scope="module")
def history(make_database: Callable[..., str]) -> str:
    """The name of a database to be copied."""
    url = make_database()
    asyncio.run(_history(url))
    return url.rpartition("/")[2]


@pytest.fixture
def url(make_database: Callable[..., str], history: str) -> str:
    return make_database(template=history)


@pytest.fixture
def tamper(url: str) -> Tamper:
    def run(*statements: str) -> None:
        with psycopg.connect(url) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount > 0, "the test changed nothing"

    return run


def check(url: str, *seals: Seal) -> Report:
    return verify(url, CATEGORIES, audits={"acct": AccountAudit()}, seals=seals)


def first_of(report: Report) -> Finding:
    assert not report.ok
    assert report.first is not None
    return report.first


def position_of(url: str, stream: str, version: int) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT notification_id FROM stored_events WHERE originator_id = %s AND originator_version = %s",
            (stream, version),
        ).fetchone()
    assert row is not None
    return int(row[0])


def forge_chain(url: str) -> None:
    """Compute every hash anew, as somebody could who can write to the database."""
    with psycopg.connect(url) as connection:
        batches = connection.execute(
            "SELECT batch, first_position, last_position, recorded_at FROM log_batches ORDER BY batch"
        ).fetchall()
        before = NO_HASH
        for batch, first, last, recorded_at in batches:
            events = connection.execute(
                f"SELECT {EVENT_COLUMNS} FROM stored_events WHERE notification_id BETWEEN %s AND %s "
                "ORDER BY notification_id",
                (first, last),
            ).fetchall()
            outcomes = connection.execute(
                "SELECT key, batch, ordinal, body_digest, position, refusal, detail FROM log_outcomes "
                "WHERE batch = %s ORDER BY ordinal",
                (batch,),
            ).fetchall()
            rows = columns([EventRow(*row) for row in events], [OutcomeRow(*row) for row in outcomes])
            computed = batch_hash(before, batch, first, recorded_at, rows)
            connection.execute(
                "UPDATE log_batches SET previous_hash = %s, hash = %s WHERE batch = %s",
                (before, computed, batch),
            )
            before = computed


def test_an_untouched_log_is_whole(url: str) -> None:
    report = check(url)
    assert report.findings == []
    assert report.ok
    assert (report.streams, report.snapshots) == (2, 1)
    assert report.events == report.head.position
    assert "cut off" in report.not_proven[0], "without a seal it says what it cannot prove"


def test_an_empty_log_is_whole(make_database: Callable[..., str]) -> None:
    empty = make_database()
    create_tables(empty)
    assert check(empty).ok


@pytest.mark.parametrize("place", [3, 40, 120, -4])
def test_a_flipped_byte_is_found_and_its_event_named(url: str, tamper: Tamper, place: int) -> None:
    at = str(place) if place >= 0 else f"length(state) {place}"
    tamper(
        f"UPDATE stored_events SET state = set_byte(state, {at}, get_byte(state, {at}) # 1) WHERE notification_id = 2"
    )
    assert first_of(check(url)).position == 2


def test_a_changed_amount_is_found_by_what_it_does_to_the_balance(url: str, tamper: Tamper) -> None:
    position = position_of(url, BUSY, 30)
    tamper(
        "UPDATE stored_events SET state = convert_to(replace(convert_from(state, 'UTF8'), "
        f"'\"credits\":1', '\"credits\":2'), 'UTF8') WHERE notification_id = {position}"
    )
    found = first_of(check(url))
    assert (found.position, found.stream, found.version) == (position, BUSY, 30)


def test_a_changed_byte_that_makes_sense_is_found_by_the_hash(url: str, tamper: Tamper) -> None:
    position = position_of(url, BUSY, 30)
    tamper(
        "UPDATE stored_events SET state = convert_to(replace(convert_from(state, 'UTF8'), "
        f'\'"actor":"system:ledger"\', \'"actor":"system:ledges"\'), \'UTF8\') WHERE notification_id = {position}'
    )
    found = first_of(check(url))
    assert "does not match its hash" in found.why
    assert found.position is not None
    assert found.until is not None, "it knows the batch, and says that it does not know the event"
    assert found.position <= position <= found.until


def test_a_deleted_event_is_found(url: str, tamper: Tamper) -> None:
    tamper("DELETE FROM stored_events WHERE notification_id = 3")
    found = first_of(check(url))
    assert (found.position, found.why) == (3, "the event is missing")


def test_a_deleted_last_event_of_a_stream_is_found(url: str, tamper: Tamper) -> None:
    position = position_of(url, BUSY, 161)
    tamper(f"DELETE FROM stored_events WHERE notification_id = {position}")
    assert first_of(check(url)).position == position


def test_an_event_put_behind_the_end_is_found(url: str, tamper: Tamper) -> None:
    head = check(url).head.position
    tamper(
        "INSERT INTO stored_events SELECT originator_id, 900, topic, state, "
        f"{head + 1} FROM stored_events WHERE notification_id = 1"
    )
    found = first_of(check(url))
    assert (found.position, found.stream, found.version) == (head + 1, RICH, 900)
    assert "belongs to no batch" in found.why


def test_an_event_slipped_in_between_is_found(url: str, tamper: Tamper) -> None:
    tamper(
        "UPDATE stored_events SET notification_id = -notification_id - 1 WHERE notification_id >= 3",
        "UPDATE stored_events SET notification_id = -notification_id WHERE notification_id < 0",
        "INSERT INTO stored_events SELECT originator_id, 900, topic, state, 3 FROM stored_events "
        "WHERE notification_id = 1",
    )
    assert first_of(check(url)).position == 3


def test_events_in_another_order_are_found(url: str, tamper: Tamper) -> None:
    tamper(
        "UPDATE stored_events SET notification_id = -2 WHERE notification_id = 2",
        "UPDATE stored_events SET notification_id = 2 WHERE notification_id = 3",
        "UPDATE stored_events SET notification_id = 3 WHERE notification_id = -2",
    )
    assert first_of(check(url)).position == 2


def test_an_event_moved_to_another_stream_is_found(url: str, tamper: Tamper) -> None:
    tamper(
        f"UPDATE stored_events SET originator_id = '{RICH}', originator_version = 900 WHERE notification_id = 5"
    )
    assert not check(url).ok


def test_an_event_of_an_unknown_name_is_found(url: str, tamper: Tamper) -> None:
    tamper("UPDATE stored_events SET topic = 'ledger.gold_made.v1' WHERE notification_id = 2")
    found = first_of(check(url))
    assert found.position == 2
    assert "gold_made" in found.why


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE log_outcomes SET detail = '\"hold_other\"' WHERE position = 1",
        "UPDATE log_outcomes SET refusal = NULL WHERE key = 'cmd_refused'",
        "UPDATE log_outcomes SET refusal = 'insufficient_credits' WHERE position = 1",
        "UPDATE log_outcomes SET body_digest = '\\x00' WHERE position = 1",
        "UPDATE log_outcomes SET key = 'cmd_other' WHERE position = 1",
        "DELETE FROM log_outcomes WHERE position = 1",
        "DELETE FROM log_outcomes WHERE key = 'cmd_refused'",
        (
            "INSERT INTO log_outcomes SELECT 'cmd_new', batch, 900, body_digest, position, 'refused', detail "
            "FROM log_outcomes WHERE position = 1"
        ),
        (
            "INSERT INTO log_outcomes SELECT 'cmd_new', 900, 0, body_digest, position, 'refused', detail "
            "FROM log_outcomes WHERE position = 1"
        ),
    ],
)
def test_a_changed_outcome_is_found(url: str, tamper: Tamper, change: str) -> None:
    tamper(change)
    assert not check(url).ok


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE log_batches SET recorded_at = recorded_at - interval '1 day' WHERE batch = 2",
        "UPDATE log_batches SET hash = '\\x00' WHERE batch = 2",
        "UPDATE log_batches SET last_position = last_position + 1 WHERE batch = 2",
        "DELETE FROM log_batches WHERE batch = 2",
    ],
)
def test_a_changed_batch_is_found(url: str, tamper: Tamper, change: str) -> None:
    tamper(change)
    found = first_of(check(url))
    assert found.batch in (2, 3)


def test_a_snapshot_that_lies_is_found(url: str, tamper: Tamper) -> None:
    tamper(
        "UPDATE log_snapshots SET state = set_byte(state, length(state) - 30, get_byte(state, length(state) - 30) # 1)"
    )
    assert "snapshot" in first_of(check(url)).why


def test_a_second_resolution_is_found_even_under_a_forged_chain(url: str) -> None:
    with psycopg.connect(url) as connection:
        capture = connection.execute(
            f"SELECT state FROM stored_events WHERE originator_id = '{RICH}' AND originator_version = 4"
        ).fetchone()
        head = connection.execute("SELECT max(batch), max(last_position) FROM log_batches").fetchone()
        assert capture is not None
        assert head is not None
        batch, position = head[0] + 1, head[1] + 1
        when = connection.execute("SELECT max(recorded_at) FROM log_batches").fetchone()
        assert when is not None
        stored: dict[str, Any] = msgspec.json.decode(capture[0])
        stamp = msgspec.json.decode(msgspec.json.encode(when[0].astimezone(UTC)))
        stored |= {"key": "cmd_forged", "recorded_at": stamp, "batch": batch}
        connection.execute(
            "INSERT INTO stored_events VALUES (%s, 6, 'ledger.hold_captured.v1', %s, %s)",
            (RICH, msgspec.json.encode(stored), position),
        )
        connection.execute(
            "INSERT INTO log_outcomes VALUES ('cmd_forged', %s, 0, '\\x00', %s, NULL, '1')", (batch, position)
        )
        connection.execute(
            "INSERT INTO log_batches VALUES (%s, %s, %s, 1, %s, '', '')", (batch, position, position, when[0])
        )
    forge_chain(url)
    report = check(url)
    assert {finding.part for finding in report.findings} == {"stream"}, "the chain itself is sound"
    found = first_of(report)
    assert (found.position, found.version) == (position, 6)
    assert "resolved again" in found.why


def cut_tail(url: str, batches: int = 2) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "DELETE FROM log_batches WHERE batch > (SELECT max(batch) - %s FROM log_batches)", (batches,)
        )
        connection.execute("DELETE FROM log_outcomes WHERE batch > (SELECT max(batch) FROM log_batches)")
        connection.execute(
            "DELETE FROM stored_events WHERE notification_id > (SELECT max(last_position) FROM log_batches)"
        )
        connection.execute(
            "DELETE FROM log_snapshots s WHERE version > (SELECT coalesce(max(originator_version), 0) "
            "FROM stored_events WHERE originator_id = s.stream)"
        )


@pytest.fixture
def seal(url: str, tmp_path: Path) -> Seal:
    with psycopg.connect(url) as connection:
        return seal_head(connection, load_or_make_key(tmp_path / "key.pem"), ManualClock(NOON))


def test_a_cut_tail_is_found_against_a_sealed_head(url: str, seal: Seal) -> None:
    assert check(url, seal).ok
    assert check(url, seal).not_proven == []
    cut_tail(url)
    assert check(url).ok, "the chain alone cannot notice it"
    found = first_of(check(url, seal))
    assert found.part == "seal"
    assert "the tail was cut off" in found.why
    assert found.position == check(url).head.position + 1


def test_a_log_written_anew_is_found_against_a_sealed_head(url: str, tamper: Tamper, seal: Seal) -> None:
    tamper(
        "UPDATE stored_events SET state = convert_to(replace(convert_from(state, 'UTF8'), "
        "'system:ledger', 'system:ledges'), 'UTF8') WHERE notification_id = 1"
    )
    forge_chain(url)
    assert check(url).ok, "the chain alone cannot notice it"
    assert "written anew" in first_of(check(url, seal)).why


def test_an_older_seal_holds_and_says_from_where_on_it_proves_nothing(url: str, tmp_path: Path) -> None:
    with psycopg.connect(url) as connection:
        whole = seal_head(connection, load_or_make_key(tmp_path / "key.pem"), ManualClock(NOON))
        row = connection.execute(
            "SELECT batch, last_position, hash FROM log_batches WHERE batch = 2"
        ).fetchone()
    assert row is not None
    older = msgspec.structs.replace(whole, batch=row[0], position=row[1], hash=row[2].hex())
    report = check(url, older)
    assert report.ok
    assert "of batch 2" in report.not_proven[0]


def test_a_seal_that_was_tampered_with_is_rejected(seal: Seal, tmp_path: Path) -> None:
    written = msgspec.json.encode(seal)
    assert read_seal(written, seal.public_key) == seal
    with pytest.raises(SealRejected):
        read_seal(msgspec.json.encode(msgspec.structs.replace(seal, batch=seal.batch - 1)))
    with pytest.raises(SealRejected):
        read_seal(b"{}")
    with pytest.raises(SealRejected):
        read_seal(written, "00" * 32)


def test_the_sealing_key_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "seal.pem"
    made = load_or_make_key(path)
    assert load_or_make_key(path).private_bytes_raw() == made.private_bytes_raw()
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("not a key")
    with pytest.raises(SealRejected):
        load_or_make_key(path)


def test_an_empty_log_has_no_head_to_seal(make_database: Callable[..., str], tmp_path: Path) -> None:
    empty = make_database()
    create_tables(empty)
    with psycopg.connect(empty) as connection, pytest.raises(LogEmpty):
        seal_head(connection, load_or_make_key(tmp_path / "key.pem"), ManualClock(NOON))
