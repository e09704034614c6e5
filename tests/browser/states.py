"""How a top-up comes into each of its states: what the payer and the network do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from rails.contract import PaymentRequestStatus, ReceiptState
from tests.browser.conftest import Visitor

Bring = Callable[[Visitor, str], Awaitable[None]]


FOREIGN = "7af1" + "0" * 56 + "c3d2"
"""The id of an asset whose name and decimals nobody knows."""


async def waiting(visitor: Visitor, topup: str) -> None:
    """Nothing happens."""
    await visitor.topup_is(topup, "waiting")


async def seen(visitor: Visitor, topup: str) -> None:
    """It is paid, and not final yet."""
    await visitor.product.pay(topup)
    await visitor.topup_is(topup, "seen")


async def underpaid(visitor: Visitor, topup: str) -> None:
    """Two dollars come."""
    await visitor.product.pay(topup, 200_000_000)
    await visitor.topup_is(topup, "underpaid")


async def expired(visitor: Visitor, topup: str) -> None:
    """Nobody pays in time."""
    await visitor.product.stand(topup, PaymentRequestStatus.EXPIRED)
    await visitor.topup_is(topup, "expired")


async def underpaid_and_expired(visitor: Visitor, topup: str) -> None:
    """Two dollars come, and the rest never does."""
    await underpaid(visitor, topup)
    await visitor.product.settle(topup)
    await visitor.product.stand(topup, PaymentRequestStatus.EXPIRED)


async def late(visitor: Visitor, topup: str) -> None:
    """It is paid after the quote has ended."""
    await expired(visitor, topup)
    await seen(visitor, topup)


async def late_and_paid(visitor: Visitor, topup: str) -> None:
    """It is paid after the quote has ended, and final."""
    await late(visitor, topup)
    await visitor.product.settle(topup)
    await visitor.topup_is(topup, "paid")


async def wrong_asset(visitor: Visitor, topup: str) -> None:
    """Bitcoin comes where dollars were asked for."""
    await visitor.product.pay(topup, 5_000, "L-BTC")
    await visitor.product.settle(topup)
    await visitor.topup_is(topup, "suspense")


async def wrong_asset_arriving(visitor: Visitor, topup: str) -> None:
    """An asset that nobody knows is on its way."""
    await visitor.product.pay(topup, 500_000_000, FOREIGN)
    await visitor.topup_is(topup, "underpaid")


async def unknown_asset(visitor: Visitor, topup: str) -> None:
    """An asset that nobody knows has come."""
    await visitor.product.pay(topup, 500_000_000, FOREIGN)
    await visitor.product.settle(topup)
    await visitor.topup_is(topup, "suspense")


async def right_and_wrong_asset(visitor: Visitor, topup: str) -> None:
    """What was asked comes, and another asset with it."""
    await visitor.product.pay(topup, 500_000_000, FOREIGN)
    await visitor.product.pay(topup)
    await visitor.product.settle(topup)
    await visitor.topup_is(topup, "paid")


async def taken_back(visitor: Visitor, topup: str) -> None:
    """The card's money goes back to where it came from."""
    money = await visitor.product.pay(topup)
    await visitor.topup_is(topup, "paid")
    await visitor.product.change(topup, money, ReceiptState.REVERSED)
    await visitor.topup_is(topup, "reversed")


async def declined(visitor: Visitor, topup: str) -> None:
    """The bank refuses."""
    await visitor.product.stand(topup, PaymentRequestStatus.DECLINED, "insufficient_funds")
    await visitor.topup_is(topup, "declined")


async def unpriced(visitor: Visitor, topup: str) -> None:
    """It is paid when the quote binds nobody any more, and no price is known."""
    await visitor.product.price_bitcoin(False)
    await visitor.product.pay_long_after_the_quote(topup)
    await visitor.topup_is(topup, "unpriced")


async def paid(visitor: Visitor, topup: str) -> None:
    """It is paid, and final."""
    await visitor.product.pay(topup)
    await visitor.product.settle(topup)
    await visitor.topup_is(topup, "paid")


async def disputed(visitor: Visitor, topup: str) -> None:
    """The payer asks the bank for the money back."""
    money = await visitor.product.pay(topup)
    await visitor.topup_is(topup, "paid")
    await visitor.product.change(topup, money, ReceiptState.DISPUTED)
    await visitor.topup_is(topup, "disputed")


async def reversed_(visitor: Visitor, topup: str) -> None:
    """The block with the payment is taken back."""
    money = await visitor.product.pay(topup)
    await visitor.product.settle(topup)
    await visitor.topup_is(topup, "paid")
    await visitor.product.change(topup, money, ReceiptState.REVERSED)
    await visitor.topup_is(topup, "reversed")
