"""How events look at rest. These bytes are for ever: golden files are added, never edited."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ledger.log.categories import Categories
from ledger.log.columns import batch_hash, columns
from ledger.log.encoding import (
    NO_HASH,
    EventRow,
    OutcomeRow,
    Prefixes,
    decode_row,
    microseconds,
)
from tests.log.purse import PURSES, CoinsAdded

GOLDEN = Path(__file__).parent / "golden"
NOON = datetime(2026, 1, 1, 12, 0, 0, 250, tzinfo=UTC)
STATE = Prefixes(NOON, 7).of("cmd_1", 'rail:"card"', NOON) + msgspec.json.encode(CoinsAdded(amount=5)) + b"}"
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
    found = batch_hash(NO_HASH, 7, 42, NOON, columns([EVENT], [OUTCOME, REFUSED]))
    assert found.hex() == (GOLDEN / "batch_hash.txt").read_text().strip()


def test_the_hash_depends_on_every_part() -> None:
    rows = columns([EVENT], [OUTCOME])
    hashes = {
        batch_hash(NO_HASH, 7, 42, NOON, rows),
        batch_hash(b"\x01" * 32, 7, 42, NOON, rows),
        batch_hash(NO_HASH, 8, 42, NOON, rows),
        batch_hash(NO_HASH, 7, 43, NOON, rows),
        batch_hash(NO_HASH, 7, 42, NOON.replace(microsecond=251), rows),
        batch_hash(NO_HASH, 7, 42, NOON, columns([EVENT, EVENT], [OUTCOME])),
        batch_hash(NO_HASH, 7, 42, NOON, columns([], [OUTCOME])),
        batch_hash(NO_HASH, 7, 42, NOON, columns([EVENT], [REFUSED])),
        batch_hash(NO_HASH, 7, 42, NOON, columns([EVENT], [])),
        *(
            batch_hash(NO_HASH, 7, 42, NOON, columns([changed], [OUTCOME]))
            for changed in (
                EVENT._replace(stream="purse_2"),
                EVENT._replace(version=4),
                EVENT._replace(name="test.coins_added.v2"),
                EVENT._replace(state=STATE + b" "),
            )
        ),
        *(
            batch_hash(NO_HASH, 7, 42, NOON, columns([EVENT], [changed]))
            for changed in (
                OUTCOME._replace(key="cmd_3"),
                OUTCOME._replace(body_digest=b"\x03" * 16),
                OUTCOME._replace(position=41),
                OUTCOME._replace(refusal=""),
                OUTCOME._replace(detail=b"{}"),
            )
        ),
    }
    assert len(hashes) == 18


def test_no_two_batches_give_the_hash_the_same_input() -> None:
    """What moves from one field, or from one row, to its neighbour is seen."""
    long, short = EVENT._replace(stream="purse_12", name="a"), EVENT._replace(stream="purse_1", name="2a")
    assert batch_hash(NO_HASH, 1, 1, NOON, columns([long], [])) != batch_hash(
        NO_HASH, 1, 1, NOON, columns([short], [])
    )
    one, other = EVENT._replace(state=b"ab"), EVENT._replace(state=b"c")
    assert batch_hash(NO_HASH, 1, 1, NOON, columns([one, other], [])) != batch_hash(
        NO_HASH, 1, 1, NOON, columns([one._replace(state=b"a"), other._replace(state=b"bc")], [])
    )


def test_microseconds_are_exact() -> None:
    assert microseconds(datetime(2026, 1, 1, tzinfo=UTC)) == 1_767_225_600_000_000
    assert microseconds(NOON) == 1_767_268_800_000_250
