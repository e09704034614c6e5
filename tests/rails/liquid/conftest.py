"""A sandbox node for the whole session, and a world around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rails.liquid.outside import LiquidWorld, SandboxNode, environment, free_port


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
    descriptor.write_text(fresh_descriptor())
    yield LiquidWorld(node, environment(node) | {"LIQUID_DESCRIPTOR": str(descriptor)})
    node.control("faults")
    node.control("mine")


def fresh_descriptor() -> str:
    """A descriptor that no one used before."""
    import secrets

    from sandbox.elementsd.treasury import watch_only_descriptor

    return watch_only_descriptor(secrets.token_bytes(32))
