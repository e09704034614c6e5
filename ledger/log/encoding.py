"""How an event is stored: its envelope and data as one JSON object; and the rows that the log is made of."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from ledger.errors import CorruptLog
from ledger.identifiers import CommandKey
from ledger.log.categories import Categories
from ledger.log.model import Envelope, Event

NO_HASH = b"\0" * 32

_encode = msgspec.json.Encoder().encode


class Stored(msgspec.Struct, frozen=True):
    """The JSON object in `stored_events.state`. `Prefixes` writes all but the last field."""

    key: CommandKey
    actor: str
    occurred_at: datetime
    recorded_at: datetime
    batch: int
    data: msgspec.Raw


class StoredData(msgspec.Struct, frozen=True):
    """The part of it that a state is folded from."""

    data: msgspec.Raw


class EventRow(NamedTuple):
    """One row of `stored_events`."""

    stream: str
    version: int
    name: str
    state: bytes
    position: int


class OutcomeRow(NamedTuple):
    """One row of `log_outcomes`."""

    key: str
    batch: int
    ordinal: int
    body_digest: bytes
    position: int
    refusal: str | None
    detail: bytes


class Prefixes:
    """The JSON of a batch's events up to their data. What the whole batch has in common is encoded once."""

    def __init__(self, recorded_at: datetime, batch: int) -> None:
        self._recorded_at = recorded_at
        self._batch = batch
        self._at_once = self._facts(recorded_at)

    def of(self, key: str, actor: str, occurred_at: datetime) -> bytes:
        """For all events of one transaction."""
        facts = self._at_once if occurred_at is self._recorded_at else self._facts(occurred_at)
        return b'{"key":%b,"actor":%b,%b' % (_encode(key), _encode(actor), facts)

    def _facts(self, occurred_at: datetime) -> bytes:
        return b'"occurred_at":%b,"recorded_at":%b,"batch":%d,"data":' % (
            _encode(occurred_at),
            _encode(self._recorded_at),
            self._batch,
        )


_decode_stored = msgspec.json.Decoder(Stored).decode
_decode_data = msgspec.json.Decoder(StoredData).decode


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


def decode_event(row: EventRow, categories: Categories) -> Event:
    """The event alone, from its row."""
    return categories.decode(row.name, _decode_data(row.state).data)


class Sealed(NamedTuple):
    """A batch as recorded in `log_batches`."""

    batch: int
    first_position: int
    last_position: int
    outcomes: int
    recorded_at: datetime
    previous_hash: bytes
    hash: bytes


EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def microseconds(instant: datetime) -> int:
    """Whole microseconds since 1970."""
    delta = instant - EPOCH
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
    except (CorruptLog, KeyError, ValueError):
        return False
    prefix = Prefixes(stored.recorded_at, stored.batch).of(stored.key, stored.actor, stored.occurred_at)
    return prefix + _encode(event) + b"}" == row.state
