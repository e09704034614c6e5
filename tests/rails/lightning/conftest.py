"""A node for the tests of one module, and one of its own for a test that kills it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rails.lightning.rail import LightningRail
from tests.rails.lightning.node import SandboxNode


@pytest.fixture(scope="module")
async def shared_node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxNode]:
    """One process for a whole module."""
    node = SandboxNode(tmp_path_factory.mktemp("lnd"))
    await node.start()
    yield node
    await node.stop()


@pytest.fixture
async def node(shared_node: SandboxNode) -> SandboxNode:
    """The module's node without faults; started again if a test left it dead."""
    await shared_node.faults(
        drop=0, duplicate=0, delay_ms=0, unavailable=0, timeout_after_commit=0, method="", settle_index_gap=0,
        settle_without_money=0, payment_stuck=0, wallet_state="SERVER_ACTIVE", private_channel=False, remote_sat=100_000_000, channel_active=True,
        synced=True, network="regtest",
    )  # fmt: skip
    return shared_node


@pytest.fixture
async def own_node(tmp_path: Path) -> AsyncIterator[SandboxNode]:
    """A fresh node for one test."""
    node = SandboxNode(tmp_path / "lnd")
    await node.start()
    yield node
    await node.stop()


@pytest.fixture
async def rail(node: SandboxNode) -> AsyncIterator[LightningRail]:
    """A rail on the module's node."""
    rail = node.rail()
    yield rail
    await rail.close()
