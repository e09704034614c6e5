"""Three fake rails that show their payment requests as the real ones do: a page, an invoice, an address."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from ledger.clock import Clock
from ledger.money import BTC, LBTC, USD, USDT
from rails.contract import Capabilities, Instructions, Order, Rail, RailContext, ReceiptState, RefundTo
from rails.testing import FakeNetwork, FakeRail, fake_capabilities

ADDRESS = (
    "el1qqdp3hs5hu2kkpwjdf0gzhkxrm8vrcck9rgj0vmn6wr8r0pnxjv3k7wlqzt7j6kfzkyrrk7q0zxn3l0phwm5nx3ycwqfz5j7kk"
)
INVOICE = "lnbcrt50u1p" + "qyqszqgpq9skzcmfdeskuqs2t5x8rwvn3hjkl4m0" * 6
"""As long as real ones, so that their codes are as hard to read."""
ASSET_IDS = {
    USDT: "b612eb46313a2cd6ebabd8b7a8eed5696e29898b87a43bff41c94f51acef9d73",
    LBTC: "6f0279e9ed041c3d710a9f57d0c02928416460c4b722ae3457a11eec381c526d",
}
CHECKOUT = "https://checkout.test"
"""Where the card's page would be. Tests answer for it."""


class ShownRail(FakeRail):
    """A fake rail with the face of a real one, which a test can let hesitate."""

    def __init__(self, network: FakeNetwork, name: str, capabilities: Capabilities) -> None:
        super().__init__(network, name=name, capabilities=capabilities)
        self.answers = asyncio.Event()
        """Cleared, opening takes until it is set again."""
        self.answers.set()

    async def open(self, order: Order) -> Instructions:
        """Open a payment request, once per payment."""
        await self.answers.wait()
        return self.show(await super().open(order), order)

    def show(self, plain: Instructions, order: Order) -> Instructions:
        """How this rail words it."""
        return plain


class CardRail(ShownRail):
    """A hosted page. It holds nothing."""

    capture = release = None  # type: ignore[assignment]

    def show(self, plain: Instructions, order: Order) -> Instructions:
        url = f"{CHECKOUT}/{plain.reference}?{urlencode({'back': order.return_url})}"
        return Instructions(kind="redirect", reference=plain.reference, url=url)


class InvoiceRail(ShownRail):
    """An invoice. It charges nobody again."""

    subscribe = None  # type: ignore[assignment]
    save_method = None  # type: ignore[assignment]

    def show(self, plain: Instructions, order: Order) -> Instructions:
        return Instructions(
            kind="invoice",
            reference=plain.reference,
            uri=f"LIGHTNING:{INVOICE.upper()}",
            text=INVOICE,
            details={"bolt11": INVOICE},
        )


class AddressRail(ShownRail):
    """An address, and a URI that asks for an amount of an asset. It only watches: nothing is sent back by itself."""

    refund = None  # type: ignore[assignment]
    subscribe = None  # type: ignore[assignment]
    capture = release = None  # type: ignore[assignment]
    save_method = None  # type: ignore[assignment]

    def __init__(self, network: FakeNetwork, name: str, capabilities: Capabilities) -> None:
        super().__init__(network, name, capabilities)
        self.blocks: dict[str, int] = {}
        """By money: how many blocks confirm it. What is not in here nobody has counted."""

    def confirmations(self, money_ref: str) -> int | None:
        return self.blocks.get(money_ref)

    def show(self, plain: Instructions, order: Order) -> Instructions:
        due = order.amount_due
        amount = due.decimal().rstrip("0").rstrip(".")
        asset_id = ASSET_IDS[due.asset]
        return replace(
            plain,
            uri=f"liquidnetwork:{ADDRESS}?{urlencode({'amount': amount, 'assetid': asset_id})}",
            text=ADDRESS,
            details={"address": ADDRESS, "amount": amount, "asset_id": asset_id, "confirmations_needed": "2"},
        )


@dataclass
class ShownPlugin:
    """One of these rails as an installed plugin, and the network behind it."""

    name: str
    kind: type[ShownRail]
    capabilities: Capabilities
    network: FakeNetwork
    rail: ShownRail = field(init=False)

    def __post_init__(self) -> None:
        self.rail = self.kind(self.network, self.name, self.capabilities)

    def configured(self, environ: Mapping[str, str]) -> bool:
        return True

    def build(self, environ: Mapping[str, str], context: RailContext) -> Rail:
        return self.rail


def shown_rails(clock: Clock) -> dict[str, ShownPlugin]:
    """Card and Lightning are final at once, Liquid is seen first: as in the world."""
    settled, seen = ReceiptState.SETTLED, ReceiptState.SEEN
    made = [
        ("card", CardRail, fake_capabilities((USD,), "Card", RefundTo.ORIGIN), settled, 1),
        ("lightning", InvoiceRail, fake_capabilities((BTC,), "Lightning", RefundTo.INVOICE), settled, 2),
        ("liquid", AddressRail, fake_capabilities((USDT, LBTC), "USDT / L-BTC", RefundTo.ADDRESS), seen, 3),
    ]
    return {
        name: ShownPlugin(
            name,
            kind,
            replace(capabilities, order=order),
            FakeNetwork(clock, finality=finality, name=name),
        )
        for name, kind, capabilities, finality, order in made
    }
