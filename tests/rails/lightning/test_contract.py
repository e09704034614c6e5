"""The Lightning rail passes the suite that every rail must pass, against the stand-in node's process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from ledger.clock import Clock
from ledger.money import Asset
from rails.contract import Instructions, Rail, ReferenceStore
from rails.testing.contract_suite import RailContract
from rails.testing.worlds import Impossible, World
from tests.rails.lightning.node import Refused, SandboxNode


@dataclass
class LightningWorld:
    """A payer's wallet, the node's process and its clock."""

    node: SandboxNode

    @property
    def clock(self) -> Clock:
        """The node's."""
        return self.node.clock

    async def start(self, references: ReferenceStore) -> Rail:
        """A fresh rail."""
        return self.node.rail()

    async def pay(
        self,
        instructions: Instructions,
        amount: int | None = None,
        asset: Asset | None = None,
    ) -> None:
        """Pay the invoice, as a careless wallet that also tries late ones."""
        more = {} if amount is None else {"amount_msat": amount}
        try:
            await self.node.pay(instructions.text or "", even_if_expired=True, **more)
        except Refused as reason:
            raise Impossible(str(reason)) from reason

    async def settle_world(self) -> None:
        """Lightning is final at once."""

    async def expire(self, instructions: Instructions) -> None:
        """The quote's time passes."""
        await self.node.advance(timedelta(seconds=901))

    async def break_down(self) -> None:
        """The node dies."""
        await self.node.kill()

    async def restore(self) -> None:
        """It comes back."""
        await self.node.start()

    async def lose_next_answer(self) -> None:
        """The node does what it is asked and never answers."""
        await self.node.lose_next_answer()


class TestLightningContract(RailContract):
    @pytest.fixture
    async def world(self, node: SandboxNode) -> World:
        return LightningWorld(node)
