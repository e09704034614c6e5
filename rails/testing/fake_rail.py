"""A rail with every power, over a network that lives in memory. It passes the same suite as the real ones.

`FakeNetwork` is the world outside: it survives the rail, can be paid, and can misbehave.
`FakeRail` is the thing under test in the core: restart it by building another on the same network.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from urllib.parse import urlencode

import msgspec

from ledger.clock import Clock
from ledger.money import Asset, Money
from rails.contract import (
    Capabilities,
    FundsReceipt,
    Health,
    Instructions,
    Notification,
    NotificationRejected,
    Observation,
    Order,
    PaymentRequestStatus,
    RailProtocolError,
    RailUnavailable,
    ReceiptState,
    Refund,
    RejectionReason,
    SentBack,
)
from rails.movements import MovementKind, MovementPage
from rails.outages import Outages
from rails.recurring import ChangePreview, Offer, SubscriptionObservation, SubscriptionOrder
from rails.saved import SavedMethod, SaveOrder
from rails.testing.fake_books import FakeBooks
from rails.testing.fake_capabilities import fake_capabilities
from rails.testing.fake_metering import FakeMetering
from rails.testing.fake_saved import FakeSaved
from rails.testing.fake_subscriptions import FakeSubscriptions

WEBHOOK_SECRET = b"a secret of the fake network"


class _Message(msgspec.Struct):
    """A webhook's body."""

    reference: str
    id: str


@dataclass(slots=True)
class _Way:
    """One payment request, as the network knows it."""

    order: Order
    reference: str
    status: PaymentRequestStatus = PaymentRequestStatus.OPEN
    receipts: dict[str, FundsReceipt] = field(default_factory=dict)
    decline_code: str | None = None


class FakeNetwork:
    """The outside world of a `FakeRail`.

    `finality` is the state in which money arrives. Networks beside each other need names of their own:
    references and money are named after them.
    """

    def __init__(
        self, clock: Clock, *, finality: ReceiptState = ReceiptState.SEEN, name: str = "fake"
    ) -> None:
        self._clock = clock
        self._finality = finality
        self._name = name
        self._ways: dict[str, _Way] = {}
        self._notifications: list[str] = []
        self._refunds: dict[str, tuple[str, Money, Refund]] = {}
        """By key: of which payment request, how much, and how it ended."""
        self._changed = asyncio.Condition()
        self.subscriptions = FakeSubscriptions(clock, name, self.notification, self._put_way)
        """Those that the network charges again by itself."""
        self.books = FakeBooks(clock, name)
        self.saved = FakeSaved(name, lambda order: self.register(order).reference, self.pay, self.stand)
        """Payment methods that are charged without their payers."""
        self.down = False
        """Every call to the rail fails."""
        self.outages = Outages()
        self.answers_to_lose = 0
        """That many calls take effect, and then fail as if the answer had been lost."""
        self.notifications_per_change = 1
        """0 drops notifications, 2 duplicates them."""
        self.refund_outcome = Refund.SENT
        self.refunded: list[tuple[str, Money, str | None]] = []
        """Every outgoing payment."""
        self.calls: list[str] = []
        """Every call made to the rail, in order: `open`, `observe` …"""

    def way(self, reference: str) -> _Way:
        """The payment request named by `reference`."""
        try:
            return self._ways[reference]
        except KeyError:
            raise RailProtocolError(f"the fake network knows no {reference!r}") from None

    def register(self, order: Order) -> _Way:
        """Open a payment request, once per payment."""
        reference = f"{self._name}-{order.payment_id}"
        return self._ways.setdefault(reference, _Way(order=order, reference=reference))

    def _put_way(self, reference: str, order: Order, receipts: tuple[FundsReceipt, ...]) -> None:
        known = self._ways.setdefault(reference, _Way(order=order, reference=reference))
        known.receipts.update({receipt.money_ref: receipt for receipt in receipts})
        for receipt in receipts:
            self.books.note(receipt)

    async def pay(self, reference: str, amount: Money) -> str:
        """A payer pays `amount`, now. Returns the money's reference."""
        way = self.way(reference)
        money_ref = f"{self._name}:{way.order.ordinal}:{len(way.receipts) + 1}"
        state = ReceiptState.HELD if way.order.hold else self._finality
        receipt = FundsReceipt(
            money_ref=money_ref,
            amount=amount,
            state=state,
            first_seen_at=self._clock(),
            external_ref=money_ref,
        )
        await self.put(reference, receipt)
        return money_ref

    async def put(self, reference: str, receipt: FundsReceipt) -> None:
        """Set one funds receipt to exactly this, whatever it was before."""
        self.way(reference).receipts[receipt.money_ref] = receipt
        self.books.note(receipt)
        await self.notification(reference)

    async def change(
        self, reference: str, money_ref: str, state: ReceiptState, reversed_minor: int | None = None
    ) -> None:
        """Move one funds receipt to another state."""
        receipt = self.way(reference).receipts[money_ref]
        back = None if reversed_minor is None else Money(reversed_minor, receipt.amount.asset)
        await self.put(reference, replace(receipt, state=state, reversed_amount=back))

    async def forget(self, reference: str, money_ref: str) -> None:
        """Money that was on its way vanishes without a trace."""
        del self.way(reference).receipts[money_ref]
        await self.notification(reference)

    async def settle(self) -> None:
        """All money on its way arrives."""
        for way in self._ways.values():
            for receipt in list(way.receipts.values()):
                if receipt.state is ReceiptState.SEEN:
                    await self.change(way.reference, receipt.money_ref, ReceiptState.SETTLED)

    def forget_way(self, reference: str) -> None:
        """A payment request that the network knows no more."""
        del self._ways[reference]

    async def stand(
        self, reference: str, status: PaymentRequestStatus, decline_code: str | None = None
    ) -> None:
        """Expire, decline or close a payment request."""
        way = self.way(reference)
        way.status, way.decline_code = status, decline_code
        await self.notification(reference)

    async def notification(self, reference: str) -> None:
        """Say that something may have changed."""
        async with self._changed:
            self._notifications.extend([reference] * self.notifications_per_change)
            self._changed.notify_all()

    async def notification_at(self, place: int) -> Notification:
        """The notification at this place in the network's own order; waits for it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.down or place < len(self._notifications))
            if self.down:
                raise RailUnavailable("the fake network is down")
            return Notification(
                reference=self._notifications[place],
                cursor=str(place + 1),
                notification_id=f"fake-hint-{place}",
            )

    async def set_down(self, down: bool) -> None:
        """Break or mend the connection; listeners notice at once."""
        async with self._changed:
            self.down = down
            if down:
                self.outages.notice("the fake network is down")
            self._changed.notify_all()

    def now(self) -> datetime:
        """By the network's clock."""
        return self._clock()

    def check(self, call: str) -> None:
        """Fail if the network is down."""
        self.calls.append(call)
        if self.down:
            raise RailUnavailable("the fake network is down")

    def answer(self) -> None:
        """Fail if this answer is to be lost."""
        if self.answers_to_lose > 0:
            self.answers_to_lose -= 1
            raise RailUnavailable("the answer was lost")

    def refund_once(self, key: str, reference: str, amount: Money, destination: str | None) -> Refund:
        """The outcome of an outgoing payment, fixed by its key. As any bank, it sends no more than is left."""
        _, _, known = self._refunds.get(key, (reference, amount, None))
        outcome = self.refund_outcome
        if known is None and amount.minor > self.left(reference, amount.asset):
            outcome = Refund.FAILED
        elif known is None:
            self.refunded.append((reference, amount, destination))
        if known is not Refund.SENT and outcome is Refund.SENT:
            self._book_refund(reference, Money(-amount.minor, amount.asset))
        if known is None or known is Refund.UNKNOWN:
            self._refunds[key] = reference, amount, outcome
        return self._refunds[key][2]

    def _book_refund(self, reference: str, amount: Money) -> None:
        """Of the first money of its asset: nobody says which."""
        receipts = self.way(reference).receipts.values()
        of = next(receipt for receipt in receipts if receipt.amount.asset == amount.asset)
        self.books.add(MovementKind.TAKEN_BACK, amount, of.money_ref)

    def left(self, reference: str, asset: Asset) -> int:
        """What of the money of a payment request is undisputed and did not go back, in minor units."""
        there = sum(
            receipt.amount.minor - (receipt.reversed_amount.minor if receipt.reversed_amount else 0)
            for receipt in self.way(reference).receipts.values()
            if receipt.state is ReceiptState.SETTLED and receipt.amount.asset == asset
        )
        return there - self.sent_back(reference, asset)

    def sent_back(self, reference: str, asset: Asset) -> int:
        """What refunds have taken of it, in minor units."""
        return sum(
            amount.minor
            for whose, amount, outcome in self._refunds.values()
            if whose == reference and amount.asset == asset and outcome is not Refund.FAILED
        )

    async def fail_refund(self, key: str) -> None:
        """A refund that was sent bounces, days later."""
        reference, amount, _ = self._refunds[key]
        self._book_refund(reference, amount)
        self._refunds[key] = reference, amount, Refund.FAILED
        await self.notification(reference)

    def refunds_of(self, reference: str) -> tuple[SentBack, ...]:
        """Every refund of a payment request, as it is now."""
        return tuple(
            SentBack(key=key, outcome=outcome)
            for key, (whose, _, outcome) in self._refunds.items()
            if whose == reference
        )

    @staticmethod
    def secret(reference: str) -> bytes:
        """What a payer learns by paying."""
        return hashlib.sha256(b"secret of " + reference.encode()).digest()

    @staticmethod
    def webhook(reference: str, notification_id: str) -> tuple[dict[str, str], bytes]:
        """A signed message about one reference."""
        body = msgspec.json.encode({"id": notification_id, "reference": reference})
        return FakeNetwork.signature(body), body

    @staticmethod
    def signature(body: bytes) -> dict[str, str]:
        """The header that makes any body genuine."""
        return {"fake-signature": hmac.new(WEBHOOK_SECRET, body, hashlib.sha256).hexdigest()}


class FakeRail(FakeMetering):
    """A rail that can do everything a rail may be able to do."""

    def __init__(
        self, network: FakeNetwork, *, name: str = "fake", capabilities: Capabilities | None = None
    ) -> None:
        self.name = name
        self.capabilities = capabilities or fake_capabilities()
        super().__init__(network)
        self._network = network
        self.closed = False

    async def open(self, order: Order) -> Instructions:
        """Open a payment request, once per payment."""
        self._network.check("open")
        way = self._network.register(order)
        self._network.answer()
        amount = way.order.amount_due
        return Instructions(
            kind="address",
            reference=way.reference,
            uri=f"fake:{way.reference}?amount={amount.decimal()}",
            text=way.reference,
            details={
                "address": way.reference,
                "amount": amount.decimal(),
                "payment_hash": hashlib.sha256(self._network.secret(way.reference)).hexdigest(),
            },
        )

    async def observe(self, reference: str) -> Observation:
        """Everything the network knows about one reference."""
        self._network.check("observe")
        way = self._network.way(reference)
        return Observation(
            reference=reference,
            status=way.status,
            receipts=tuple(way.receipts.values()),
            decline_code=way.decline_code,
            refunds=self._network.refunds_of(reference),
        )

    async def listen(self, cursor: str | None) -> AsyncIterator[Notification]:
        """Every notification since `cursor`, then new ones as they come."""
        place = int(cursor or 0)
        while True:
            yield await self._network.notification_at(place)
            place += 1

    async def health(self) -> Health:
        """Whether the network is there."""
        return Health(
            ok=not self._network.down, detail="the fake network is down" if self._network.down else ""
        )

    async def outage(self) -> Health:
        """The network has just gone."""
        return await self._network.outages.next()

    async def close(self) -> None:
        """Nothing to let go of."""
        self.closed = True

    def verify_notification(self, headers: Mapping[str, str], body: bytes) -> Sequence[Notification]:
        """Check the signature, then read the message."""
        expected = hmac.new(WEBHOOK_SECRET, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(headers.get("fake-signature", "").encode(), expected.encode()):
            raise NotificationRejected("The signature does not match.", reason=RejectionReason.SIGNATURE)
        try:
            message = msgspec.json.decode(body, type=_Message)
        except (msgspec.DecodeError, RecursionError):
            raise NotificationRejected("The message cannot be read.") from None
        return [Notification(reference=message.reference, notification_id=message.id)]

    async def cancel(self, reference: str) -> Observation:
        """Close an unpaid payment request."""
        self._network.check("cancel")
        way = self._network.way(reference)
        # One that was declined is still open to another try.
        if not way.receipts and way.status in (PaymentRequestStatus.OPEN, PaymentRequestStatus.DECLINED):
            await self._network.stand(reference, PaymentRequestStatus.CLOSED)
        return await self.observe(reference)

    # --- its own books -------------------------------------------------------------------------

    async def movements(self, cursor: str | None, since: datetime) -> MovementPage:
        """Everything that moved, a few at a time."""
        self._network.check("movements")
        return self._network.books.page(cursor)

    async def holdings(self) -> Sequence[Money]:
        """What the network holds for us."""
        self._network.check("holdings")
        return self._network.books.holdings()

    # --- saved methods -------------------------------------------------------------------------

    async def save_method(self, order: SaveOrder) -> Instructions:
        """Open a page to save a method on, once per saving."""
        self._network.check("save_method")
        page = self._network.saved.page(order)
        self._network.answer()
        return Instructions(kind="redirect", reference=page, url=f"https://fake.test/{page}")

    async def observe_saving(self, reference: str) -> SavedMethod:
        """What came of a page."""
        self._network.check("observe_saving")
        return self._network.saved.saving(reference)

    async def observe_method(self, method: str) -> SavedMethod:
        """Whether a method is still there."""
        self._network.check("observe_method")
        return self._network.saved.method(method)

    async def forget_method(self, method: str) -> None:
        """Remove a method."""
        self._network.check("forget_method")
        self._network.saved.remove(method)

    async def charge(self, order: Order, method: str) -> Instructions:
        """Charge a method, once per payment."""
        self._network.check("charge")
        reference = await self._network.saved.charge(order, method, self._network.now())
        self._network.answer()
        return Instructions(kind="charge", reference=reference)

    # --- subscriptions -------------------------------------------------------------------------

    async def subscribe(self, order: SubscriptionOrder) -> Instructions:
        """Open a page to subscribe on, once per subscription."""
        self._network.check("subscribe")
        page = self._network.subscriptions.page(order)
        self._network.answer()
        return Instructions(kind="redirect", reference=page, url=f"https://fake.test/{page}")

    def is_subscription(self, reference: str) -> bool:
        """Whether a reference names a subscription or its page."""
        return self._network.subscriptions.is_subscription(reference)

    async def observe_subscription(self, reference: str) -> SubscriptionObservation | None:
        """Everything the network knows about one."""
        self._network.check("observe_subscription")
        return self._network.subscriptions.observe(reference)

    async def close_subscribing(self, reference: str) -> None:
        """Close the page to subscribe on."""
        self._network.check("close_subscribing")
        await self._network.subscriptions.close(reference)

    async def preview_change(self, reference: str, offer: Offer, *, now: bool) -> ChangePreview:
        """What a change would cost."""
        self._network.check("preview_change")
        return self._network.subscriptions.preview(reference, offer, now=now)

    async def change_plan(self, reference: str, offer: Offer, *, at: datetime | None, key: str) -> None:
        """Another plan, once per key."""
        self._network.check("change_plan")
        await self._network.subscriptions.change(reference, offer, at, key)
        self._network.answer()

    async def cancel_subscription(self, reference: str) -> None:
        """End with the period."""
        self._network.check("cancel_subscription")
        await self._network.subscriptions.cancel(reference)
        self._network.answer()

    async def resume_subscription(self, reference: str) -> None:
        """Take back what was scheduled."""
        self._network.check("resume_subscription")
        await self._network.subscriptions.resume(reference)
        self._network.answer()

    async def portal(self, reference: str, return_url: str) -> str:
        """The network's own page."""
        self._network.check("portal")
        return f"{self._network.subscriptions.portal(reference)}?{urlencode({'back': return_url})}"

    # --- holds and refunds -----------------------------------------------------------------------

    async def capture(self, reference: str) -> Observation:
        """Take the held money."""
        return await self._resolve(reference, ReceiptState.SETTLED, "capture")

    async def release(self, reference: str) -> Observation:
        """Give the held money back, and take none any more."""
        return await self._resolve(reference, ReceiptState.RETURNED, "release")

    async def refund(self, reference: str, amount: Money, destination: str | None, key: str) -> Refund:
        """Send money back, once per key. An answer that is lost leaves it unknown."""
        self._network.check("refund")
        outcome = self._network.refund_once(key, reference, amount, destination)
        try:
            self._network.answer()
        except RailUnavailable:
            return Refund.UNKNOWN
        return outcome

    async def _resolve(self, reference: str, state: ReceiptState, call: str) -> Observation:
        self._network.check(call)
        way = self._network.way(reference)
        for receipt in list(way.receipts.values()):
            if receipt.state is ReceiptState.HELD:
                await self._network.change(reference, receipt.money_ref, state)
        settled = any(receipt.state is ReceiptState.SETTLED for receipt in way.receipts.values())
        if call == "release" and way.status is PaymentRequestStatus.OPEN and not settled:
            way.status = PaymentRequestStatus.CLOSED
        self._network.answer()
        return await self.observe(reference)
