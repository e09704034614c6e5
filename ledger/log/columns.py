"""A batch as PostgreSQL's binary arrays: one per column, all rows of the batch in it.

The arrays serve twice. They are what one prepared statement receives, and, since every element
in them is prefixed with its length and every array with its count, they are also an unambiguous
input for the batch's hash. Source of the format: `array_send` in PostgreSQL's
`src/backend/utils/adt/arrayfuncs.c`: dimensions, flags, element type, length and lower bound of
the one dimension, then each element as its length (-1 for null) and its bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from ledger.log.encoding import EventRow, OutcomeRow, microseconds

_BYTEA, _BIGINT, _TEXT = 17, 20, 25
"""Type ids of PostgreSQL's catalogue."""

_array_head = struct.Struct("!5i").pack
_length = struct.Struct("!i").pack
_bigint_element = struct.Struct("!iq").pack
_batch_facts = struct.Struct("!qqqii").pack
_NULL = _length(-1)
_LENGTHS = tuple(_length(length) for length in range(2048))


class Columns(NamedTuple):
    """Events and outcomes of one batch, in their order. What follows from a row's place is not in here:
    the n-th event has position `first_position + n`, and the n-th outcome has ordinal n."""

    events: int
    event_columns: tuple[bytes, bytes, bytes, bytes]
    """Streams, versions, names, states."""
    outcomes: int
    outcome_columns: tuple[bytes, bytes, bytes, bytes, bytes]
    """Keys, body digests, positions, refusals, details."""


def columns(events: Sequence[EventRow], outcomes: Sequence[OutcomeRow]) -> Columns:
    """The columns of these rows."""
    return Columns(
        len(events),
        (
            array_of_text([row.stream for row in events]),
            array_of_bigint([row.version for row in events]),
            array_of_text([row.name for row in events]),
            array_of_bytea([row.state for row in events]),
        ),
        len(outcomes),
        (
            array_of_text([row.key for row in outcomes]),
            array_of_bytea([row.body_digest for row in outcomes]),
            array_of_bigint([row.position for row in outcomes]),
            array_of_text([row.refusal for row in outcomes]),
            array_of_bytea([row.detail for row in outcomes]),
        ),
    )


def array_of_text(values: Sequence[str | None]) -> bytes:
    """`text[]`, nulls allowed."""
    return _array(_TEXT, [None if value is None else value.encode() for value in values])


def array_of_bytea(values: Sequence[bytes]) -> bytes:
    """`bytea[]`."""
    return _array(_BYTEA, values)


def array_of_bigint(values: Sequence[int]) -> bytes:
    """`bigint[]`."""
    elements = b"".join([_bigint_element(8, value) for value in values])
    return _array_head(1, 0, _BIGINT, len(values), 1) + elements


def _array(element_type: int, values: Sequence[bytes | None]) -> bytes:
    pieces = [_array_head(1, int(None in values), element_type, len(values), 1)]
    for value in values:
        if value is None:
            pieces.append(_NULL)
            continue
        size = len(value)
        pieces.append(_LENGTHS[size] if size < 2048 else _length(size))
        pieces.append(value)
    return b"".join(pieces)


def batch_hash(
    previous_hash: bytes, batch: int, first_position: int, recorded_at: datetime, rows: Columns
) -> bytes:
    """SHA-256 over the previous hash, the batch's own facts, and all its rows."""
    digest = hashlib.sha256(previous_hash)
    digest.update(_batch_facts(batch, first_position, microseconds(recorded_at), rows.events, rows.outcomes))
    digest.update(b"".join(rows.event_columns))
    digest.update(b"".join(rows.outcome_columns))
    return digest.digest()
