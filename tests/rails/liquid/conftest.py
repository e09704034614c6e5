"""A sandbox node for the whole session, and a world around it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sandbox.embedded.ports import free_port
from tests.rails.liquid.outside import LiquidWorld, SandboxNode, Till, Treasury, environment


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxNode]:
    """A chain that makes blocks only when asked to."""
    data: Path = tmp_path_factory.mktemp("elementsd")
    node = SandboxNode(data, free_port(), "--block-seconds", "0", "--pending-seconds", "0")
    node.start()
    yield node
    node.stop()


@pytest.fixture
def world(node: SandboxNode, tmp_path: Path) -> Iterator[LiquidWorld]:
    """The session's chain with a fresh merchant: no address of an earlier test is used again."""
    descriptor = tmp_path / "descriptor.txt"
    treasury = Treasury(secrets.token_bytes(32))
    descriptor.write_text(treasury.descriptor())
    yield LiquidWorld(node, environment(node) | {"LIQUID_DESCRIPTOR": str(descriptor)}, treasury)
    node.control("faults")
    node.control("mine")


@pytest.fixture
async def till(world: LiquidWorld) -> AsyncIterator[Till]:
    """A rail with its book of references, on the session's chain."""
    till = await Till.open(world)
    yield till
    await till.rail.close()
