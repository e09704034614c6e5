"""What the conformance suite drives: a rail beside the memory of the core, and the whole core on a memory log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction

from ledger.domain.account import ACCOUNTS
from ledger.domain.state import Account
from ledger.identifiers import AccountId, Identifiers
from ledger.money import Asset, Money
from ledger.testing.memory_log import MemoryLog
from rails.contract import (
    FundsReceipt,
    Instructions,
    Observation,
    Order,
    Rail,
    ReceiptState,
)
from rails.domain.purchases import Purchase
from rails.domain.state import PAYMENTS
from rails.domain.topup import TopupState, TopupView
from rails.payments.runner import Supervision
from rails.payments.service import Payments
from rails.testing.fixed_rates import FixedRates
from rails.testing.memory_references import MemoryReferences
from rails.testing.memory_store import MemoryRailStore
from rails.testing.worlds import (
    World,
)

CORE_PRICES = {"USD": Fraction(1), "USDT": Fraction(1), "BTC": Fraction(100_000), "L-BTC": Fraction(100_000)}
"""Dollars for one whole unit, in the tests that run the core."""
WAIT_SECONDS_MAX = 20
"""The bound of every wait of the suite."""


@dataclass
class RailHarness:
    """The core's part in a contract test: it orders, and remembers references for ever."""

    world: World
    rail: Rail
    references: MemoryReferences = field(default_factory=MemoryReferences)
    _ids: Identifiers | None = None

    def order(self, *, minor: int | None = None, asset: Asset | None = None, hold: bool = False) -> Order:
        """A new order, by default a comfortable amount in the rail's default asset."""
        ids = self._ids = self._ids or Identifiers(self.world.clock)
        asset = asset or self.rail.capabilities.assets[0]
        capabilities = self.rail.capabilities
        return Order(
            payment_id=ids.payment(),
            account_id=ids.account(),
            ordinal=self.references.next_ordinal(self.rail.name),
            amount_due=Money(
                minor or comfortable(capabilities.minimum[asset.code], capabilities.maximum[asset.code]),
                asset,
            ),
            description="500 images",
            expires_at=self.world.clock() + timedelta(seconds=capabilities.quote_seconds),
            return_url="https://llamasketch.test/topups/return",
            hold=hold,
        )

    async def open(self, order: Order | None = None) -> Instructions:
        """Open a payment request and remember it."""
        order = order or self.order()
        instructions = await self.rail.open(order)
        self.references.add(self.rail.name, instructions.reference, order.payment_id, order.ordinal)
        return instructions

    async def restart(self) -> None:
        """Our process dies and a new one starts on what was remembered."""
        await self.rail.close()
        self.rail = await self.world.start(self.references)

    async def observe_until(
        self, instructions: Instructions, is_so: Callable[[Observation], bool]
    ) -> Observation:
        """Ask now and after each notification until it is so."""
        observation = await self.rail.observe(instructions.reference)
        if is_so(observation):
            return observation
        async with asyncio.timeout(WAIT_SECONDS_MAX), aclosing(self.listen(None)) as notifications:
            async for _ in notifications:
                observation = await self.rail.observe(instructions.reference)
                if is_so(observation):
                    return observation
        raise AssertionError(f"the rail stopped listening; last seen: {observation}")

    async def listen(self, cursor: str | None) -> AsyncGenerator[tuple[str | None, str | None], None]:
        """Notifications as (reference, cursor)."""
        notifications = self.rail.listen(cursor)
        try:
            async for notification in notifications:
                yield notification.reference, notification.cursor
        finally:
            await notifications.aclose()  # type: ignore[attr-defined]

    async def notification_about(self, instructions: Instructions, cursor: str | None) -> str | None:
        """Wait for a notification that leads to these instructions; returns the cursor after it."""
        async with asyncio.timeout(WAIT_SECONDS_MAX), aclosing(self.listen(cursor)) as notifications:
            async for reference, following in notifications:
                if reference in (None, instructions.reference):
                    return following
        raise AssertionError("the rail stopped listening")

    async def settled(self, instructions: Instructions) -> Observation:
        """Wait until all the money known is final."""
        await self.world.settle_world()
        return await self.observe_until(
            instructions,
            lambda seen: bool(seen.receipts) and all(p.state is ReceiptState.SETTLED for p in seen.receipts),
        )


@dataclass
class Core:
    """The payment core over the rail under test, with its log and its rows in memory."""

    world: World
    log: MemoryLog
    store: MemoryRailStore
    rail: Rail
    payments: Payments
    supervision: Supervision | None = None
    shown: dict[str, Instructions] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def on(cls, world: World, before: Core | None = None) -> AsyncIterator[Core]:
        """A fresh process of the core, on what the one before it had stored."""
        log = before.log if before else MemoryLog([ACCOUNTS, PAYMENTS], world.clock)
        store = before.store if before else MemoryRailStore(log.tables)
        rail = await world.start(store)
        prices = {asset.code: CORE_PRICES[asset.code] for asset in rail.capabilities.assets}
        payments = Payments(
            log=log,
            store=store,
            rails={rail.name: rail},
            rates=FixedRates(world.clock, prices),
            ids=Identifiers(world.clock),
            clock=world.clock,
        )
        try:
            yield cls(world, log, store, rail, payments, shown=before.shown if before else {})
        finally:
            await rail.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While it listens, works and sweeps. Afterwards the rail is closed."""
        async with Supervision(
            self.payments, {self.rail.name: self.rail}, clock=self.world.clock
        ) as supervision:
            self.supervision = supervision
            yield

    async def open(
        self,
        amount: Money | None = None,
        purchase: Purchase | None = None,
        account_id: AccountId | None = None,
    ) -> TopupView:
        """Someone wants 2,000 credits, or to pay this amount in its asset, or to buy this."""
        topup = await self.payments.open_topup(
            account_id or Identifiers(self.world.clock).account(),
            self.rail.name,
            wanted=2_000 if amount is None and purchase is None else None,
            purchase=purchase,
            amount=amount,
            pay_asset=None if amount is None else amount.asset.code,
            return_url="https://llamasketch.test/topups/{payment_id}",
        )
        assert topup.instructions is not None, topup
        reference = await self.store.reference(topup.payment_id)
        assert reference is not None
        assert reference.reference is not None
        known = topup.instructions
        self.shown[topup.payment_id] = Instructions(
            kind=known["kind"],
            reference=reference.reference,
            uri=known.get("uri"),
            text=known.get("text"),
            url=known.get("url"),
            details={
                name: value for name, value in known.items() if name not in ("kind", "uri", "text", "url")
            },
        )
        return topup

    def instructions(self, topup: TopupView) -> Instructions:
        """How to pay, as the rail gave it."""
        return self.shown[topup.payment_id]

    async def posted(self, topup: TopupView) -> int:
        """Credits of the payer's account."""
        account: Account = (await self.log.state(topup.account_id)).state
        return account.posted(self.world.clock())

    async def until(self, topup: TopupView, state: TopupState) -> TopupView:
        """Wait until the payer sees this state."""
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while (seen := await self.payments.topup(topup.payment_id)).state is not state:
                await asyncio.sleep(0)
        return seen

    async def caught_up(self) -> None:
        """Wait until everything pending has been asked about."""
        assert self.supervision is not None
        await asyncio.wait_for(self.supervision.runners[self.rail.name].caught_up.wait(), WAIT_SECONDS_MAX)


def comfortable(minimum: int, maximum: int) -> int:
    """An amount well inside the limits, whose half is payable too."""
    return min(max(minimum * 4, 1000), maximum)


def total(observation: Observation) -> int:
    """What arrived, in minor units."""
    return sum(receipt.amount.minor for receipt in observation.receipts)


def only_receipt(observation: Observation) -> FundsReceipt:
    """The one funds receipt of an observation."""
    assert len(observation.receipts) == 1, observation
    return observation.receipts[0]
