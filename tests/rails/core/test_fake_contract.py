"""The fake rail passes the suite that real rails pass."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from ledger.clock import ManualClock
from ledger.money import USDT, Asset, Money
from rails.contract import Instructions, PaymentRequestStatus, Rail, ReceiptState, ReferenceStore
from rails.recurring import Offer
from rails.testing.contract_suite import RailContract
from rails.testing.fake_rail import FakeNetwork, FakeRail
from rails.testing.metered_suite import MeteredContract
from rails.testing.movements_suite import MovementsContract
from rails.testing.recurring_suite import RecurringContract
from rails.testing.worlds import World


class FakeWorld:
    """Everything a world can do, in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.network = FakeNetwork(self.clock)
        self.foreign_asset = USDT
        self.offers = (Offer(plan="starter", length="month"), Offer(plan="pro", length="month"))
        year = Offer(plan="starter", length="year")
        self.network.subscriptions.prices = dict(zip((*self.offers, year), (800, 2_000, 8_000), strict=True))

        self.metered, self.overage_minor = Offer(plan="studio", length="month"), 3

    async def stock_metered(self) -> None:
        self.network.subscriptions.prices[self.metered] = 3_000
        self.network.subscriptions.overage[self.metered.plan] = self.overage_minor

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

    async def pay_page(self, instructions: Instructions) -> None:
        await self.network.subscriptions.pay(instructions.reference)

    async def decline_page(self, instructions: Instructions) -> None:
        """The network's page lets the payer try again and says nothing."""

    async def next_period(self, reference: str) -> None:
        await self.network.subscriptions.renew(reference)

    async def put_card(self, reference: str, *, works: bool) -> None:
        self.network.subscriptions.set_card(reference, works=works)

    async def pay_invoice(self, reference: str) -> None:
        await self.network.subscriptions.pay_invoice(reference)

    async def end_at_once(self, reference: str) -> None:
        await self.network.subscriptions.end(reference)

    async def pause(self, reference: str) -> None:
        await self.network.subscriptions.pause(reference, paused=True)

    async def reverse_invoice(self, reference: str) -> None:
        for money_ref in list(self.network.way(reference).receipts):
            await self.network.change(reference, money_ref, ReceiptState.REVERSED)

    async def _all(self, instructions: Instructions, state: ReceiptState) -> None:
        for money_ref in list(self.network.way(instructions.reference).receipts):
            await self.network.change(instructions.reference, money_ref, state)


class TestFakeContract(RailContract, RecurringContract, MeteredContract, MovementsContract):
    @pytest.fixture
    async def world(self) -> World:
        return FakeWorld()
