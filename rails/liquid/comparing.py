"""Two sources of the chain: the first is read, and the second has to agree before money is final.

A node that lies, or whoever answers in its place, can invent blocks and whole payments; by itself it cannot be found
out. The second is asked about blocks alone and never about addresses. It needs no more than one answer for each new
block, and where it disagrees, or has nothing to say, nobody is credited and nobody is asked to pay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final

import structlog

from rails.contract import RailUnavailable
from rails.liquid.chain import Block, ChainSource, Pulse, Unspent

_REMEMBERED: Final = 300
"""Blocks whose content is remembered until they are compared: more than ever are not final."""


class ComparedChain:
    """`ChainSource` on two of them."""

    def __init__(self, first: ChainSource, second: ChainSource, *, confirmations: int) -> None:
        self._first = first
        self._second = second
        self._confirmations = confirmations
        self._compared_at = ""
        """The tip with which both agreed last."""
        self._final = 0
        """The newest block on which they agreed: it and what lies below it is final."""
        self._read: dict[str, bytes] = {}
        self._log = structlog.get_logger()

    @property
    def scans_all(self) -> bool:
        """As the first."""
        return self._first.scans_all

    async def pulse(self) -> Pulse:
        """The first one's, if both have the same block where money becomes final."""
        pulse = await self._first.pulse()
        if not pulse.syncing and pulse.tip != self._compared_at:
            await self._compare(max(pulse.height - self._confirmations + 1, 0))
            self._compared_at = pulse.tip
        return pulse

    async def block(self, block_hash: str) -> Block | None:
        """The first one's. What is final already is compared at once, anything newer when it becomes final."""
        found = await self._first.block(block_hash)
        if found is None:
            return None
        if found.height <= self._final:
            await self._compare_content(found.height, block_hash, _content(found))
        else:
            self._read[block_hash] = _content(found)
            if len(self._read) > _REMEMBERED:
                del self._read[next(iter(self._read))]
        return found

    async def tip_time(self) -> datetime:
        """As the first."""
        return await self._first.tip_time()

    async def block_hash(self, height: int) -> str | None:
        """As the first."""
        return await self._first.block_hash(height)

    async def transactions(self, txids: Sequence[str], block_hash: str | None) -> Mapping[str, bytes]:
        """As the first: whoever reads them computes their ids."""
        return await self._first.transactions(txids, block_hash)

    async def seen_at(self, txid: str) -> datetime | None:
        """As the first."""
        return await self._first.seen_at(txid)

    async def unspent(self, scripts: Sequence[bytes]) -> Sequence[Unspent]:
        """As the first: what it names is read in its block."""
        return await self._first.unspent(scripts)

    async def close(self) -> None:
        """Let go of both."""
        try:
            await self._first.close()
        finally:
            await self._second.close()

    async def _compare(self, height: int) -> None:
        ours = await self._first.block_hash(height)
        if ours is None:
            raise RailUnavailable("the chain became shorter while we looked at it")
        await self._require_same_hash(height, ours)
        content = self._read.pop(ours, None)
        if content is not None:
            await self._compare_content(height, ours, content)
        self._final = height

    async def _require_same_hash(self, height: int, ours: str) -> None:
        theirs = await self._second.block_hash(height)
        if theirs is None:
            raise RailUnavailable(f"the second source of the chain does not have block {height:,} yet")
        if theirs != ours:
            self._log.error("liquid_sources_disagree", height=height, first=ours, second=theirs)
            raise RailUnavailable(f"the two sources of the chain disagree about block {height:,}")

    async def _compare_content(self, height: int, block_hash: str, content: bytes) -> None:
        theirs = await self._second.block(block_hash)
        if theirs is None:
            # It may not keep what is old; and of a branch that was left it may never have heard.
            if await self._first.block_hash(height) == block_hash:
                await self._require_same_hash(height, block_hash)
            return
        if theirs.height != height or _content(theirs) != content:
            self._read[block_hash] = content
            self._log.error("liquid_sources_disagree", height=height, first=block_hash, second=block_hash)
            raise RailUnavailable(f"the two sources of the chain disagree about what is in block {height:,}")


def _content(block: Block) -> bytes:
    return sha256("".join(block.txids).encode()).digest()
