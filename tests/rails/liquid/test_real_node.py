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


class TestOnRealElementsd(LiquidContract):
    """Every test of the contract, with real blocks of a real node."""

    @pytest.fixture(scope="class")
    def node(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
        """One elementsd for the class."""
        data: Path = tmp_path_factory.mktemp("real-elementsd")
        node = RealNode(os.environ["ELEMENTSD_BIN"], data, free_port())
        node.start()
        yield node
        node.stop()

    async def test_reversed_money_is_said_and_keeps_its_name(self) -> None:  # type: ignore[override]
        """Its wallet's `bumpfee` pays the same receiver again: no double spend to ourselves."""
        pytest.skip("a real elementsd's wallet does not double-spend its own payment")
