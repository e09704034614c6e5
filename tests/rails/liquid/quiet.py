"""A chain source on which nothing happens, and one that counts what is asked of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rails.contract import RailUnavailable
from rails.liquid.chain import Block, ChainSource, Pulse, Unspent
from rails.liquid.networks import LIQUID


@dataclass
class QuietChain:
    """One block and no transactions."""

    chain: str = "liquidv1"
    syncing: bool = False
    newest: datetime | None = None
    genesis: str = str(LIQUID.genesis)
    down: bool = False
    scans_all: bool = True

    async def pulse(self) -> Pulse:
        if self.down:
            raise RailUnavailable("all is quiet")
        return Pulse(tip=self.genesis, height=0, mempool=frozenset(), syncing=self.syncing, chain=self.chain)

    async def tip_time(self) -> datetime:
        return self.newest or datetime.now(UTC)

    async def block_hash(self, height: int) -> str | None:
        return self.genesis if height == 0 else None

    async def block(self, block_hash: str) -> Block | None:
        return None

    async def transactions(self, txids: Sequence[str], block_hash: str | None) -> Mapping[str, bytes]:
        return {}

    async def seen_at(self, txid: str) -> datetime | None:
        return None

    async def unspent(self, scripts: Sequence[bytes]) -> Sequence[Unspent]:
        return []

    async def close(self) -> None:
        pass


class CountingChain:
    """Passes every call on and counts it."""

    def __init__(self, chain: ChainSource) -> None:
        self._chain = chain
        self.calls: Counter[str] = Counter()

    @property
    def scans_all(self) -> bool:
        return self._chain.scans_all

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._chain, name)

        async def counted(*arguments: Any) -> Any:
            self.calls[name] += 1
            return await method(*arguments)

        return counted


class SlowScanChain(CountingChain):
    """Unspent outputs are looked for as long as a large node needs."""

    def __init__(self, chain: ChainSource) -> None:
        super().__init__(chain)
        self.found = asyncio.Event()

    async def unspent(self, scripts: Sequence[bytes]) -> Sequence[Unspent]:
        self.calls["unspent"] += 1
        await self.found.wait()
        return await self._chain.unspent(scripts)


class MovingChain(CountingChain):
    """A chain that is caught in the middle of a reorganisation: some blocks are not there yet."""

    def __init__(self, chain: ChainSource) -> None:
        super().__init__(chain)
        self.blocks_missing = 0

    async def block(self, block_hash: str) -> Block | None:
        if self.blocks_missing > 0:
            self.blocks_missing -= 1
            return None
        return await self._chain.block(block_hash)


class HastyChain(CountingChain):
    """Blocks are found in the instant between being told of waiting transactions and asking for them."""

    def __init__(self, chain: ChainSource, mine: Callable[[], None]) -> None:
        super().__init__(chain)
        self._mine = mine
        self.in_haste = False

    async def transactions(self, txids: Sequence[str], block_hash: str | None) -> Mapping[str, bytes]:
        if block_hash is None and txids and self.in_haste:
            self.in_haste = False
            self._mine()
        return await self._chain.transactions(txids, block_hash)


class ForgetfulChain(CountingChain):
    """Some transactions of its blocks cannot be had yet."""

    def __init__(self, chain: ChainSource) -> None:
        super().__init__(chain)
        self.answers_missing = 0

    async def transactions(self, txids: Sequence[str], block_hash: str | None) -> Mapping[str, bytes]:
        if block_hash is not None and self.answers_missing > 0:
            self.answers_missing -= 1
            return {}
        return await self._chain.transactions(txids, block_hash)


class MixedUpChain(ForgetfulChain):
    """It gives each transaction of a block the bytes of another one."""

    async def transactions(self, txids: Sequence[str], block_hash: str | None) -> Mapping[str, bytes]:
        found = await self._chain.transactions(txids, block_hash)
        if block_hash is None or self.answers_missing == 0:
            return found
        self.answers_missing -= 1
        first, *others = found.values()
        return dict(zip(found, [*others, first], strict=True))
