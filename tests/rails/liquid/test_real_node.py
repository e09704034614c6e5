"""The same suite on a real elementsd: `ELEMENTSD_BIN=/path/to/elementsd pytest -m real_elementsd`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.embedded.ports import free_port
from tests.rails.liquid.real import RealNode
from tests.rails.liquid.test_contract import TestLiquidContract as LiquidContract

pytestmark = [
    pytest.mark.real_elementsd,
    pytest.mark.skipif(
        "ELEMENTSD_BIN" not in os.environ, reason="ELEMENTSD_BIN names no real elementsd: never run here"
    ),
]


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    """One elementsd for this file."""
    data: Path = tmp_path_factory.mktemp("real-elementsd")
    node = RealNode(os.environ["ELEMENTSD_BIN"], data, free_port())
    node.start()
    yield node
    node.stop()


class TestOnRealElementsd(LiquidContract):
    """Every test of the contract, with real blocks of a real node."""
