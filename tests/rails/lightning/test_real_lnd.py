"""The same suite against real lnd nodes, where their binaries are."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from lndgrpc.compiled import lightning_pb2 as ln

from ledger.clock import Clock, system_clock
from ledger.money import Asset
from rails.contract import Instructions, Rail, ReceiptState, ReferenceStore
from rails.lightning.channels import Channels
from rails.lightning.client import LndClient
from rails.lightning.connection import Connection
from rails.lightning.credentials import CredentialFiles, Preimages
from rails.lightning.invoices import InvoiceState
from rails.lightning.rail import LightningRail, Settings
from rails.lightning.refunds import Payouts
from rails.lightning.throttle import Throttle
from rails.testing.contract_suite import RailContract
from rails.testing.harness import RailHarness
from rails.testing.memory_references import MemoryReferences
from rails.testing.worlds import Impossible, World
from tests.rails.lightning.node import QUICK
from tests.rails.lightning.node_suite import NodeContract, Raw
from tests.rails.lightning.payout_suite import Paying, PayoutContract, lookups
from tests.rails.lightning.real_network import IN_FLIGHT, SUCCEEDED, Network, network
from tests.waiting import until

pytestmark = pytest.mark.real_lnd

QUOTE_SECONDS = 60


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
        """Another amount than an invoice asks for goes to its hash: a careless wallet may do so."""
        if asset is not None:
            raise Impossible("Lightning moves bitcoin only")
        client = self.client()
        invoice = await client.lookup(instructions.reference)
        if invoice.state is not InvoiceState.OPEN:
            await client.close()
            raise Impossible("the invoice is no longer open")
        alice, text = self.regtest.alice, instructions.text or ""
        paying = asyncio.create_task(
            alice.pay(text, 0, _ended) if amount is None else alice.pay_another_amount(text, amount, _ended)
        )
        arriving = asyncio.create_task(_arrived(client, instructions.reference))
        await asyncio.wait({paying, arriving}, return_when=asyncio.FIRST_COMPLETED)
        if paying.done() and (paying.exception() or paying.result().status != SUCCEEDED):
            arriving.cancel()
            await client.close()
            raise Impossible("the payment failed")
        if await arriving is InvoiceState.ACCEPTED:
            paying.cancel()  # the HTLC stays: only our watching ends
        else:
            await paying
        await client.close()

    async def settle_world(self) -> None:
        """Lightning is final at once."""

    async def break_down(self) -> None:
        """The node dies."""
        await self.regtest.bob.end("kill")

    async def restore(self) -> None:
        """It comes back, and money passes again."""
        await self.regtest.start_bob()

    async def expire(self, instructions: Instructions) -> None:
        """Wait until the node's own timer has closed the invoice."""
        client = self.client()
        async with aclosing(client.follow(instructions.reference)) as states:
            async for _ in states:
                pass
        await client.close()


def _ended(payment: Any) -> bool:
    return bool(payment.status != IN_FLIGHT)


async def _arrived(client: LndClient, payment_hash: str) -> InvoiceState:
    async with aclosing(client.follow(payment_hash)) as states:
        async for invoice in states:
            if invoice.state is not InvoiceState.OPEN:
                return invoice.state
    return InvoiceState.CANCELED


class TestRealLndContract(RailContract):
    @pytest.fixture
    async def world(self, regtest: Network) -> World:
        return RealWorld(regtest)


@dataclass
class RealPayee:
    """Bob, whom Alice pays."""

    regtest: Network

    async def pay(self, bolt11: str) -> None:
        """See `Payee`."""
        bob = self.regtest.bob
        payment_hash = (await bob.call("DecodePayReq", ln.PayReqString(pay_req=bolt11))).payment_hash
        paying = asyncio.create_task(self.regtest.alice.pay(bolt11, 0, _ended))

        async def state() -> int:
            return int((await bob.call("LookupInvoice", ln.PaymentHash(r_hash_str=payment_hash))).state)

        await until(state, bool, "the payment arrives")
        paying.cancel()

    async def end(self) -> None:
        """See `Payee`."""
        await self.regtest.bob.end("terminate")

    async def begin(self) -> None:
        """See `Payee`."""
        await self.regtest.start_bob()


class TestRealNode(NodeContract):
    @pytest.fixture
    async def raw(self, regtest: Network) -> AsyncIterator[Raw]:
        bob = regtest.bob
        credentials = grpc.ssl_channel_credentials((bob.folder / "tls.cert").read_bytes())
        options = [("grpc.max_reconnect_backoff_ms", 50), ("grpc.initial_reconnect_backoff_ms", 20)]
        async with grpc.aio.secure_channel(bob.address, credentials, options) as channel:
            yield Raw(RealPayee(regtest), channel, bob.metadata()[0][1])


@dataclass
class RealReceiver:
    """Alice, whom Bob pays out of what he has received."""

    regtest: Network

    async def invoice(self, amount_msat: int) -> str:
        """See `Receiver`."""
        made = await self.regtest.alice.call("AddInvoice", ln.Invoice(value_msat=amount_msat, memo="refund"))
        return str(made.payment_request)

    async def received(self, bolt11: str) -> int:
        """See `Receiver`."""
        alice = self.regtest.alice
        payment_hash = (await alice.call("DecodePayReq", ln.PayReqString(pay_req=bolt11))).payment_hash
        found = await alice.call("LookupInvoice", ln.PaymentHash(r_hash_str=payment_hash))
        return int(found.amt_paid_msat)

    async def end(self) -> None:
        """See `Receiver`."""
        await self.regtest.bob.end("kill")

    async def begin(self) -> None:
        """See `Receiver`."""
        await self.regtest.start_bob()

    def payouts(self) -> Payouts:
        """See `Receiver`."""
        return Payouts(self._connection("refunds.macaroon"), lookups(), plain_http=True)

    def channels(self) -> Channels:
        """What can arrive at Bob."""
        return Channels(self._connection("channels.macaroon"))

    def _connection(self, macaroon: str) -> Connection:
        folder = self.regtest.bob.folder
        return Connection(self.regtest.bob.address, CredentialFiles(folder / "tls.cert", folder / macaroon))


@pytest.fixture
async def receiver(regtest: Network) -> RealReceiver:
    """Bob has enough above what he must keep in the channel."""
    bob = regtest.bob
    made = await bob.call("AddInvoice", ln.Invoice(value_msat=200_000_000, memo="enough"))
    paid = await regtest.alice.pay(made.payment_request, 0, _ended)
    assert paid.status == SUCCEEDED
    return RealReceiver(regtest)


class TestRealPayouts(PayoutContract):
    @pytest.fixture
    async def paying(self, receiver: RealReceiver) -> AsyncIterator[Paying]:
        paying = Paying(receiver, receiver.payouts())
        yield paying
        await paying.payouts.close()


async def test_what_a_real_node_says_can_arrive_does_arrive_and_twice_that_does_not(
    receiver: RealReceiver,
) -> None:
    channels, bob = receiver.channels(), receiver.regtest.bob
    most = await channels.receivable_msat()
    for msat, arrives in ((2 * most, False), (most, True)):
        made = await bob.call("AddInvoice", ln.Invoice(value_msat=msat, memo="most"))
        paid = await receiver.regtest.alice.pay(made.payment_request, 0, _ended)
        assert (paid.status == SUCCEEDED) is arrives
    assert await channels.receivable_msat() < most
    await channels.close()


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
