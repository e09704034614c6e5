"""A chain source on an Esplora HTTP API, for those who run no node of their own.

Protocol: Esplora's `/blocks/tip/hash`, `/block-height/:h`, `/block/:hash`, `/mempool/txids`,
`/tx/:txid/raw`, `/scripthash/:hash/utxo`. Prefer elementsd: Esplora learns which addresses
are ours when asked for unspent outputs, and tells no mempool times.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import httpx
import msgspec

from rails.contract import RailProtocolError, RailUnavailable
from rails.liquid.chain import Block, Hash, Height, OutputNumber, Pulse, Seconds, Unspent
from rails.liquid.integrity import whole_block
from rails.reading import decoded, understood

_AT_ONCE: Final = 8
MAX_SCRIPTS: Final = 2_000
"""Unspent outputs are asked for one script at a time: only the newest ones are, on a start."""


class _Block(msgspec.Struct):
    id: Hash
    height: Height
    timestamp: Seconds
    merkle_root: Hash
    previousblockhash: Hash | None = None


class _Status(msgspec.Struct):
    confirmed: bool
    block_height: Height | None = None


class _Unspent(msgspec.Struct):
    txid: Hash
    vout: OutputNumber
    status: _Status


class EsploraChain:
    """`ChainSource` on one Esplora."""

    scans_all = False

    def __init__(self, client: httpx.AsyncClient) -> None:
        """`client` has the API's URL as its base, such as `https://host/liquid/api`, and a timeout."""
        self._client = client
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._newest: Block | None = None

    async def pulse(self) -> Pulse:
        """Mempool first, then the tip."""
        mempool: frozenset[str] = decoded("Esplora", await self._found("/mempool/txids"), frozenset[Hash])
        tip = await self._tip()
        return Pulse(tip=tip, height=(await self._known(tip)).height, mempool=mempool)

    async def tip_time(self) -> datetime:
        """By the newest block."""
        return (await self._known(await self._tip())).time

    async def block_hash(self, height: int) -> str | None:
        """The active chain's block at a height; None above the tip."""
        found = await self._get(f"/block-height/{height}")
        return None if found is None else _hash(found)

    async def block(self, block_hash: str) -> Block | None:
        """A block; Esplora forgets stale ones sooner or later."""
        found = await self._get(f"/block/{block_hash}")
        if found is None:
            return None
        block: _Block = decoded("Esplora", found, _Block)
        txids = await self._get(f"/block/{block_hash}/txids")
        if txids is None:
            return None
        return Block(
            hash=block.id,
            height=block.height,
            previous=block.previousblockhash or "",
            time=datetime.fromtimestamp(block.timestamp, UTC),
            txids=whole_block(decoded("Esplora", txids, list[Hash]), block.merkle_root),
        )

    async def transactions(self, txids: Sequence[str], block_hash: str | None) -> Mapping[str, bytes]:
        """Serialised transactions: Esplora finds them by id alone."""
        raws = await asyncio.gather(*(self._get(f"/tx/{txid}/raw") for txid in txids))
        return {txid: raw for txid, raw in zip(txids, raws, strict=True) if raw is not None}

    async def seen_at(self, txid: str) -> datetime | None:
        """Esplora does not say."""
        return None

    async def unspent(self, scripts: Sequence[bytes]) -> Sequence[Unspent]:
        """One request per script, for the newest `MAX_SCRIPTS`."""
        newest = scripts[-MAX_SCRIPTS:]
        answers = await asyncio.gather(*(self._unspent(script) for script in newest))
        return [row for rows in answers for row in rows]

    async def _unspent(self, script: bytes) -> list[Unspent]:
        digest = hashlib.sha256(script).digest()[::-1].hex()
        rows: list[_Unspent] = decoded(
            "Esplora", await self._found(f"/scripthash/{digest}/utxo"), list[_Unspent]
        )
        return [
            Unspent(txid=row.txid, vout=row.vout, script=script, height=row.status.block_height)
            for row in rows
            if row.status.confirmed and row.status.block_height is not None
        ]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _known(self, tip: str) -> Block:
        """The newest block, asked for once."""
        if self._newest is None or self._newest.hash != tip:
            self._newest = await self.block(tip)
        if self._newest is None:
            raise RailProtocolError("Esplora does not know its own newest block")
        return self._newest

    async def _tip(self) -> str:
        return _hash(await self._found("/blocks/tip/hash"))

    async def _found(self, path: str) -> bytes:
        found = await self._get(path)
        if found is None:
            raise RailProtocolError(f"Esplora has no {path}")
        return found

    async def _get(self, path: str) -> bytes | None:
        try:
            async with self._slots:
                response = await self._client.get(path)
        except httpx.HTTPError as error:
            raise RailUnavailable(f"Esplora cannot be reached ({type(error).__name__})") from error
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise RailUnavailable(f"Esplora answered HTTP {response.status_code}")
        return response.content


def _hash(content: bytes) -> str:
    """A hash as plain text. Raises `RailProtocolError`."""
    with understood("Esplora"):
        return msgspec.convert(content.decode("ascii").strip(), Hash)
