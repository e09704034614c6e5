"""The same suite against real lnd nodes, where their binaries are."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from ledger.clock import Clock, system_clock
from ledger.money import Asset
from rails.contract import Instructions, Rail, ReceiptState, ReferenceStore
from rails.lightning.client import LndClient
from rails.lightning.connection import Connection
from rails.lightning.credentials import CredentialFiles, Preimages
from rails.lightning.invoices import InvoiceState
from rails.lightning.rail import LightningRail, Settings
from rails.lightning.throttle import Throttle
from rails.testing.contract_suite import RailContract
from rails.testing.harness import RailHarness
from rails.testing.memory_references import MemoryReferences
from rails.testing.worlds import Impossible, World
from tests.rails.lightning.node import QUICK
from tests.rails.lightning.real_network import Network, network

pytestmark = pytest.mark.real_lnd

QUOTE_SECONDS = 8
IN_FLIGHT, SUCCEEDED = 1, 2


@pytest.fixture(scope="module")
async def regtest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Network]:
    """btcd and two lnd nodes, once for the module."""
    btcd, lnd = os.environ.get("BTCD_BIN"), os.environ.get("LND_BIN")
    if not btcd or not lnd:
        pytest.skip("BTCD_BIN and LND_BIN name no binaries")
    async with network(tmp_path_factory.mktemp("regtest"), btcd, lnd) as running:
        yield running


@dataclass
class RealWorld:
    """Alice pays Bob over a real channel."""

    regtest: Network
    clock: Clock = system_clock

    def client(self) -> LndClient:
        """A client with Bob's invoice macaroon."""
        folder = self.regtest.bob.folder
        files = CredentialFiles(folder / "tls.cert", folder / "invoices.macaroon")
        return LndClient(Connection(self.regtest.bob.address, files))

    async def start(self, references: ReferenceStore) -> Rail:
        """A fresh rail."""
        throttle = Throttle(per_second=100, burst=100, wait_ms_max=1000, monotonic_ns=time.monotonic_ns)
        rail_settings = Settings(production=False, quote_seconds=QUOTE_SECONDS, pace=QUICK)
        return LightningRail(self.client(), Preimages(b"k" * 32), throttle, self.clock, rail_settings)

    async def pay(
        self,
        instructions: Instructions,
        amount: int | None = None,
        asset: Asset | None = None,
    ) -> None:
        """A real wallet refuses to send another amount than an invoice asks for."""
        if amount is not None:
            raise Impossible("lnd pays what an invoice asks for")
        client = self.client()
        invoice = await client.lookup(instructions.reference)
        if invoice.state is not InvoiceState.OPEN:
            await client.close()
            raise Impossible("the invoice is no longer open")
        paying = asyncio.create_task(
            self.regtest.alice.pay(instructions.text or "", 0, lambda payment: payment.status != IN_FLIGHT)
        )
        async with aclosing(client.follow(instructions.reference)) as states:
            async for invoice in states:
                if invoice.state is not InvoiceState.OPEN:
                    break
        if invoice.state is InvoiceState.ACCEPTED:
            paying.cancel()  # the HTLC stays: only our watching ends
        elif (await paying).status != SUCCEEDED:
            raise Impossible("the payment failed")
        await client.close()

    async def settle_world(self) -> None:
        """Lightning is final at once."""

    async def expire(self, instructions: Instructions) -> None:
        """Wait until the node's own timer has closed the invoice."""
        client = self.client()
        async with aclosing(client.follow(instructions.reference)) as states:
            async for _ in states:
                pass
        await client.close()


class TestRealLndContract(RailContract):
    @pytest.fixture
    async def world(self, regtest: Network) -> World:
        return RealWorld(regtest)


async def test_a_real_node_gives_a_hold_back_before_its_end(regtest: Network) -> None:
    world = RealWorld(regtest)
    references = MemoryReferences()
    harness = RailHarness(world=world, rail=await world.start(references), references=references)
    instructions = await harness.open(harness.order(hold=True))
    await world.pay(instructions)
    await regtest.chain.generate(70)
    seen = await harness.observe_until(
        instructions, lambda seen: [receipt.state for receipt in seen.receipts] == [ReceiptState.RETURNED]
    )
    assert seen.receipts
    await harness.rail.close()
