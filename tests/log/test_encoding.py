"""How events look at rest. These bytes are for ever: golden files are added, never edited."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ledger.identifiers import CommandKey
from ledger.log.categories import Categories
from ledger.log.encoding import (
    NO_HASH,
    EventRow,
    Header,
    OutcomeRow,
    batch_hash,
    decode_row,
    header_prefix,
    microseconds,
)
from tests.log.purse import PURSES, CoinsAdded

GOLDEN = Path(__file__).parent / "golden"
NOON = datetime(2026, 1, 1, 12, 0, 0, 250, tzinfo=UTC)
HEADER = Header(CommandKey("cmd_1"), 'rail:"card"', NOON, NOON, 7)
STATE = header_prefix(HEADER) + msgspec.json.encode(CoinsAdded(amount=5)) + b"}"
EVENT = EventRow("purse_1", 3, "test.coins_added.v1", STATE, 42)
OUTCOME = OutcomeRow("cmd_1", 7, 0, b"\x01" * 16, 42, None, b'{"coins":5}')
REFUSED = OutcomeRow("cmd_2", 7, 1, b"\x02" * 16, 42, "too_few_coins", b'{"wanted":9}')


def test_the_envelope_is_stored_as_its_golden_file_says() -> None:
    assert (GOLDEN / "envelope.json").read_bytes() == STATE


def test_a_row_gives_back_its_envelope() -> None:
    entry = decode_row(EVENT, Categories([PURSES]))
    assert (entry.position, entry.stream, entry.version, entry.name) == (
        42,
        "purse_1",
        3,
        "test.coins_added.v1",
    )
    assert (entry.key, entry.actor, entry.batch) == ("cmd_1", 'rail:"card"', 7)
    assert entry.occurred_at == entry.recorded_at == NOON
    assert entry.event == CoinsAdded(amount=5)


def test_the_hash_of_a_batch_is_the_golden_one() -> None:
    found = batch_hash(NO_HASH, 7, NOON, [EVENT.copy_bytes()], [OUTCOME.copy_bytes(), REFUSED.copy_bytes()])
    assert found.hex() == (GOLDEN / "batch_hash.txt").read_text().strip()


def test_the_hash_depends_on_every_part() -> None:
    event, outcome = EVENT.copy_bytes(), OUTCOME.copy_bytes()
    hashes = {
        batch_hash(NO_HASH, 7, NOON, [event], [outcome]),
        batch_hash(b"\x01" * 32, 7, NOON, [event], [outcome]),
        batch_hash(NO_HASH, 8, NOON, [event], [outcome]),
        batch_hash(NO_HASH, 7, NOON.replace(microsecond=251), [event], [outcome]),
        batch_hash(NO_HASH, 7, NOON, [event, event], [outcome]),
        batch_hash(NO_HASH, 7, NOON, [outcome], [event]),
        batch_hash(NO_HASH, 7, NOON, [EVENT._replace(name="test.coins_added.v2").copy_bytes()], [outcome]),
        batch_hash(NO_HASH, 7, NOON, [event], [REFUSED.copy_bytes()]),
    }
    assert len(hashes) == 8


def test_microseconds_are_exact() -> None:
    assert microseconds(datetime(2026, 1, 1, tzinfo=UTC)) == 1_767_225_600_000_000
    assert microseconds(NOON) == 1_767_268_800_000_250
