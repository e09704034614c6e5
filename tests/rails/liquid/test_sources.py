"""The follower on either chain source, and what it costs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import httpx
import msgspec
import pytest

from ledger.clock import system_clock
from ledger.identifiers import Identifiers
from ledger.money import LBTC, USDT
from rails.contract import RailProtocolError, RailUnavailable, ReceiptState
from rails.liquid.chain import ChainSource
from rails.liquid.descriptor import WatchOnlyDescriptor
from rails.liquid.elementsd import ElementsdChain
from rails.liquid.esplora import EsploraChain
from rails.liquid.networks import LIQUID_REGTEST
from rails.liquid.rail import LiquidRail, LiquidSettings
from rails.testing.memory_references import MemoryReferences
from tests.rails.liquid.outside import LiquidWorld, NodeError, SandboxNode, Till
from tests.rails.liquid.quiet import CountingChain, ForgetfulChain, HastyChain, MixedUpChain, MovingChain


class EsploraFace:
    """Esplora's paths, answered from the sandbox node."""

    _blocks: ClassVar[dict[str, list[tuple[str, object]]]] = {}

    def __init__(self, node: SandboxNode) -> None:
        self._node = node
        self._raws: dict[str, bytes] = {}
        self._outputs: dict[str, list[object]] | None = None
        self._read_outputs()  # what earlier tests mined shall not count as this rail's time to start

    def __call__(self, request: httpx.Request) -> httpx.Response:
        try:
            answer = self._answer(request.url.path.strip("/").split("/"))
        except NodeError:
            return httpx.Response(404, text="Not found")
        content = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
        return httpx.Response(200, content=content)

    def _answer(self, path: list[str]) -> object:
        call = self._node.call
        match path:
            case ["mempool", "txids"]:
                return call("getrawmempool")
            case ["blocks", "tip", "hash"]:
                return str(call("getbestblockhash")).encode()
            case ["block-height", height]:
                return str(call("getblockhash", int(height))).encode()
            case ["block", block_hash]:
                block = call("getblock", block_hash)
                previous = block.get("previousblockhash")
                return {
                    "id": block_hash,
                    "height": block["height"],
                    "timestamp": block["time"],
                    "previousblockhash": previous,
                    "merkle_root": block["merkleroot"],
                }
            case ["block", block_hash, "txids"]:
                return call("getblock", block_hash)["tx"]
            case ["tx", txid, "raw"]:
                return self._transaction(txid)
            case ["scripthash", digest, "utxo"]:
                return self._unspent(digest)
        raise NodeError(-1, "no such path", 404)

    def _transaction(self, txid: str) -> bytes:
        if txid not in self._raws:
            try:
                self._raws[txid] = bytes.fromhex(self._node.call("getrawtransaction", txid))
            except NodeError:
                self._raws[txid] = bytes.fromhex(self._node.find(txid))
        return self._raws[txid]

    def _unspent(self, digest: str) -> list[object]:
        """A rail asks about a thousand scripts, at its start alone: the chain is read once for all of them."""
        if self._outputs is None:
            self._outputs = self._read_outputs()
        return self._outputs.get(digest, [])

    def _read_outputs(self) -> dict[str, list[object]]:
        found: dict[str, list[object]] = {}
        for height in range(1, self._node.call("getblockcount") + 1):
            for digest, output in self._read_block(height):
                found.setdefault(digest, []).append(output)
        return found

    def _read_block(self, height: int) -> list[tuple[str, object]]:
        """The outputs of a block, by script. A block never changes, and the node outlives a test: read it once."""
        block_hash = self._node.call("getblockhash", height)
        if block_hash not in self._blocks:
            self._blocks[block_hash] = [
                (
                    sha256(bytes.fromhex(output["scriptPubKey"]["hex"])).digest()[::-1].hex(),
                    {
                        "txid": tx["txid"],
                        "vout": output["n"],
                        "status": {"confirmed": True, "block_height": height},
                    },
                )
                for tx in self._node.call("getblock", block_hash, 2)["tx"]
                for output in tx["vout"]
            ]
        return self._blocks[block_hash]


def source(kind: str, node: SandboxNode) -> ChainSource:
    if kind == "esplora":
        transport = httpx.MockTransport(EsploraFace(node))
        return EsploraChain(httpx.AsyncClient(transport=transport, base_url="http://esplora.test"))
    return ElementsdChain(httpx.AsyncClient(base_url=node.url, auth=("sandbox", "sandbox")))


def rail_on(chain: ChainSource, world: LiquidWorld, references: MemoryReferences) -> LiquidRail:
    assets = {world.environ["LIQUID_USDT_ASSET"]: USDT, world.environ["LIQUID_LBTC_ASSET"]: LBTC}
    settings = LiquidSettings(network=LIQUID_REGTEST, assets=assets, interval_seconds=0.1, tip_age_max=None)
    text = Path(world.environ["LIQUID_DESCRIPTOR"]).read_text()
    return LiquidRail(settings, WatchOnlyDescriptor(text, LIQUID_REGTEST), chain, references, system_clock)


@pytest.fixture(params=["elementsd", "esplora"])
async def either(request: pytest.FixtureRequest, world: LiquidWorld) -> AsyncIterator[Till]:
    references = MemoryReferences()
    till = Till(world, rail_on(source(request.param, world.node), world, references), references)
    yield till
    await till.rail.close()


async def test_a_payment_is_followed_on_either_source(either: Till):
    instructions = await either.ask()
    either.pay(instructions)
    assert (await either.receipt(instructions)).state is ReceiptState.SEEN
    either.mine(2)
    assert (await either.receipt(instructions)).state is ReceiptState.SETTLED
    either.world.node.control("reorg", depth=2)
    assert (await either.receipt(instructions)).state is ReceiptState.SEEN
    either.mine(2)
    settled = await either.receipt(instructions)
    assert settled.state is ReceiptState.SETTLED
    either.world.node.control("reorg", depth=2, drop=True)
    assert (await either.receipt(instructions)).state is ReceiptState.REVERSED


async def test_either_source_answers_alike(world: LiquidWorld):
    till = await Till.open(world)
    instructions = await till.ask()
    txid = till.pay(instructions)
    till.mine()
    await till.rail.close()
    sources = [source(kind, world.node) for kind in ("elementsd", "esplora")]
    height = world.node.call("getblockcount")
    answers = []
    for chain in sources:
        block_hash = await chain.block_hash(height)
        assert block_hash is not None
        answers.append(
            (
                replace(await chain.pulse(), chain=None),
                await chain.block_hash(height + 1),
                await chain.block(block_hash),
                await chain.block("ab" * 32),
                await chain.transactions([txid], block_hash),
                await chain.transactions([txid[::-1]], None),
                await chain.unspent([bytes.fromhex(instructions.reference)]),
                await chain.tip_time(),
            )
        )
        await chain.close()
    assert answers[0] == answers[1]


@pytest.mark.parametrize("kind", ["elementsd", "esplora"])
@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (httpx.Response(503), RailUnavailable),
        (httpx.Response(200, content=b"<html>"), RailProtocolError),
    ],
)
async def test_a_broken_source_is_told_apart(kind: str, answer: httpx.Response, fault: type[Exception]):
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answer), base_url="http://broken.test")
    chain = ElementsdChain(client) if kind == "elementsd" else EsploraChain(client)
    with pytest.raises(fault):
        await chain.pulse()
    await chain.close()


async def test_a_block_whose_list_was_cut_on_the_way_is_refused(world: LiquidWorld):
    face = EsploraFace(world.node)
    world.node.control("mine", blocks=1)
    block_hash = world.node.call("getbestblockhash")

    def cut(request: httpx.Request) -> httpx.Response:
        answer = face(request)
        return httpx.Response(200, content=b"[]") if request.url.path.endswith("/txids") else answer

    chain = EsploraChain(httpx.AsyncClient(transport=httpx.MockTransport(cut), base_url="http://cut.test"))
    with pytest.raises(RailProtocolError, match="merkle root"):
        await chain.block(block_hash)
    await chain.close()


async def test_a_node_that_is_starting_is_unavailable():
    error = {"code": -28, "message": "Loading block index…"}
    answer = [{"id": number, "result": None, "error": error} for number in (1, 2, 3)]
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    chain = ElementsdChain(httpx.AsyncClient(transport=transport, base_url="http://starting.test"))
    with pytest.raises(RailUnavailable, match="starting"):
        await chain.pulse()
    await chain.close()


async def cost_of_ten_polls(world: LiquidWorld, open_payments: int) -> Counter[str]:
    descriptor = WatchOnlyDescriptor(Path(world.environ["LIQUID_DESCRIPTOR"]).read_text(), LIQUID_REGTEST)
    references, ids = MemoryReferences(), Identifiers(system_clock)
    for ordinal in range(1, open_payments + 1):
        references.add("liquid", descriptor.script(ordinal).hex(), ids.payment(), ordinal)
    chain = CountingChain(source("elementsd", world.node))
    till = Till(world, rail_on(chain, world, references), references)
    instructions = await till.ask()
    await till.receipts(instructions)
    before = chain.calls.copy()
    for _ in range(10):
        await till.receipts(instructions)
    cost = chain.calls - before
    if open_payments > 7777:
        world.node.control(
            "pay", address=descriptor.address(7777), amount="5", assetid=world.environ["LIQUID_USDT_ASSET"]
        )
        found = await till.rail.observe(descriptor.script(7777).hex())
        assert [receipt.state for receipt in found.receipts] == [ReceiptState.SEEN]
    await till.rail.close()
    del cost["pulse"]  # the background task polls too
    return cost


async def test_a_poll_asks_as_little_with_ten_thousand_open_payments_as_with_none(world: LiquidWorld):
    assert await cost_of_ten_polls(world, 10_000) == await cost_of_ten_polls(world, 0) == Counter()


@pytest.mark.parametrize("moments", [1, 3])
async def test_half_a_reorganisation_is_never_mistaken_for_a_loss(world: LiquidWorld, moments: int):
    references = MemoryReferences()
    chain = MovingChain(source("elementsd", world.node))
    rail = rail_on(chain, world, references)
    till = Till(world, rail, references)
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED
    # Nothing is awaited from here on: the next look sees the whole change at once, with a gap in it.
    chain.blocks_missing = moments
    world.node.control("reorg", depth=2)
    till.mine(2)
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED
    chain.blocks_missing = 1_000
    till.mine(1)
    with pytest.raises(RailUnavailable, match="cannot be read"):
        await till.receipts(instructions)
    await rail.close()


async def test_money_that_is_mined_before_it_could_be_read_is_found_in_its_block(world: LiquidWorld):
    references = MemoryReferences()
    chain = HastyChain(source("elementsd", world.node), lambda: world.node.control("mine", blocks=1))
    till = Till(world, rail_on(chain, world, references), references)
    instructions = await till.ask()
    chain.in_haste = True
    till.pay(instructions)
    await till.receipts(instructions)
    assert not chain.in_haste
    till.mine(2)
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED
    await till.rail.close()


@pytest.mark.parametrize("fault", [ForgetfulChain, MixedUpChain])
async def test_a_block_of_which_something_cannot_be_read_yet_is_read_again(
    world: LiquidWorld, fault: type[ForgetfulChain]
):
    references = MemoryReferences()
    chain = fault(source("esplora", world.node))
    rail = rail_on(chain, world, references)
    till = Till(world, rail, references)
    instructions = await till.ask()
    till.pay(instructions)
    till.mine(2)
    chain.answers_missing = 2
    for _ in range(3):
        with contextlib.suppress(RailUnavailable):
            await till.receipts(instructions)
    assert chain.answers_missing == 0, "nothing was ever missing"
    assert (await till.receipt(instructions)).state is ReceiptState.SETTLED
    await till.rail.close()
