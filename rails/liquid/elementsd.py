"""A chain source on elementsd's JSON-RPC. It needs no wallet and no transaction index.

Protocol: Elements 23 and later, batches of JSON-RPC 1.0 over HTTP with basic authentication.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import msgspec

from rails.contract import RailProtocolError, RailUnavailable
from rails.liquid.chain import Block, Hash, Height, Hex, OutputNumber, Pulse, Seconds, Unspent
from rails.liquid.integrity import whole_block
from rails.reading import decoded, understood

_INVALID_ADDRESS_OR_KEY: Final = -5
_INVALID_PARAMETER: Final = -8
_IN_WARMUP: Final = -28
_BATCH: Final = 50
_SCAN_SECONDS: Final = 600


class _Error(msgspec.Struct):
    code: int
    message: str


class _Answer(msgspec.Struct):
    id: int
    result: Any = None
    error: _Error | None = None


class _Block(msgspec.Struct):
    hash: Hash
    height: Height
    time: Seconds
    tx: list[Hash]
    merkleroot: Hash
    previousblockhash: Hash = ""
    """The first block has none."""


class _Entry(msgspec.Struct):
    time: Seconds


class _Unspent(msgspec.Struct, rename={"script": "scriptPubKey"}):
    txid: Hash
    vout: OutputNumber
    script: Hex
    height: Height


class _Scan(msgspec.Struct):
    unspents: list[_Unspent]


class _Info(msgspec.Struct):
    chain: str
    blocks: Height
    bestblockhash: Hash
    initialblockdownload: bool


class _Mempool(msgspec.Struct):
    loaded: bool


class RpcFault(Exception):
    """elementsd answered a call with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


class ElementsdChain:
    """`ChainSource` on one elementsd."""

    scans_all = True

    def __init__(self, client: httpx.AsyncClient) -> None:
        """`client` has the node's URL as its base, its credentials, and a timeout."""
        self._client = client
        self._ids = itertools.count(1)

    async def pulse(self) -> Pulse:
        """The newest block and the ids of all waiting transactions, in one round trip.

        Whether the mempool is whole is asked before it is read: it only ever becomes whole.
        """
        calls: list[tuple[str, list[Any]]] = [
            ("getmempoolinfo", []),
            ("getrawmempool", []),
            ("getblockchaininfo", []),
        ]
        state, mempool, chain = await self._batch(calls)
        info: _Info = _read(_result(chain), _Info)
        return Pulse(
            tip=info.bestblockhash,
            height=info.blocks,
            mempool=_read(_result(mempool), frozenset[Hash]),
            mempool_whole=_read(_result(state), _Mempool).loaded,
            syncing=info.initialblockdownload,
            chain=info.chain,
        )

    async def tip_time(self) -> datetime:
        """By the newest block's header."""
        tip = _read(await self._call("getbestblockhash"), Hash)
        header: _Entry = _read(await self._call("getblockheader", tip), _Entry)
        return _instant(header.time)

    async def block_hash(self, height: int) -> str | None:
        """The active chain's block at a height; None above the tip."""
        try:
            return str(_read(await self._call("getblockhash", height), Hash))
        except RpcFault as fault:
            if fault.code == _INVALID_PARAMETER:
                return None
            raise _unexpected(fault) from fault

    async def block(self, block_hash: str) -> Block | None:
        """A block; elementsd keeps stale ones for as long as its files."""
        try:
            found: _Block = _read(await self._call("getblock", block_hash, 1), _Block)
        except RpcFault as fault:
            if fault.code in (_INVALID_ADDRESS_OR_KEY, -1):  # -1: a stale block whose data was pruned
                return None
            raise _unexpected(fault) from fault
        return Block(
            hash=found.hash,
            height=found.height,
            previous=found.previousblockhash,
            time=_instant(found.time),
            txids=whole_block(found.tx, found.merkleroot),
        )

    async def transactions(self, txids: Sequence[str], block_hash: str | None) -> Mapping[str, bytes]:
        """Serialised transactions of a block, or of the mempool (None)."""
        found: dict[str, bytes] = {}
        for start in range(0, len(txids), _BATCH):
            part = txids[start : start + _BATCH]
            place = [] if block_hash is None else [block_hash]
            answers = await self._batch([("getrawtransaction", [txid, False, *place]) for txid in part])
            for txid, answer in zip(part, answers, strict=True):
                if isinstance(answer, RpcFault) and answer.code == _INVALID_ADDRESS_OR_KEY:
                    continue
                found[txid] = bytes.fromhex(_read(_result(answer), Hex))
        return found

    async def seen_at(self, txid: str) -> datetime | None:
        """When the node took the transaction into its mempool."""
        try:
            entry: _Entry = _read(await self._call("getmempoolentry", txid), _Entry)
        except RpcFault as fault:
            if fault.code == _INVALID_ADDRESS_OR_KEY:
                return None
            raise _unexpected(fault) from fault
        return _instant(entry.time)

    async def unspent(self, scripts: Sequence[bytes]) -> Sequence[Unspent]:
        """One `scantxoutset` over all scripts: its cost is that of the whole set, not of their number."""
        if not scripts:
            return []
        objects = [f"raw({script.hex()})" for script in scripts]
        try:
            answer: _Scan = _read(
                await self._call("scantxoutset", "start", objects, timeout=_SCAN_SECONDS), _Scan
            )
        except RpcFault as fault:
            if fault.code == _INVALID_PARAMETER:  # another scan is in progress
                raise RailUnavailable("elementsd is busy with another scan") from fault
            raise _unexpected(fault) from fault
        return [
            Unspent(txid=row.txid, vout=row.vout, script=bytes.fromhex(row.script), height=row.height)
            for row in answer.unspents
        ]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    # --- JSON-RPC ---

    async def _call(self, method: str, *params: Any, timeout: float | None = None) -> Any:
        answers = await self._batch([(method, list(params))], timeout=timeout)
        if isinstance(answers[0], RpcFault) and answers[0].code not in (
            _INVALID_ADDRESS_OR_KEY,
            _INVALID_PARAMETER,
            -1,
        ):
            raise _unexpected(answers[0])
        return _raised(answers[0])

    async def _batch(self, calls: Sequence[tuple[str, list[Any]]], timeout: float | None = None) -> list[Any]:
        """Results in order; a call that failed gives its `RpcFault` in place of a result."""
        first = next(self._ids)
        # Elements 28 refuses every other version but "2.0" (`src/rpc/request.cpp`), which has another envelope.
        body = [
            {"jsonrpc": "1.0", "id": first + n, "method": method, "params": params}
            for n, (method, params) in enumerate(calls)
        ]
        for _ in body[1:]:
            next(self._ids)
        content = await self._post(msgspec.json.encode(body), timeout)
        found: list[_Answer] = decoded("elementsd", content, list[_Answer])
        answers = {answer.id: answer for answer in found}
        if not answers.keys() >= set(range(first, first + len(calls))):
            raise RailProtocolError("elementsd gave an answer that is not JSON-RPC")
        return [_outcome(answers[first + n]) for n in range(len(calls))]

    async def _post(self, body: bytes, timeout: float | None) -> bytes:
        headers = {"content-type": "application/json"}
        limit = httpx.USE_CLIENT_DEFAULT if timeout is None else timeout
        try:
            response = await self._client.post("/", content=body, headers=headers, timeout=limit)
        except httpx.HTTPError as error:
            raise RailUnavailable(f"elementsd cannot be reached ({type(error).__name__})") from error
        if response.status_code in (401, 403):
            raise RailUnavailable("elementsd refuses our credentials")
        if response.status_code != 200:
            raise RailUnavailable(f"elementsd answered HTTP {response.status_code}")
        return response.content


def _read(result: Any, shape: Any) -> Any:
    """A result as what it has to be. Raises `RailProtocolError`."""
    with understood("elementsd"):
        return msgspec.convert(result, shape)


def _outcome(answer: _Answer) -> Any:
    error = answer.error
    if error is None:
        return answer.result
    if error.code == _IN_WARMUP:
        raise RailUnavailable(f"elementsd is starting: {error.message}")
    return RpcFault(error.code, error.message)


def _raised(answer: Any) -> Any:
    if isinstance(answer, RpcFault):
        raise answer
    return answer


def _result(answer: Any) -> Any:
    if isinstance(answer, RpcFault):
        raise _unexpected(answer)
    return answer


def _unexpected(fault: RpcFault) -> RailProtocolError:
    return RailProtocolError(f"elementsd refused a call: {fault}")


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
