"""Subscriptions of the fake network: pages, periods, invoices, and what a payer or time does to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ledger.clock import Clock
from ledger.domain.periods import months_after, share_of_time_floor
from ledger.identifiers import PaymentId
from ledger.money import USD, Money
from rails.contract import FundsReceipt, Order, ReceiptState
from rails.metered import NotBillable, UsageReport
from rails.recurring import (
    OVER,
    ChangePreview,
    ChangeRefused,
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    Offer,
    SubscriptionObservation,
    SubscriptionOrder,
    SubscriptionStatus,
)

PAY_URL = "https://fake.test/invoices/"
PORTAL_URL = "https://fake.test/portal/"
TRIES_MAX = 4
"""After so many failures in a row a renewal has failed for good."""
_RUNNING = (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE, SubscriptionStatus.UNPAID)

Announce = Callable[[str], Awaitable[None]]
"""Says that something may have changed about a reference."""
Register = Callable[[str, Order, tuple[FundsReceipt, ...]], None]
"""Puts a payment request with its money into the network."""


@dataclass(slots=True)
class _Subscription:
    order: SubscriptionOrder
    page: str
    reference: str
    seen: SubscriptionObservation
    card_works: bool = True
    failures: int = 0
    keys: set[str] = field(default_factory=set)
    uses: dict[str, tuple[int, datetime]] = field(default_factory=dict)
    """Credits used beyond the plan, and when, by the name under which they count once."""


class FakeSubscriptions:
    """All subscriptions of one network. Prices are set by the test."""

    def __init__(self, clock: Clock, name: str, announce: Announce, register: Register) -> None:
        self._clock = clock
        self._name = name
        self._announce = announce
        self._register = register
        self.prices: dict[Offer, int] = {}
        """US cents for each length of each plan."""
        self.overage: dict[str, int] = {}
        """US cents for each credit beyond a plan, by the plans that bill it."""
        self._all: dict[str, _Subscription] = {}
        self._invoices = 0

    def is_subscription(self, reference: str) -> bool:
        """Whether a reference names a subscription or its page."""
        return reference.startswith((f"{self._name}-page-", f"{self._name}-sub-"))

    def page(self, order: SubscriptionOrder) -> str:
        """Open a page, once per subscription."""
        self._price(order.offer)
        page = f"{self._name}-page-{order.subscription_id}"
        reference = f"{self._name}-sub-{order.subscription_id}"
        opening = SubscriptionObservation(
            subscription_id=order.subscription_id, status=SubscriptionStatus.OPENING
        )
        known = self._all.setdefault(page, _Subscription(order, page, reference, opening))
        self._all.setdefault(reference, known)
        return page

    def observe(self, reference: str) -> SubscriptionObservation | None:
        """Everything known about one."""
        known = self._all.get(reference)
        return None if known is None else known.seen

    # --- what the payer does -------------------------------------------------------------------

    async def pay(self, page: str) -> None:
        """The payer subscribes."""
        known = self._all[page]
        start = self._clock().replace(microsecond=0)
        known.seen = replace(
            known.seen,
            status=SubscriptionStatus.ACTIVE,
            reference=known.reference,
            offer=known.order.offer,
            overage=self._beyond(known.order.offer),
            period_start=start,
            period_end=months_after(start, known.order.offer.months),
        )
        self._bill(known, [self._whole(known)])
        await self._changed(known)

    async def close(self, page: str) -> None:
        """The page is closed, or its time is over."""
        known = self._all[page]
        if known.seen.status is SubscriptionStatus.OPENING:
            known.seen = replace(known.seen, status=SubscriptionStatus.EXPIRED)
            await self._announce(page)

    async def pay_invoice(self, reference: str) -> None:
        """The payer pays an open invoice with another card."""
        for name, known in self._all.items():
            for invoice in known.seen.invoices if name == known.page else ():
                if invoice.reference == reference and invoice.status is InvoiceStatus.OPEN:
                    known.card_works, known.failures = True, 0
                    self._paid(known, invoice)
                    await self._changed(known)

    def set_card(self, reference: str, *, works: bool) -> None:
        """Whether the next charges succeed."""
        self._all[reference].card_works = works

    # --- what time does ------------------------------------------------------------------------

    async def renew(self, reference: str) -> None:
        """The period ends: the subscription, or another period begins and is charged for."""
        known, seen = self._all[reference], self._all[reference].seen
        if seen.status not in _RUNNING or seen.period_end is None:
            return
        used = self._used(known)
        if seen.cancels:
            if used:
                self._bill(known, used)
            await self.end(reference)
            return
        offer = seen.next_offer or seen.offer
        assert offer is not None
        known.seen = replace(
            seen,
            offer=offer,
            next_offer=None,
            overage=seen.overage or self._beyond(offer),
            period_start=seen.period_end,
            period_end=months_after(seen.period_end, offer.months),
        )
        self._bill(known, [*used, self._whole(known)])
        if not known.card_works:
            self._fail(known)
        await self._changed(known)

    async def try_again(self, reference: str) -> None:
        """An open invoice is collected once more."""
        known = self._all[reference]
        invoice = known.seen.invoices[-1]
        if invoice.status is InvoiceStatus.OPEN and known.card_works:
            self._paid(known, invoice)
        elif invoice.status is InvoiceStatus.OPEN:
            self._fail(known)
        await self._changed(known)

    def _fail(self, known: _Subscription) -> None:
        known.failures += 1
        for_good = known.failures >= TRIES_MAX
        status = SubscriptionStatus.UNPAID if for_good else SubscriptionStatus.PAST_DUE
        *before, last = known.seen.invoices
        again = None if for_good else self._clock() + timedelta(days=3)
        known.seen = replace(
            known.seen, status=status, invoices=(*before, replace(last, next_attempt_at=again))
        )

    async def end(self, reference: str) -> None:
        """It is over, for example because somebody ended it at the provider."""
        known = self._all[reference]
        known.seen = replace(known.seen, status=SubscriptionStatus.ENDED)
        await self._changed(known)

    async def pause(self, reference: str, *, paused: bool) -> None:
        """Somebody paused or resumed it at the provider."""
        known = self._all[reference]
        status = SubscriptionStatus.PAUSED if paused else SubscriptionStatus.ACTIVE
        known.seen = replace(known.seen, status=status)
        await self._changed(known)

    async def switch_at_once(self, reference: str, offer: Offer) -> None:
        """Somebody put it on another plan at the provider, without charging for it."""
        known = self._all[reference]
        known.seen = replace(known.seen, offer=offer)
        await self._changed(known)

    # --- what the rail asks for ----------------------------------------------------------------

    def preview(self, reference: str, offer: Offer, *, now: bool) -> ChangePreview:
        """What a change would cost."""
        known, at = self._running(reference), self._clock().replace(microsecond=0)
        assert known.seen.period_end is not None
        lines = self._parts(known, offer, at) if now else []
        return ChangePreview(
            due_now=Money(max(sum(line.amount_minor for line in lines), 0), USD),
            due_next=Money(self._price(offer), USD),
            next_at=max([line.ends_at for line in lines], default=known.seen.period_end),
            at=at,
        )

    async def change(self, reference: str, offer: Offer, at: datetime | None, key: str) -> None:
        """Another plan, once per key."""
        known = self._running(reference)
        price = self._price(offer)
        if key in known.keys:
            return
        if known.seen.overage is not None and known.seen.offer and offer.length != known.seen.offer.length:
            raise ChangeRefused("what is used beyond the plan is billed by the month")
        known.keys.add(key)
        cleared = replace(known.seen, cancels=False, next_offer=None)
        if at is None:
            known.seen = replace(cleared, next_offer=offer)
        else:
            known.seen = cleared
            lines = self._parts(known, offer, at)
            assert price >= 0
            known.seen = replace(known.seen, pending_offer=offer)
            self._bill(known, lines)
        await self._changed(known)

    async def cancel(self, reference: str) -> None:
        """End with the period."""
        known = self._running(reference)
        known.seen = replace(known.seen, cancels=True, next_offer=None)
        await self._changed(known)

    async def resume(self, reference: str) -> None:
        """Nothing is scheduled any more."""
        known = self._running(reference)
        known.seen = replace(known.seen, cancels=False, next_offer=None)
        if known.seen.status is SubscriptionStatus.PAUSED:
            known.seen = replace(known.seen, status=SubscriptionStatus.ACTIVE)
        await self._changed(known)

    def report(self, reference: str, report: UsageReport) -> None:
        """Count a use, once: in a period that is not billed."""
        known = self._all[reference]
        seen = known.seen
        if seen.status in OVER or seen.overage is None or seen.period_start is None:
            raise NotBillable(f"it is {seen.status}")
        known.uses.setdefault(report.report_id, (report.credits, max(report.used_at, seen.period_start)))

    def total(self, reference: str, since: datetime) -> int:
        """All that was counted."""
        return sum(credits_ for credits_, at in self._all[reference].uses.values() if at >= since)

    def portal(self, reference: str) -> str:
        """The provider's own page."""
        return f"{PORTAL_URL}{self._running(reference).reference}"

    # -------------------------------------------------------------------------------------------

    def _running(self, reference: str) -> _Subscription:
        known = self._all.get(reference)
        if known is None or known.seen.status in (SubscriptionStatus.ENDED, SubscriptionStatus.EXPIRED):
            raise ChangeRefused("it is over")
        return known

    def _price(self, offer: Offer) -> int:
        if offer not in self.prices:
            raise ChangeRefused("the catalogue has no price for this plan")
        return self.prices[offer]

    def _whole(self, known: _Subscription) -> InvoiceLine:
        seen = known.seen
        assert seen.offer is not None
        assert seen.period_start is not None
        assert seen.period_end is not None
        return InvoiceLine(
            offer=seen.offer,
            starts_at=seen.period_start,
            ends_at=seen.period_end,
            proration=False,
            amount_minor=self._price(seen.offer),
        )

    def _beyond(self, offer: Offer) -> Money | None:
        price = self.overage.get(offer.plan) if offer.length == "month" else None
        return None if price is None else Money(price, USD)

    def _used(self, known: _Subscription) -> list[InvoiceLine]:
        """What was used beyond the plan in the period that ends."""
        seen = known.seen
        assert seen.period_start is not None
        assert seen.period_end is not None
        start, end = seen.period_start, seen.period_end
        used = sum(credits_ for credits_, at in known.uses.values() if start <= at < end)
        if seen.overage is None or not used:
            return []
        line = InvoiceLine(
            offer=None,
            starts_at=start,
            ends_at=end,
            proration=False,
            amount_minor=used * seen.overage.minor,
            overage_credits=used,
        )
        return [line]

    def _parts(self, known: _Subscription, offer: Offer, at: datetime) -> list[InvoiceLine]:
        """A credit for the time that is left, and the charge for it: the same time, or a period of another length."""
        seen = known.seen
        assert seen.offer is not None
        assert seen.period_start is not None
        assert seen.period_end is not None
        start, end = seen.period_start, seen.period_end
        credit, charge = (
            InvoiceLine(
                offer=of,
                starts_at=at,
                ends_at=end,
                proration=True,
                amount_minor=sign * share_of_time_floor(self._price(of), start, end, at),
            )
            for sign, of in ((-1, seen.offer), (1, offer))
        )
        if offer.length != seen.offer.length:
            end, whole = months_after(at, offer.months), self._price(offer)
            charge = replace(charge, ends_at=end, proration=False, amount_minor=whole)
        return [credit, charge]

    def _bill(self, known: _Subscription, lines: list[InvoiceLine]) -> None:
        self._invoices += 1
        due = Money(max(0, sum(line.amount_minor for line in lines)), USD)
        invoice = Invoice(
            reference=f"{self._name}-invoice-{self._invoices}",
            status=InvoiceStatus.OPEN,
            due=due,
            price=due,
            created_at=self._clock(),
            lines=tuple(lines),
            pay_url=f"{PAY_URL}{self._invoices}",
        )
        known.seen = replace(known.seen, invoices=(*known.seen.invoices, invoice))
        self._register(invoice.reference, self._order(known, invoice), ())
        if known.card_works:
            self._paid(known, invoice)

    def _paid(self, known: _Subscription, invoice: Invoice) -> None:
        paid = replace(invoice, status=InvoiceStatus.PAID, next_attempt_at=None, pay_url=None)
        kept = tuple(paid if each.reference == invoice.reference else each for each in known.seen.invoices)
        seen = replace(known.seen, invoices=kept, status=SubscriptionStatus.ACTIVE)
        if seen.pending_offer is not None and any(line.proration for line in invoice.lines):
            beyond = seen.overage or self._beyond(seen.pending_offer)
            seen = replace(seen, offer=seen.pending_offer, pending_offer=None, overage=beyond)
            for line in invoice.lines:
                if not line.proration:
                    seen = replace(seen, period_start=line.starts_at, period_end=line.ends_at)
        known.seen, known.failures = seen, 0
        receipt = FundsReceipt(
            money_ref=f"{self._name}:{invoice.reference}",
            amount=invoice.due,
            state=ReceiptState.SETTLED,
            first_seen_at=self._clock(),
            external_ref=invoice.reference,
        )
        receipts = (receipt,) if invoice.due.minor else ()
        self._register(invoice.reference, self._order(known, invoice), receipts)

    def _order(self, known: _Subscription, invoice: Invoice) -> Order:
        return Order(
            payment_id=PaymentId(invoice.reference),
            account_id=known.order.account_id,
            ordinal=self._invoices,
            amount_due=invoice.due,
            description="A period",
            expires_at=invoice.created_at,
            return_url=known.order.return_url,
        )

    async def _changed(self, known: _Subscription) -> None:
        await self._announce(known.reference)
