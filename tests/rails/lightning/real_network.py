"""A regtest of btcd and two real lnd nodes: Alice pays, Bob is ours.

Needs the binaries named by BTCD_BIN and LND_BIN (v0.16 to v0.21). Where there are none, the tests
marked `real_lnd` are skipped and say so.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from bech32 import encode as segwit_address
from lndgrpc.compiled import chainnotifier_pb2 as chain
from lndgrpc.compiled import (
    chainnotifier_pb2_grpc,
    lightning_pb2_grpc,
    router_pb2_grpc,
    stateservice_pb2_grpc,
)
from lndgrpc.compiled import lightning_pb2 as ln
from lndgrpc.compiled import router_pb2 as router
from lndgrpc.compiled import stateservice_pb2 as stateservice

from rails.lightning.credentials import CHANNEL_METHODS, INVOICE_METHODS, REFUND_METHODS
from sandbox.embedded.ports import free_port
from tests.waiting import eventually, until

START_SECONDS = 60
CHANNEL_SAT = 10_000_000
BLOCKS_UNTIL_SEGWIT_AND_MATURITY = 450
NOBODY = str(segwit_address("bcrt", 0, [0] * 20))
RPC_USER = "test"
RPC_PASSWORD = "test"
IN_FLIGHT, SUCCEEDED = 1, 2
MACAROONS = {
    "invoices.macaroon": INVOICE_METHODS,
    "refunds.macaroon": REFUND_METHODS,
    "channels.macaroon": CHANNEL_METHODS,
}


@asynccontextmanager
async def process(*argv: str, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child that ends with the block."""
    with log.open("ab") as out:
        child = await asyncio.create_subprocess_exec(*argv, stdout=out, stderr=out)
        try:
            yield child
        finally:
            if child.returncode is None:
                child.terminate()
            await asyncio.wait_for(child.wait(), START_SECONDS)


@dataclass
class Chain:
    """One btcd, restarted when the miner's address changes."""

    binary: str
    folder: Path
    rpc_port: int
    p2p_port: int

    def running(self, mining_address: str) -> Any:
        """btcd as a context."""
        folder = str(self.folder)
        return process(
            self.binary,
            *("--regtest", "--txindex", "--nobanning", "--nostalldetect", "--trickleinterval=100ms"),
            *(f"--datadir={folder}", f"--logdir={folder}", f"--rpccert={folder}/rpc.cert"),
            *(f"--rpckey={folder}/rpc.key", f"--rpcuser={RPC_USER}", f"--rpcpass={RPC_PASSWORD}"),
            *(f"--rpclisten=127.0.0.1:{self.rpc_port}", f"--listen=127.0.0.1:{self.p2p_port}"),
            f"--miningaddr={mining_address}",
            log=self.folder / "btcd.out",
        )

    async def generate(self, blocks: int) -> int:
        """Mine; returns the height."""
        await self.call("generate", blocks)
        return int(await self.call("getblockcount"))

    async def call(self, method: str, *parameters: Any) -> Any:
        """One JSON-RPC call, as soon as the server listens."""
        body = {"jsonrpc": "1.0", "id": 1, "method": method, "params": list(parameters)}
        url = f"https://127.0.0.1:{self.rpc_port}"
        identity = base64.b64encode(f"{RPC_USER}:{RPC_PASSWORD}".encode()).decode()
        async with aiohttp.ClientSession(headers={"Authorization": f"Basic {identity}"}) as http:
            reported = await until(
                lambda: _answer(http, url, body), lambda answer: answer is not None, "btcd listens"
            )
        assert reported["error"] is None, reported["error"]
        return reported["result"]


async def _answer(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Any:
    """None while nobody listens there."""
    try:
        async with http.post(url, json=body, ssl=False) as answer:
            return await answer.json(content_type=None)
    except aiohttp.ClientConnectorError:
        return None


@dataclass
class RealNode:
    """One lnd and a channel to it with its admin macaroon."""

    name: str
    binary: str
    folder: Path
    chain: Chain
    port: int
    p2p_port: int
    _channel: grpc.aio.Channel | None = None
    _process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """Where its gRPC is."""
        return f"127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """lnd as a context; it may be killed and started again meanwhile."""
        await self.start()
        try:
            yield
        finally:
            await self.close()
            await self.end("terminate")

    async def start(self) -> None:
        """Start it, and wait until it is ready for calls."""
        with (self.folder / "lnd.out").open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(*self._command(), stdout=out, stderr=out)
        await self._connect()

    async def end(self, how: str) -> None:
        """`kill` or `terminate` it."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            getattr(process, how)()
            await asyncio.wait_for(process.wait(), START_SECONDS)

    def signal(self, number: int) -> None:
        """Stop or continue it, for example."""
        assert self._process is not None
        self._process.send_signal(number)

    def _command(self) -> tuple[str, ...]:
        return (
            self.binary,
            *("--bitcoin.regtest", "--bitcoin.node=btcd", "--noseedbackup", "--nobootstrap", "--norest"),
            *("--bitcoin.defaultchanconfs=1", "--trickledelay=50", "--store-final-htlc-resolutions"),
            *(
                f"--lnddir={self.folder}",
                f"--rpclisten={self.address}",
                f"--listen=127.0.0.1:{self.p2p_port}",
            ),
            *(f"--btcd.rpchost=127.0.0.1:{self.chain.rpc_port}", f"--btcd.rpcuser={RPC_USER}"),
            *(f"--btcd.rpcpass={RPC_PASSWORD}", f"--btcd.rpccert={self.chain.folder}/rpc.cert"),
        )

    async def _connect(self) -> None:
        await eventually((self.folder / "tls.cert").exists, f"{self.name} writes its certificate")
        await self.close()
        credentials = grpc.ssl_channel_credentials((self.folder / "tls.cert").read_bytes())
        self._channel = grpc.aio.secure_channel(self.address, credentials)
        states = stateservice_pb2_grpc.StateStub(self._channel).SubscribeState(
            stateservice.SubscribeStateRequest(), timeout=START_SECONDS, wait_for_ready=True
        )
        async for update in states:
            if update.state == stateservice.SERVER_ACTIVE:
                return

    async def close(self) -> None:
        """Let go of the channel."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def call(self, method: str, request: Any) -> Any:
        """One unary call of the Lightning service."""
        stub = getattr(lightning_pb2_grpc.LightningStub(self._channel), method)
        return await stub(request, metadata=self.metadata(), timeout=START_SECONDS)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The admin macaroon."""
        path = self.folder / "data/chain/bitcoin/regtest/admin.macaroon"
        return (("macaroon", path.read_bytes().hex()),)

    async def reached(self, height: int) -> None:
        """Wait until its wallet has seen this block."""
        epochs = chainnotifier_pb2_grpc.ChainNotifierStub(self._channel).RegisterBlockEpochNtfn(
            chain.BlockEpoch(), metadata=self.metadata(), timeout=START_SECONDS
        )
        async for epoch in epochs:
            if epoch.height >= height:
                return

    async def bake_macaroons(self) -> None:
        """Those that the rail gets, as the operators' guide says."""
        for key, (name, methods) in enumerate(MACAROONS.items(), start=1):
            wanted = [ln.MacaroonPermission(entity="uri", action=method) for method in sorted(methods)]
            request = ln.BakeMacaroonRequest(permissions=wanted, root_key_id=key)
            baked = await self.call("BakeMacaroon", request)
            (self.folder / name).write_bytes(bytes.fromhex(baked.macaroon))

    async def pay(self, bolt11: str, amount_msat: int, is_enough: Callable[[Any], bool]) -> Any:
        """Send a payment and follow it until `is_enough` or its end."""
        request = router.SendPaymentRequest(
            payment_request=bolt11, amt_msat=amount_msat, timeout_seconds=20, fee_limit_msat=10**6
        )
        return await self.send(request, is_enough)

    async def pay_another_amount(
        self, bolt11: str, amount_msat: int, is_enough: Callable[[Any], bool]
    ) -> Any:
        """The same with an amount that the invoice does not ask for: to its hash, with its secret."""
        asked = await self.call("DecodePayReq", ln.PayReqString(pay_req=bolt11))
        request = router.SendPaymentRequest(
            dest=bytes.fromhex(asked.destination),
            payment_hash=bytes.fromhex(asked.payment_hash),
            payment_addr=asked.payment_addr,
            final_cltv_delta=int(asked.cltv_expiry),
            dest_features=[ln.FeatureBit.TLV_ONION_REQ, ln.FeatureBit.PAYMENT_ADDR_REQ],
            amt_msat=amount_msat,
            timeout_seconds=20,
            fee_limit_msat=10**6,
        )
        return await self.send(request, is_enough)

    async def send(self, request: Any, is_enough: Callable[[Any], bool]) -> Any:
        """Send a payment and follow it until `is_enough` or its end."""
        updates = router_pb2_grpc.RouterStub(self._channel).SendPaymentV2(
            request, metadata=self.metadata(), timeout=START_SECONDS
        )
        payment = None
        async for payment in updates:
            if is_enough(payment):
                break
        return payment


@dataclass
class Network:
    """Both nodes with a channel from Alice to Bob."""

    chain: Chain
    alice: RealNode
    bob: RealNode

    async def start_bob(self) -> None:
        """Start him again, and wait until money passes."""
        await self.bob.start()
        await connect(self.alice, self.bob)
        await first_payment(self.alice, self.bob)


@asynccontextmanager
async def network(folder: Path, btcd: str, lnd: str) -> AsyncIterator[Network]:
    """Start everything, fund Alice, open a channel, bake Bob's macaroon."""
    for name in ("btcd", "alice", "bob"):
        (folder / name).mkdir(parents=True)
    blocks = Chain(btcd, folder / "btcd", free_port(), free_port())
    alice = RealNode("alice", lnd, folder / "alice", blocks, free_port(), free_port())
    bob = RealNode("bob", lnd, folder / "bob", blocks, free_port(), free_port())
    async with AsyncExitStack() as nodes:
        async with blocks.running(NOBODY):
            await blocks.generate(1)
            async with alice.running():
                miner = (await alice.call("NewAddress", ln.NewAddressRequest(type=0))).address
        await nodes.enter_async_context(blocks.running(miner))
        height = await blocks.generate(BLOCKS_UNTIL_SEGWIT_AND_MATURITY)
        for node in (alice, bob):
            await nodes.enter_async_context(node.running())
            await node.reached(height)
        await _open_channel(blocks, alice, bob)
        await bob.bake_macaroons()
        yield Network(blocks, alice, bob)


async def _open_channel(blocks: Chain, alice: RealNode, bob: RealNode) -> None:
    await connect(alice, bob)
    info = await bob.call("GetInfo", ln.GetInfoRequest())
    events = lightning_pb2_grpc.LightningStub(alice._channel).SubscribeChannelEvents(
        ln.ChannelEventSubscription(), metadata=alice.metadata(), timeout=START_SECONDS
    )
    await alice.call(
        "OpenChannelSync",
        ln.OpenChannelRequest(
            node_pubkey=bytes.fromhex(info.identity_pubkey), local_funding_amount=CHANNEL_SAT
        ),
    )
    height = await blocks.generate(6)
    async for event in events:
        if event.WhichOneof("channel") == "active_channel":
            break
    for node in (alice, bob):
        await node.reached(height)
    await first_payment(alice, bob)


async def connect(alice: RealNode, bob: RealNode) -> None:
    """As peers; by itself a node waits ever longer before it tries again."""
    info = await bob.call("GetInfo", ln.GetInfoRequest())
    to_bob = ln.LightningAddress(pubkey=info.identity_pubkey, host=f"127.0.0.1:{bob.p2p_port}")
    with contextlib.suppress(grpc.aio.AioRpcError):  # they are connected already
        await alice.call("ConnectPeer", ln.ConnectPeerRequest(addr=to_bob))


async def first_payment(payer: RealNode, payee: RealNode) -> None:
    """Wait until money passes: a channel that is called active is not yet used by every payment."""

    async def try_it() -> bool:
        invoice = await payee.call("AddInvoice", ln.Invoice(value_msat=1_000_000, memo="first"))
        payment = await payer.pay(invoice.payment_request, 0, lambda payment: payment.status != IN_FLIGHT)
        return payment is not None and payment.status == SUCCEEDED

    await until(try_it, bool, "a payment passes", pause_seconds=0.2)
