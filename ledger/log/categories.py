"""The registry of stream categories: which stored name belongs to which struct."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from ledger.errors import CorruptLog
from ledger.log.model import Category, Event


class Categories:
    """Finds a stream's category by its prefix, and translates events to and from JSON."""

    def __init__(self, categories: Iterable[Category[Any]]) -> None:
        self._by_prefix: dict[str, Category[Any]] = {}
        self._name_by_type: dict[type[Event], str] = {}
        self._decoders: dict[str, msgspec.json.Decoder[Event]] = {}
        self._upcasts: dict[str, Any] = {}
        self._codecs: dict[str, SnapshotCodec | None] = {}
        for category in categories:
            self._add(category)

    def _add(self, category: Category[Any]) -> None:
        if category.prefix in self._by_prefix:
            raise ValueError(f"two categories share the prefix {category.prefix!r}")
        self._by_prefix[category.prefix] = category
        for name, event_type in category.events.items():
            if event_type in self._name_by_type or name in self._decoders or name in self._upcasts:
                raise ValueError(f"{name!r} is registered twice")
            self._name_by_type[event_type] = name
            self._decoders[name] = msgspec.json.Decoder(event_type)
        for name, upcast in category.upcasts.items():
            if name in self._decoders:
                raise ValueError(f"{name!r} is both current and retired")
            self._upcasts[name] = upcast

    def of(self, stream: str) -> Category[Any]:
        """The category of a stream id such as `acct_01k…`."""
        try:
            return self._by_prefix[stream.partition("_")[0]]
        except KeyError:
            raise ValueError(f"no category has streams like {stream!r}") from None

    def codec_of(self, stream: str) -> SnapshotCodec | None:
        """How snapshots of a stream are written and read; None if its category has none."""
        category = self.of(stream)
        if category.prefix not in self._codecs:
            self._codecs[category.prefix] = _codec(category)
        return self._codecs[category.prefix]

    def name_of(self, event: Event) -> str:
        """The stored name of an event."""
        return self._name_by_type[type(event)]

    def decode(self, name: str, data: bytes | msgspec.Raw) -> Event:
        """An event from its stored JSON, upcast if its name is retired."""
        decoder = self._decoders.get(name)
        if decoder is not None:
            return decoder.decode(data)
        upcast = self._upcasts.get(name)
        if upcast is None:
            raise CorruptLog(f"the log has an event of an unknown name {name!r}")
        event: Event = upcast(msgspec.json.decode(data))
        return event

    @property
    def names(self) -> frozenset[str]:
        """Every stored name that can be read, retired ones included."""
        return frozenset(self._decoders) | frozenset(self._upcasts)


def _codec(category: Category[Any]) -> SnapshotCodec | None:
    kind = category.snapshot_type
    return None if kind is None else SnapshotCodec(category.prefix, kind, category.snapshot_version)


class SnapshotCodec:
    """Snapshots of one category: MessagePack, tagged with the shape of the state's type."""

    def __init__(self, prefix: str, kind: type[Any], version: int) -> None:
        schema = msgspec.json.encode(msgspec.json.schema(kind), order="deterministic")
        self.shape = f"{prefix}:{version}:{hashlib.blake2b(schema, digest_size=8).hexdigest()}"
        self.encode = msgspec.msgpack.Encoder().encode
        self.decode = msgspec.msgpack.Decoder(kind).decode
