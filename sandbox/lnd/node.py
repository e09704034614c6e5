"""One node: its keys, files, database and the parts that share them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from bolt11.models.routehint import Route

from sandbox.common.clock import MovableClock
from sandbox.common.files import keep, write_atomically
from sandbox.lnd import bolt11, certificate
from sandbox.lnd.faults import Faults
from sandbox.lnd.feed import Feed
from sandbox.lnd.macaroons import CHANNEL_METHODS, INVOICE_METHODS, REFUND_METHODS, Op, mint
from sandbox.lnd.payments import Payer
from sandbox.lnd.registry import Registry
from sandbox.lnd.store import Store
from sandbox.lnd.wallet import Wallet

STARTING: tuple[Literal["UNLOCKED", "RPC_ACTIVE"], ...] = ("UNLOCKED", "RPC_ACTIVE")
STARTING_SECONDS = 0.1
"""In each of them."""
ADMIN_OPS = tuple(
    Op(entity, action)
    for entity in "address info invoices macaroon message offchain onchain peers signer".split()
    for action in ("generate", "read", "write")
)
_BAKED = (
    ("invoices.macaroon", "1", tuple(Op("uri", method) for method in INVOICE_METHODS)),
    ("refunds.macaroon", "2", tuple(Op("uri", method) for method in REFUND_METHODS)),
    ("channels.macaroon", "3", tuple(Op("uri", method) for method in CHANNEL_METHODS)),
    ("admin.macaroon", "0", ADMIN_OPS),
)


@dataclass
class Node:
    """Everything the services and the control API work on."""

    folder: Path
    store: Store
    clock: MovableClock
    faults: Faults
    feed: Feed
    registry: Registry
    payer: Payer
    wallet: Wallet
    private_hop: Route
    randomness: Callable[[int], bytes]
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def node_id(self) -> str:
        """The node's public key in hex."""
        return bolt11.public_key(self.registry.private_key)

    @property
    def hinted_hop(self) -> Route | None:
        """The way through a private channel, if there is one."""
        return self.private_hop if self.faults.private_channel else None

    async def wake_up(self) -> None:
        """What LND goes through when it starts: the wallet is open, calls are answered, and all of it runs."""
        if self.faults.wallet_state != "SERVER_ACTIVE":
            return
        for state in STARTING:
            self.faults.wallet_state = state
            await asyncio.sleep(STARTING_SECONDS)
        self.faults.wallet_state = "SERVER_ACTIVE"

    async def keep_time(self) -> None:
        """Expire what is due, for ever."""
        while True:
            self.wake.clear()
            self.registry.tick()
            due = self.registry.next_due()
            wait = None if due is None else max(due - self.clock(), 0.01)
            try:
                async with asyncio.timeout(wait):  # wait_for can lose a cancellation in Python 3.11
                    await self.wake.wait()
            except TimeoutError:
                continue

    async def keep_mining(self, seconds: int) -> None:
        """A block every so many seconds, for ever."""
        while True:
            await asyncio.sleep(seconds)
            self.registry.mine(1)


def open_node(folder: Path, machine_clock: Callable[[], float], randomness: Callable[[int], bytes]) -> Node:
    """Open or create the node in `folder`, and write its credentials there."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / "node.sqlite")
    clock = MovableClock(store, machine_clock)
    faults, feed = Faults(), Feed()
    node_key, wallet_key = _key(store, "node_key", randomness), _key(store, "wallet_key", randomness)
    registry = Registry(store, clock, feed, faults, node_key, randomness)
    payer = Payer(store, clock, faults, wallet_key, bolt11.public_key(node_key), randomness)
    hop = Route(bolt11.public_key(wallet_key), "500x1x0", base_fee=1000, ppm_fee=1, cltv_expiry_delta=80)
    node = Node(folder, store, clock, faults, feed, registry, payer, Wallet(registry), hop, randomness)
    registry.on_change = node.wake.set
    _bake(node)
    # The key from which the gateway derives preimages: in production the operator makes it.
    keep(folder / "preimage.key", lambda: randomness(32).hex())
    return node


def server_certificate(node: Node) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM; made anew if missing or near its end."""
    return certificate.ensure(node.folder, datetime.fromtimestamp(node.clock(), UTC))


def _key(store: Store, name: str, randomness: Callable[[int], bytes]) -> bytes:
    known = store.setting(name, "")
    if not known:
        known = randomness(32).hex()
        store.remember(name, known)
    return bytes.fromhex(known)


def _bake(node: Node) -> None:
    for name, key_id, ops in _BAKED:
        path = node.folder / name
        key = node.store.root_key(key_id)
        if key is None or not path.exists():
            key = node.randomness(32)
            node.store.set_root_key(key_id, key)
            write_atomically(path, mint(key, key_id, node.randomness(16), ops).encode())
