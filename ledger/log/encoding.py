"""How events and outcomes become bytes: JSON for people, PostgreSQL's binary COPY for speed.

The binary COPY rows serve twice. They are what is sent to PostgreSQL, and, since every field
in them is prefixed with its length, they are also an unambiguous input for the batch hash.
Source of the format: PostgreSQL documentation, COPY, "Binary Format".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from ledger.errors import CorruptLog
from ledger.identifiers import CommandKey
from ledger.log.categories import Categories
from ledger.log.model import Envelope

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
COPY_TRAILER = struct.pack("!h", -1)
NO_HASH = b"\0" * 32

_encode = msgspec.json.Encoder().encode
_length = struct.Struct("!i").pack
_event_head = struct.Struct("!hi").pack
_bigint = struct.Struct("!iq").pack
_int = struct.Struct("!ii").pack
_NULL = _length(-1)


class Header(msgspec.Struct, frozen=True):
    """What every event of one transaction has in common."""

    key: CommandKey
    actor: str
    occurred_at: datetime
    recorded_at: datetime
    batch: int


class Stored(Header, frozen=True):
    """The JSON object in `stored_events.state`."""

    data: msgspec.Raw


class EventRow(NamedTuple):
    """One row of `stored_events`."""

    stream: str
    version: int
    name: str
    state: bytes
    position: int

    def copy_bytes(self) -> bytes:
        """The row in binary COPY format."""
        stream, name = self.stream.encode(), self.name.encode()
        return b"".join(
            (
                _event_head(5, len(stream)),
                stream,
                _bigint(8, self.version),
                _length(len(name)),
                name,
                _length(len(self.state)),
                self.state,
                _bigint(8, self.position),
            )
        )


class OutcomeRow(NamedTuple):
    """One row of `log_outcomes`."""

    key: str
    batch: int
    ordinal: int
    body_digest: bytes
    position: int
    refusal: str | None
    detail: bytes

    def copy_bytes(self) -> bytes:
        """The row in binary COPY format."""
        key = self.key.encode()
        refusal = _NULL if self.refusal is None else _field(self.refusal.encode())
        return b"".join(
            (
                _event_head(7, len(key)),
                key,
                _bigint(8, self.batch),
                _int(4, self.ordinal),
                _length(len(self.body_digest)),
                self.body_digest,
                _bigint(8, self.position),
                refusal,
                _length(len(self.detail)),
                self.detail,
            )
        )


def _field(value: bytes) -> bytes:
    return _length(len(value)) + value


def header_prefix(header: Header) -> bytes:
    """The JSON up to the event's data, encoded once for all events of a transaction."""
    return _encode(header)[:-1] + b',"data":'


_decode_stored = msgspec.json.Decoder(Stored).decode


def decode_row(row: EventRow, categories: Categories) -> Envelope:
    """An event with its envelope, from its row."""
    stored = _decode_stored(row.state)
    return Envelope(
        position=row.position,
        stream=row.stream,
        version=row.version,
        name=row.name,
        key=stored.key,
        actor=stored.actor,
        occurred_at=stored.occurred_at,
        recorded_at=stored.recorded_at,
        batch=stored.batch,
        event=categories.decode(row.name, stored.data),
    )


class Sealed(NamedTuple):
    """A batch as recorded in `log_batches`."""

    batch: int
    first_position: int
    last_position: int
    outcomes: int
    recorded_at: datetime
    previous_hash: bytes
    hash: bytes


def batch_hash(
    previous_hash: bytes,
    batch: int,
    recorded_at: datetime,
    events: Sequence[bytes],
    outcomes: Sequence[bytes],
) -> bytes:
    """SHA-256 over the previous hash, the batch's own facts, and all its rows."""
    digest = hashlib.sha256(previous_hash)
    digest.update(struct.pack("!qqii", batch, microseconds(recorded_at), len(events), len(outcomes)))
    digest.update(b"".join(events))
    digest.update(b"".join(outcomes))
    return digest.digest()


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def microseconds(instant: datetime) -> int:
    """Whole microseconds since 1970."""
    delta = instant - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def encode_detail(value: Any) -> bytes:
    """A result or a refusal's details, as stored with the outcome."""
    return _encode(value)


def is_as_written(row: EventRow, categories: Categories) -> bool:
    """Whether a row's bytes are those that we would write for what it says.

    True for what cannot be told: a retired name is read as another event than was written.
    """
    try:
        stored = _decode_stored(row.state)
        event = categories.decode(row.name, stored.data)
        if categories.name_of(event) != row.name:
            return True
        header = Header(stored.key, stored.actor, stored.occurred_at, stored.recorded_at, stored.batch)
    except (CorruptLog, KeyError, ValueError):
        return False
    return header_prefix(header) + _encode(event) + b"}" == row.state
