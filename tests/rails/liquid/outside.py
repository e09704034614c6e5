"""The world outside of the Liquid rail: a node in a process of its own, moved by HTTP."""

from __future__ import annotations

import asyncio
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import wallycore as wally

from ledger.clock import Clock, system_clock
from ledger.identifiers import Identifiers
from ledger.money import USDT, Asset, Money, format_decimal
from rails.contract import FundsReceipt, Instructions, Notification, Order, Rail, RailContext, ReferenceStore
from rails.liquid.plugin import plugin
from rails.testing.memory_references import MemoryReferences
from rails.testing.worlds import Impossible
from sandbox.elementsd.confidential import Secret, Spend, Target, build
from sandbox.elementsd.transactions import parse
from sandbox.elementsd.treasury import watch_only_descriptor
from tests.waiting import SECONDS_MAX


class SandboxNode:
    """The sandbox node as a process."""

    def __init__(self, data: Path, port: int, *options: str) -> None:
        self.data, self.port = data, port
        self.url = f"http://127.0.0.1:{port}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client()

    def start(self) -> None:
        """Start, and wait until it answers."""
        argv = ["-m", "sandbox.elementsd", "--port", str(self.port), "--data", str(self.data), *self._options]
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, *argv], stderr=log, stdout=log
            )
        # Calls are not repeated by themselves: only connecting is.
        self._client.close()
        self._client = httpx.Client(
            timeout=SECONDS_MAX, transport=httpx.HTTPTransport(retries=100), base_url=self.url
        )
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self.data / "log").read_text()
            try:
                self._client.get("/sandbox/health").raise_for_status()
            except httpx.HTTPError:
                continue
            return
        raise AssertionError("the sandbox node did not start")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it by a signal; returns its exit code."""
        assert self._process is not None
        self._client.close()
        self._process.send_signal(number)
        return self._process.wait(SECONDS_MAX)

    def control(self, path: str, **body: Any) -> dict[str, Any]:
        """Ask the control API. Raises `httpx.HTTPStatusError`."""
        response = self._client.post(f"/sandbox/{path}", json=body)
        response.raise_for_status()
        return dict(response.json())

    def info(self) -> dict[str, Any]:
        """Height, assets, balances."""
        return dict(self._client.get("/sandbox/info").json())

    def find(self, txid: str) -> str:
        """A mined transaction, serialised."""
        height = self.call("getblockcount")
        for past in range(height, 0, -1):
            block_hash = self.call("getblockhash", past)
            if txid in self.call("getblock", block_hash)["tx"]:
                return str(self.call("getrawtransaction", txid, False, block_hash))
        raise NodeError(-5, f"{txid} is in no block", 500)

    def call(self, method: str, *params: Any) -> Any:
        """One JSON-RPC call; the result, or the error's object as a `NodeError`."""
        response = self._client.post(
            "/", json={"id": 1, "method": method, "params": params}, auth=("sandbox", "sandbox")
        )
        answer = response.json()
        if answer["error"] is not None:
            raise NodeError(answer["error"]["code"], answer["error"]["message"], response.status_code)
        return answer["result"]


class NodeError(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str, status: int) -> None:
        super().__init__(code, message, status)
        self.code, self.message, self.status = code, message, status


def environment(node: SandboxNode) -> dict[str, str]:
    """What the gateway would be given."""
    assets = node.info()["assets"]
    return {
        "ELEMENTS_RPC_URL": f"http://sandbox:sandbox@127.0.0.1:{node.port}",
        "LIQUID_NETWORK": "liquidregtest",
        "LIQUID_DESCRIPTOR": str(node.data / "descriptor.txt"),
        "LIQUID_USDT_ASSET": assets["USDT"],
        "LIQUID_LBTC_ASSET": assets["L-BTC"],
        "LIQUID_POLL_SECONDS": "0.1",
    }


@dataclass(frozen=True)
class Treasury:
    """The merchant's keys, away from the API server: it can spend what the rail only sees."""

    seed: bytes

    def descriptor(self) -> str:
        """What the rail gets."""
        return watch_only_descriptor(self.seed)

    def sweep(self, raw: bytes) -> bytes:
        """Spend the L-BTC output of `raw` that is ours (to nobody: two blinded halves and a fee)."""
        spend = next(filter(None, (self._spend(raw, index) for index in range(1, 20))))
        key = bytes(wally.ec_public_key_from_private_key(spend.private_key))
        half, rest = divmod(spend.secret.value - 100, 2)
        targets = [
            Target(script=spend.script, asset=spend.secret.asset, value=value, blinding_public_key=key)
            for value in (half, half + rest)
        ]
        nobody = [replace(target, script=b"\x00\x14" + bytes(20)) for target in targets]
        return build([spend], nobody, 100, secrets.token_bytes).raw

    def _spend(self, raw: bytes, index: int) -> Spend | None:
        master = wally.bip32_key_from_seed(self.seed, wally.BIP32_VER_TEST_PRIVATE, 0)
        hard = 1 << 31
        path = [84 | hard, 1776 | hard, hard, 0, index]
        child = wally.bip32_key_from_parent_path(master, path, wally.BIP32_FLAG_KEY_PRIVATE)
        private_key = bytes(wally.bip32_key_get_priv_key(child))
        public_key = wally.ec_public_key_from_private_key(private_key)
        script = b"\x00\x14" + bytes(wally.hash160(public_key))
        slip77 = wally.asset_blinding_key_from_seed(self.seed)
        blinding_key = wally.asset_blinding_key_to_ec_private_key(slip77, script)
        tx = parse(raw)
        for vout, output in enumerate(tx.outputs):
            if output.script == script:
                value, asset, abf, vbf = wally.asset_unblind(
                    output.nonce, blinding_key, output.rangeproof, output.value, script, output.asset
                )
                secret = Secret(asset=bytes(asset), value=value, abf=bytes(abf), vbf=bytes(vbf))
                return Spend(
                    txid=tx.txid, vout=vout, script=script, value_bytes=output.value,
                    secret=secret, private_key=private_key,
                )  # fmt: skip
        return None


@dataclass
class LiquidWorld:
    """The contract suite's world."""

    node: SandboxNode
    environ: Mapping[str, str]
    treasury: Treasury | None = None
    clock: Clock = system_clock

    def sweep(self, txid: str) -> None:
        """The merchant's treasury spends what this transaction paid it."""
        assert self.treasury is not None
        raw = self.treasury.sweep(bytes.fromhex(self.node.find(txid)))
        self.node.call("sendrawtransaction", raw.hex())

    async def start(self, references: ReferenceStore) -> Rail:
        """A fresh rail on the same chain."""
        context = RailContext(clock=self.clock, references=references, production=False)
        return plugin.build(self.environ, context)

    async def pay(
        self, instructions: Instructions, amount: int | None = None, asset: Asset | None = None
    ) -> None:
        """From the sandbox's wallet."""
        body: dict[str, Any] = {"uri": instructions.uri}
        if amount is not None:
            body["amount"] = format_decimal(amount, 8)
        if asset is not None:
            body["assetid"] = self.asset_id(asset)
        try:
            self.node.control("pay", **body)
        except httpx.HTTPStatusError as error:
            raise Impossible(error.response.text) from error

    def asset_id(self, asset: Asset) -> str:
        """The chain's name of an asset."""
        ids = {"USDT": self.environ["LIQUID_USDT_ASSET"], "L-BTC": self.environ["LIQUID_LBTC_ASSET"]}
        return ids.get(asset.code, asset.code)

    async def settle_world(self) -> None:
        """Two confirmations."""
        self.node.control("mine", blocks=2)

    async def expire(self, instructions: Instructions) -> None:
        """An address never closes."""

    @property
    def foreign_asset(self) -> Asset:
        """An asset of the chain that no one asked for."""
        return Asset(self.node.info()["assets"]["JUNK"], 8)

    async def reverse(self, instructions: Instructions) -> None:
        """Reorganise the last blocks away and double-spend what was in them."""
        self.node.control("reorg", depth=3, drop=True)

    async def break_down(self) -> None:
        """Every call is cut off."""
        self.node.control("faults", down=True)

    async def restore(self) -> None:
        """It answers again."""
        self.node.control("faults")

    async def lose_next_answer(self) -> None:
        """One call is done and its answer lost."""
        self.node.control("faults", drop=1)


@dataclass
class Till:
    """A rail as the core runs it: its references are remembered, its notifications lead to observing."""

    world: LiquidWorld
    rail: Rail
    references: MemoryReferences

    @classmethod
    async def open(cls, world: LiquidWorld) -> Till:
        """A fresh till."""
        references = MemoryReferences()
        return cls(world, await world.start(references), references)

    async def ask(self, *, minor: int = 5_00000000, asset: Asset = USDT) -> Instructions:
        """Open a payment request and remember it."""
        order = an_order(self.rail, self.references.next_ordinal("liquid"), minor=minor, asset=asset)
        instructions = await self.rail.open(order)
        self.references.add("liquid", instructions.reference, order.payment_id, order.ordinal)
        return instructions

    async def receipts(self, instructions: Instructions) -> list[FundsReceipt]:
        """What the rail says now."""
        return list((await self.rail.observe(instructions.reference)).receipts)

    async def receipt(self, instructions: Instructions) -> FundsReceipt:
        """The only piece there is."""
        (receipt,) = await self.receipts(instructions)
        return receipt

    async def notification_about(self, instructions: Instructions, cursor: str | None) -> str | None:
        """The cursor after the first notification about these instructions."""
        async with asyncio.timeout(SECONDS_MAX), aclosing(self.notifications(cursor)) as notifications:
            async for notification in notifications:
                if notification.reference == instructions.reference:
                    return notification.cursor
        raise AssertionError("the rail stopped listening")

    async def notifications(self, cursor: str | None) -> AsyncGenerator[Notification, None]:
        """The rail's notifications, closed in time."""
        notifications = self.rail.listen(cursor)
        try:
            async for notification in notifications:
                yield notification
        finally:
            await notifications.aclose()  # type: ignore[attr-defined]

    async def restart(self) -> None:
        """Our process dies and another one starts."""
        await self.rail.close()
        self.rail = await self.world.start(self.references)

    def pay(self, instructions: Instructions, **body: Any) -> str:
        """Pay from the sandbox's wallet; returns the txid."""
        return str(self.world.node.control("pay", uri=instructions.uri, **body)["txid"])

    def mine(self, blocks: int = 1, **body: Any) -> None:
        """Mine blocks."""
        self.world.node.control("mine", blocks=blocks, **body)


def an_order(rail: Rail, ordinal: int, *, minor: int = 5_00000000, asset: Asset = USDT) -> Order:
    """A plain order."""
    ids = Identifiers(system_clock)
    return Order(
        payment_id=ids.payment(),
        account_id=ids.account(),
        ordinal=ordinal,
        amount_due=Money(minor, asset),
        description="500 images",
        expires_at=datetime.now(UTC),
        return_url="https://llamasketch.test/topups/return",
    )
