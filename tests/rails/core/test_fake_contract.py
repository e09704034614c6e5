"""The fake rail passes the suite that real rails pass."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from ledger.clock import ManualClock
from ledger.money import USDT, Asset, Money
from rails.contract import Instructions, PaymentRequestStatus, Rail, ReceiptState, ReferenceStore
from rails.testing.contract_suite import RailContract
from rails.testing.fake_rail import FakeNetwork, FakeRail
from rails.testing.worlds import World


class FakeWorld:
    """Everything a world can do, in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.network = FakeNetwork(self.clock)
        self.foreign_asset = USDT

    async def start(self, references: ReferenceStore) -> Rail:
        return FakeRail(self.network)

    async def pay(
        self, instructions: Instructions, amount: int | None = None, asset: Asset | None = None
    ) -> None:
        due = self.network.way(instructions.reference).order.amount_due
        await self.network.pay(instructions.reference, Money(amount or due.minor, asset or due.asset))

    async def settle_world(self) -> None:
        await self.network.settle()

    async def expire(self, instructions: Instructions) -> None:
        await self.network.stand(instructions.reference, PaymentRequestStatus.EXPIRED)

    async def reverse(self, instructions: Instructions) -> None:
        await self._all(instructions, ReceiptState.REVERSED)

    async def dispute(self, instructions: Instructions) -> None:
        await self._all(instructions, ReceiptState.DISPUTED)

    async def end_dispute(self, instructions: Instructions, *, won: bool) -> None:
        await self._all(instructions, ReceiptState.SETTLED if won else ReceiptState.REVERSED)

    async def decline(self, instructions: Instructions) -> None:
        await self.network.stand(instructions.reference, PaymentRequestStatus.DECLINED, "card_declined")

    async def break_down(self) -> None:
        await self.network.set_down(True)

    async def restore(self) -> None:
        await self.network.set_down(False)

    async def lose_next_answer(self) -> None:
        self.network.answers_to_lose = 1

    async def webhook(self, instructions: Instructions) -> tuple[Mapping[str, str], bytes]:
        return self.network.webhook(instructions.reference, "evt_1")

    async def _all(self, instructions: Instructions, state: ReceiptState) -> None:
        for money_ref in list(self.network.way(instructions.reference).receipts):
            await self.network.change(instructions.reference, money_ref, state)


class TestFakeContract(RailContract):
    @pytest.fixture
    async def world(self) -> World:
        return FakeWorld()
