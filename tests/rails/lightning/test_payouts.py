"""The suite of refunds, against the stand-in node's process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from rails.lightning.refunds import Payouts
from tests.rails.lightning.node import SandboxNode
from tests.rails.lightning.payout_suite import Paying, PayoutContract, lookups


@dataclass
class SandboxReceiver:
    """The sandbox wallet."""

    node: SandboxNode

    async def invoice(self, amount_msat: int) -> str:
        """See `Receiver`."""
        return str((await self.node.post("/sandbox/wallet/invoice", amount_msat=amount_msat))["bolt11"])

    async def received(self, bolt11: str) -> int:
        """See `Receiver`."""
        return int((await self.node.get("/sandbox/wallet/invoice", bolt11=bolt11))["received_msat"])

    async def end(self) -> None:
        """See `Receiver`."""
        await self.node.kill()

    async def begin(self) -> None:
        """See `Receiver`."""
        await self.node.start()

    def payouts(self) -> Payouts:
        """See `Receiver`."""
        return Payouts(self.node.connection("refunds.macaroon"), lookups(), plain_http=True)


class TestSandboxPayouts(PayoutContract):
    @pytest.fixture
    async def paying(self, node: SandboxNode) -> AsyncIterator[Paying]:
        receiver = SandboxReceiver(node)
        paying = Paying(receiver, receiver.payouts())
        yield paying
        await paying.payouts.close()
