"""The real application for the pages: PostgreSQL, Valkey, fake rails, stand-in price feeds, a scripted worker."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from gateway.settings import Settings
from ledger.clock import system_clock
from ledger.money import ASSETS, Asset, Money
from rails.contract import FundsReceipt, PaymentRequestStatus, ReceiptState, Refund
from rails.payments.service import Payments
from rails.testing import FakeNetwork
from sandbox.embedded.ports import free_port
from sandbox.rates.app import build as build_feeds
from sandbox.rates.prices import Prices
from tests.browser.rails import ShownPlugin, shown_rails
from tests.browser.worker import ScriptedWorker
from tests.gateway.stack import Gateway, running, serve

BITCOIN_CENTS = 9_765_625
"""US cents for one bitcoin: 500 images are 5,120 sats."""
AFTER_GRACE = timedelta(hours=2)
"""Later than any quote and its grace."""


@dataclass
class Product:
    """The running application and the world around it."""

    gateway: Gateway
    rails: dict[str, ShownPlugin]
    prices: Prices
    worker: ScriptedWorker
    agreed: bool = True
    """Whether the feeds agree on a price."""

    @property
    def url(self) -> str:
        return self.gateway.url

    @property
    def payments(self) -> Payments:
        return self.gateway.services.payments.payments

    async def reset(self) -> None:
        """The world as a test expects to find it."""
        self.worker.reset()
        for plugin in self.rails.values():
            plugin.rail.answers.set()
            if plugin.network.down:
                await self.set_down(plugin.name, False)
            plugin.network.refund_outcome = Refund.SENT
            plugin.network.answers_to_lose = 0
        await self.price_bitcoin(True)

    # --- what payers and networks do -----------------------------------------------------------

    async def pay(self, topup: str, minor: int | None = None, asset: str | None = None) -> str:
        """A payer pays what is asked, or something else. Returns the money's reference."""
        network, reference = await self._outside(topup)
        due = network.way(reference).order.amount_due
        return await network.pay(
            reference,
            Money(minor or due.minor, due.asset if asset is None else ASSETS.get(asset, Asset(asset, 8))),
        )

    async def change(self, topup: str, money: str, state: ReceiptState) -> None:
        """What became of the money."""
        network, reference = await self._outside(topup)
        await network.change(reference, money, state)

    async def settle(self, topup: str) -> None:
        """All money for this top-up is final."""
        network, reference = await self._outside(topup)
        for money, receipt in list(network.way(reference).receipts.items()):
            if receipt.state is ReceiptState.SEEN:
                await network.change(reference, money, ReceiptState.SETTLED)

    async def stand(self, topup: str, status: PaymentRequestStatus, code: str | None = None) -> None:
        """Expire, decline or close a payment request."""
        network, reference = await self._outside(topup)
        await network.stand(reference, status, code)

    async def pay_long_after_the_quote(self, topup: str) -> None:
        """What is asked arrives when the quote binds nobody any more."""
        network, reference = await self._outside(topup)
        receipt = FundsReceipt(
            money_ref=f"{reference}:late",
            amount=network.way(reference).order.amount_due,
            state=ReceiptState.SETTLED,
            first_seen_at=system_clock() + AFTER_GRACE,
        )
        await network.put(reference, receipt)

    def refunds_end(self, rail: str, outcome: Refund) -> None:
        """What becomes of refunds from now on."""
        self.rails[rail].network.refund_outcome = outcome

    async def bounce(self, topup: str) -> None:
        """The newest refund of a top-up comes back."""
        network, _ = await self._outside(topup)
        view = await self.payments.topup(topup)
        await network.fail_refund(view.refunds[-1].refund_id)

    async def _outside(self, topup: str) -> tuple[FakeNetwork, str]:
        place = await self.payments.store.reference(topup)
        assert place is not None
        assert place.reference is not None
        return self.rails[place.rail].network, place.reference

    # --- what goes wrong -----------------------------------------------------------------------

    async def set_down(self, rail: str, down: bool) -> None:
        """Nobody reaches this rail, and it is known; or everybody does again."""
        await self.rails[rail].network.set_down(down)
        await self.gateway.services.payments.supervision.runners[rail].sweep_once()

    def lose_answers(self, rail: str, lost: bool) -> None:
        """What this rail is asked for is done, and its answers are lost; or they come again."""
        self.rails[rail].network.answers_to_lose = 1_000_000 if lost else 0

    async def price_bitcoin(self, agreed: bool) -> None:
        """The feeds agree on a price, or on none."""
        if agreed == self.agreed:
            return
        self.agreed = agreed
        for feed, spike in (("kraken", 400), ("bitstamp", -400)):
            self.prices.set_faults({"feed": feed, "spike_permille": 0 if agreed else spike})
        await self.payments._rates.refresh()


@asynccontextmanager
async def running_product(settings: Settings) -> AsyncIterator[Product]:
    """The application with everything around it, for as long as the context lasts."""
    async with AsyncExitStack() as stack:
        prices = Prices(now=time.time, cents=BITCOIN_CENTS)
        feeds, task = await serve(build_feeds(prices), "127.0.0.1", feeds_port := free_port(), settings)

        async def end_feeds() -> None:
            feeds.should_exit = True
            await task

        stack.push_async_callback(end_feeds)
        rails = shown_rails(system_clock)
        url = f"http://127.0.0.1:{feeds_port}"
        gateway = await stack.enter_async_context(
            running(
                settings,
                plugins=list(rails.values()),
                environ={"RATE_FEEDS": f"coinbase={url},kraken={url},bitstamp={url}"},
            )
        )
        await gateway.services.payments.payments._rates.refresh()
        worker = ScriptedWorker(await gateway.worker("scripted"))
        await worker.start()
        stack.push_async_callback(worker.stop)
        yield Product(gateway, rails, prices, worker)
