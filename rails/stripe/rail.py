"""The card rail on Stripe: a Checkout session per payment, and the invoices of subscriptions."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from ledger.clock import Clock
from ledger.money import USD, Money
from rails.contract import (
    Capabilities,
    Health,
    Instructions,
    Notification,
    NotificationRejected,
    Observation,
    Order,
    RailProtocolError,
    RailUnavailable,
    Refund,
    RefundTo,
)
from rails.outages import Outages
from rails.stripe.books import BookCalls, CardBooks
from rails.stripe.calls import MAX_PAGES, Json, KeyReused, Refused
from rails.stripe.checkout import lifetime, open_session
from rails.stripe.reading import read_charged, read_intent, read_refund, read_session, refund_key
from rails.stripe.saved import CardSaved, is_charge
from rails.stripe.saved_calls import SavedCalls
from rails.stripe.subscriptions import is_invoice
from rails.stripe.terms import PLAIN, CheckoutTerms, Tax
from rails.stripe.webhooks import (
    FOLLOWED,
    LISTED_TYPES,
    Subject,
    WebhookRules,
    open_message,
    our_payment_id,
    read_subject,
)

EVENT_PAGES_MAX = 10_000
"""A million events: more than thirty days have."""
REMEMBERED = 10_000
MAX_POLL_BACKOFF_SECONDS = 300.0
CAPABILITIES = Capabilities(
    assets=(USD,),
    label="Card",
    minimum={"USD": 50},
    maximum={"USD": 99_999_999},
    order=10,
    quote_seconds=3600,
    refund_to=RefundTo.ORIGIN,
)


class CardCalls(SavedCalls, BookCalls):
    """All that the rail asks of Stripe."""


class CardRail(CardSaved, CardBooks):
    """Stripe Checkout and Billing. Webhooks are the fast path, the event list the sure one."""

    name = "card"
    capabilities = CAPABILITIES

    def __init__(
        self,
        calls: CardCalls,
        clock: Clock,
        rules: WebhookRules,
        *,
        poll_seconds: float,
        terms: CheckoutTerms = PLAIN,
    ) -> None:
        CardSaved.__init__(self, calls, clock, terms)
        CardBooks.__init__(self, calls, clock)
        self.capabilities = replace(CAPABILITIES, tax_on_top=terms.tax is Tax.EXCLUSIVE)
        self._rules = rules
        self._poll_seconds = poll_seconds
        self._outages = Outages()
        self._sessions: OrderedDict[str, str | None] = OrderedDict()
        """Payment intent or payment id → session or invoice, as far as seen by this process; None is not ours."""
        self._logger = structlog.get_logger()

    # --- paying ----------------------------------------------------------------------------------

    async def open(self, order: Order) -> Instructions:
        """Open a Checkout session; the idempotency key comes from the payment id."""
        if order.amount_due.asset != USD or order.hold:
            raise ValueError("the card rail takes US dollars and cannot hold them")
        instructions = await open_session(
            self._calls,
            self._session_params(order),
            f"open:{order.payment_id}",
            lambda: self._find_session(order.payment_id),
        )
        self._remember(order.payment_id, instructions.reference)
        return instructions

    def _session_params(self, order: Order) -> Json:
        metadata = {"payment_id": order.payment_id}
        price = {
            "currency": "usd",
            "unit_amount": order.amount_due.minor,
            "product_data": {"name": order.description, **self._terms.of_product()},
            **self._terms.of_price(),
        }
        return {
            "mode": "payment",
            "client_reference_id": order.payment_id,
            "line_items": [{"price_data": price, "quantity": 1}],
            "metadata": metadata,
            "payment_intent_data": {"metadata": metadata, "description": order.description},
            **lifetime(order.expires_at, self._clock(), order.return_url),
            **self._terms.of_session(),
        }

    async def _find_session(self, payment_id: str) -> Json | None:
        since = int((self._clock() - timedelta(hours=25)).timestamp())
        after: str | None = None
        for _ in range(MAX_PAGES):
            page = await self._calls.recent_sessions(since, after)
            for session in page["data"]:
                if our_payment_id(session) == payment_id:
                    return dict(session)
            if not page["has_more"] or not page["data"]:
                return None
            after = page["data"][-1]["id"]
        return None

    # --- the truth -------------------------------------------------------------------------------

    async def observe(self, reference: str) -> Observation:
        """The session or invoice with payment intents, charges, fees, refunds and disputes, all asked for now."""
        if is_invoice(reference):
            return await self.observe_invoice(reference, self._remember)
        if is_charge(reference):
            return await self.observe_charge(reference, self._remember)
        try:
            session = await self._calls.session(reference)
        except Refused as refused:
            raise RailProtocolError(f"Stripe does not know this session: {refused.code}") from refused
        charged = read_charged(session)
        refunds: Sequence[Json] = ()
        disputes: Sequence[Json] = ()
        if charged is not None:
            self._remember(charged.intent, reference)
            refunds = charged.refunds
            if charged.more_refunds:
                refunds = await self._calls.refunds(charged.intent)
            if charged.disputed:
                disputes = await self._calls.disputes(charged.intent)
        return read_session(session, refunds, disputes)

    async def cancel(self, reference: str) -> Observation:
        """Expire the session if it is still open, or cancel the charge; what is so afterwards is asked anew."""
        if is_charge(reference):
            await self.cancel_charge(reference)
            return await self.observe(reference)
        try:
            await self._calls.expire_session(reference)
        except Refused as refused:
            self._logger.info("card_session_not_open", code=refused.code)
        return await self.observe(reference)

    async def health(self) -> Health:
        """Whether Stripe answers and takes our key."""
        try:
            await self._calls.ping()
        except (RailUnavailable, RailProtocolError) as error:
            return Health(ok=False, detail=str(error))
        except Refused as error:
            return Health(ok=False, detail=f"Stripe refuses us: {error}")
        return Health(ok=True)

    async def outage(self) -> Health:
        """Stripe did not list its events."""
        return await self._outages.next()

    async def close(self) -> None:
        """Let go of connections."""
        await self._calls.close()

    # --- sending back ----------------------------------------------------------------------------

    async def refund(self, reference: str, amount: Money, destination: str | None, key: str) -> Refund:
        """Refund to the card that paid, at most once per key, however often asked.

        Stripe forgets an idempotency key after a day; so the key is also in the refund's
        metadata and looked up first. A refund once sent may fail days later (`refund.failed`):
        asking again with the same key then says so. `destination` has no meaning for cards.
        """
        del destination
        if amount.asset != USD:
            raise ValueError("the card rail refunds US dollars")
        try:
            return await self._refund(reference, amount.minor, key)
        except (RailUnavailable, RailProtocolError, KeyReused) as error:
            self._logger.warning("card_refund_unknown", error=type(error).__name__)
            return Refund.UNKNOWN

    async def _refund(self, reference: str, minor: int, key: str) -> Refund:
        try:
            if is_invoice(reference):
                intent = await self.intent_of_invoice(reference)
            elif is_charge(reference):
                intent = reference
            else:
                intent = read_intent(await self._calls.session(reference))
            if intent is None:
                return Refund.FAILED
            for refund in await self._calls.refunds(intent):
                if refund_key(refund) == key:
                    return read_refund(refund)
            return read_refund(await self._calls.create_refund(intent, minor, key))
        except Refused as refused:
            self._logger.info("card_refund_refused", code=refused.code)
            return Refund.FAILED

    # --- notifications -----------------------------------------------------------------------------------

    def verify_notification(self, headers: Mapping[str, str], body: bytes) -> Sequence[Notification]:
        """Check a webhook message. Raises `NotificationRejected`; a message about others gives no notification."""
        now: datetime = self._clock()
        event = open_message(headers, body, self._rules, now)
        try:
            subject = read_subject(event)
        except RailProtocolError as error:
            raise NotificationRejected("The message does not say what it is about.") from error
        if subject is None:
            return ()
        known = self._known(subject)
        if known == (None,) or (known is None and subject.kind in FOLLOWED):
            return ()
        # Who it is about may have to be asked for, which `listen` does; till then: look at all.
        reference = known[0] if known else None
        return (Notification(reference=reference, notification_id=subject.event_id),)

    async def listen(self, cursor: str | None) -> AsyncIterator[Notification]:
        """Every event since `cursor` (an event id), oldest first, then new ones as they are listed."""
        failures = 0
        while True:
            try:
                page, cursor = await self._events_after(cursor)
                for event in page:
                    cursor = event["id"]
                    notification = await self._notification(event)
                    if notification is not None:
                        yield notification
                failures = 0
                if page:
                    continue
            except RailUnavailable as error:
                failures += 1
                self._outages.notice(str(error))
                self._logger.warning("card_events_unavailable", error=str(error), failures=failures)
            backoff = self._poll_seconds * (1 << min(failures, 6))
            await asyncio.sleep(min(backoff, max(self._poll_seconds, MAX_POLL_BACKOFF_SECONDS)))

    async def _events_after(self, cursor: str | None) -> tuple[Sequence[Json], str | None]:
        """The next newer events, oldest first.

        Stripe lists newest first. `ending_before` gives the page right before the cursor, so that
        walking on from its newest event skips none, however many there are.
        """
        if cursor is not None:
            try:
                page = await self._calls.events(LISTED_TYPES, before=cursor)
                return page["data"][::-1], cursor
            except Refused as refused:
                if refused.code != "resource_missing":
                    raise RailProtocolError(f"Stripe refuses its own event: {refused.code}") from refused
                # Stripe keeps events for 30 days; whoever was away longer starts with the oldest.
                self._logger.warning("card_cursor_forgotten")
        try:
            oldest = await self._oldest_event()
        except Refused as refused:
            raise RailProtocolError(f"Stripe refuses a list: {refused.code}") from refused
        return ((), None) if oldest is None else ((oldest,), oldest["id"])

    async def _oldest_event(self) -> Json | None:
        oldest: Json | None = None
        for _ in range(EVENT_PAGES_MAX):
            after = oldest["id"] if oldest else None
            page = await self._calls.events(LISTED_TYPES, after=after)
            if page["data"]:
                oldest = page["data"][-1]
                if oldest["id"] == after:
                    break
            if not page["has_more"] or not page["data"]:
                return oldest
        raise RailProtocolError("Stripe lists events without end")

    async def _notification(self, event: Json) -> Notification | None:
        try:
            subject = read_subject(event)
        except RailProtocolError:
            # Whatever it is about: asking about everything misses nothing, and the next event is heard.
            self._logger.warning("card_event_unreadable", event_id=event["id"])
            return Notification(reference=None, cursor=event["id"], notification_id=event["id"])
        if subject is None:
            return None
        known = self._known(subject) or (await self._ask_reference(subject),)
        if known == (None,):
            return None
        return Notification(reference=known[0], cursor=event["id"], notification_id=event["id"])

    async def _ask_reference(self, subject: Subject) -> str | None:
        if subject.intent is None:
            return None
        session = await self._calls.session_of_intent(subject.intent)
        reference = session["id"] if session is not None and our_payment_id(session) else None
        if session is None:
            reference = await self.invoice_paid_by(subject.intent) or await self.charge_of(subject.intent)
        self._remember(subject.intent, reference)
        return reference

    def _known(self, subject: Subject) -> tuple[str | None] | None:
        """The session as far as it is known without asking; `(None,)` is known to be not ours."""
        if subject.reference is not None:
            return (subject.reference,)
        for key in (subject.intent, subject.payment_id):
            if key is not None and key in self._sessions:
                return (self._sessions[key],)
        return None

    def _remember(self, key: str, session: str | None) -> None:
        self._sessions[key] = session
        self._sessions.move_to_end(key)
        while len(self._sessions) > REMEMBERED:
            self._sessions.popitem(last=False)
