"""The rail's cursor: where in the chain we were, and the money that was not final then. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from rails.liquid.chain import Hash, Height, Hex, OutputNumber
from rails.liquid.sightings import Sighting
from rails.liquid.unblind import Content

MAX_CARRIED = 100
"""Outputs carried in a cursor, oldest first. It is a short list: they become final in two minutes."""


class Carried(msgspec.Struct, frozen=True, array_like=True):
    """An output that was not final when the cursor was made."""

    txid: Hash
    vout: OutputNumber
    script: Hex
    asset_id: Hash | None
    value: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    first_seen_at: datetime
    other: bool = False

    def sighting(self) -> Sighting:
        """As it was, in no block."""
        content = None if self.asset_id is None else Content(self.asset_id, self.value)
        return Sighting(
            txid=self.txid,
            vout=self.vout,
            script=bytes.fromhex(self.script),
            content=content,
            first_seen_at=self.first_seen_at.astimezone(UTC),
            other=self.other,
        )


class Cursor(
    msgspec.Struct,
    frozen=True,
    rename={"height": "h", "block_hash": "b", "carried": "c", "genesis": "g"},
    omit_defaults=True,
):
    """A place in the chain."""

    height: Height
    block_hash: Hash
    carried: tuple[Carried, ...] = ()
    genesis: Hash | None = None
    """The chain's first block."""

    def text(self) -> str:
        """For the core to keep."""
        return msgspec.json.encode(self).decode()


def make(height: int, block_hash: str, unsettled: Iterable[Sighting], genesis: str | None = None) -> Cursor:
    """A cursor at a block. What waits is carried, so that its end is told even after a restart."""
    oldest = sorted(unsettled, key=lambda sighting: sighting.first_seen_at)[:MAX_CARRIED]
    return Cursor(height, block_hash, tuple(_carry(sighting) for sighting in oldest), genesis)


def read(text: str) -> Cursor | None:
    """A kept cursor; None if it is not one (then everything is looked at again)."""
    try:
        return msgspec.json.decode(text, type=Cursor)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def _carry(sighting: Sighting) -> Carried:
    content = sighting.content
    return Carried(
        txid=sighting.txid,
        vout=sighting.vout,
        script=sighting.script.hex(),
        asset_id=None if content is None else content.asset_id,
        value=0 if content is None else content.value,
        first_seen_at=sighting.first_seen_at,
        other=sighting.other,
    )
