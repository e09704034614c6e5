"""The port to a Liquid chain: what the follower asks, whoever answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Protocol

import msgspec

Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""Of a block or a transaction, as people write it."""
Height = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**32)]
"""Unix time of a block, which has four bytes for it."""
OutputNumber = Annotated[int, msgspec.Meta(ge=0, le=2**32)]
Hex = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2})*\Z")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """The newest block and what waits. The mempool is read before the tip, so that a transaction
    mined in between is in both and never in neither."""

    tip: str
    height: int
    """Of the newest block."""
    mempool: frozenset[str]
    mempool_whole: bool = True
    """False while the source still reads what waited before it was started."""
    syncing: bool = False
    """Whether the source says itself that it is behind the network."""
    chain: str | None = None
    """The network's name, if the source knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block's place and the ids of its transactions, in order."""

    hash: str
    height: int
    previous: str
    time: datetime
    txids: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unspent:
    """An unspent output in the chain."""

    txid: str
    vout: int
    script: bytes
    height: int


class ChainSource(Protocol):
    """A way to read the chain. Every call may raise `RailUnavailable` and `RailProtocolError`."""

    @property
    def scans_all(self) -> bool:
        """Whether `unspent` costs the same for one script and for thousands."""

    async def pulse(self) -> Pulse:
        """The newest block and the ids of all waiting transactions."""

    async def tip_time(self) -> datetime:
        """When the newest block was made, by its own word."""

    async def block_hash(self, height: int) -> str | None:
        """The active chain's block at a height; None above the tip."""

    async def block(self, block_hash: str) -> Block | None:
        """A block, of a stale branch too where the source still has it. All of its transactions are listed."""

    async def transactions(self, txids: Sequence[str], block_hash: str | None) -> Mapping[str, bytes]:
        """Serialised transactions of a block, or of the mempool (None). Those not found are left out."""

    async def seen_at(self, txid: str) -> datetime | None:
        """When the source first saw a waiting transaction; None if it does not wait or does not say."""

    async def unspent(self, scripts: Sequence[bytes]) -> Sequence[Unspent]:
        """Unspent outputs to any of these scripts, in the chain. May take minutes."""

    async def close(self) -> None:
        """Let go of connections."""
