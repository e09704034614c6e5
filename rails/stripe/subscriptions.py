"""The card rail's subscriptions: Checkout in subscription mode, and Stripe Billing behind it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from ledger.clock import Clock
from ledger.money import USD, Money
from rails.contract import Instructions, Observation, RailProtocolError
from rails.reading import understood
from rails.recurring import (
    ChangePreview,
    ChangeRefused,
    Offer,
    SubscriptionObservation,
    SubscriptionOrder,
)
from rails.stripe.amounts import name_of
from rails.stripe.billing_calls import BillingCalls
from rails.stripe.calls import Json, KeyReused, Refused
from rails.stripe.checkout import lifetime, open_session
from rails.stripe.reading_subscriptions import (
    Managed,
    Overage,
    intents_of,
    lookup_key,
    overage_key,
    prices_in,
    read_invoice,
    read_managed,
    read_offer,
    read_phase_start,
    read_preview,
    read_session_of_subscription,
    read_subscription,
    subscription_of_invoice,
)
from rails.stripe.terms import CheckoutTerms

OFFERS_REMEMBERED = 1_000
_PRORATED = {"proration_behavior": "always_invoice"}


def is_invoice(reference: str) -> bool:
    """Whether a reference names an invoice; any other is a Checkout session's."""
    return reference.startswith("in_")


class CardSubscriptions:
    """See `rails.recurring.Recurring`."""

    def __init__(self, calls: BillingCalls, clock: Clock, terms: CheckoutTerms) -> None:
        self._calls = calls
        self._clock = clock
        self._terms = terms
        self._offers: OrderedDict[str, Offer | Overage | None] = OrderedDict()
        """What a price is for. The metadata of a price is written with it and never changed by us."""
        self._notes = structlog.get_logger("rails.stripe.subscriptions")

    # --- subscribing ---------------------------------------------------------------------------

    async def subscribe(self, order: SubscriptionOrder) -> Instructions:
        """Open a Checkout session in subscription mode; the idempotency key comes from our id."""
        price, beyond = await self._prices(order.offer)
        metadata = {"subscription_id": order.subscription_id}
        # What is metered has no quantity.
        metered: list[Json] = [] if beyond is None else [{"price": beyond}]
        params: Json = {
            "mode": "subscription",
            "client_reference_id": order.subscription_id,
            "line_items": [{"price": price, "quantity": 1}, *metered],
            "metadata": metadata,
            "subscription_data": {"metadata": metadata},
            **lifetime(order.expires_at, self._clock(), order.return_url),
            **self._terms.of_session(),
        }
        return await open_session(self._calls, params, f"subscribe:{order.subscription_id}")

    async def _prices(self, offer: Offer) -> tuple[str, str | None]:
        """The price of a plan, and of what is used beyond it, where that is billed: by the month alone."""
        plan, beyond = lookup_key(offer), overage_key(offer.plan)
        found = await self._calls.prices_of(plan, *([beyond] if offer.length == "month" else []))
        if plan not in found:
            self._notes.error("price_missing", lookup_key=plan)
            raise ChangeRefused("the catalogue has no price for this plan")
        return found[plan], found.get(beyond)

    async def _items(self, managed: Managed, offer: Offer) -> list[Json]:
        """What a subscription has to consist of for another plan. What meters use is added, and never taken away
        or put at another price: Stripe would not bill what was used before."""
        if managed.metered is not None and offer.length != managed.length:
            raise ChangeRefused("what is used beyond the plan is billed by the month")
        price, beyond = await self._prices(offer)
        added: list[Json] = [{"price": beyond}] if beyond is not None and managed.metered is None else []
        return [{"id": managed.item, "price": price}, *added]

    def is_subscription(self, reference: str) -> bool:
        """Subscriptions by their prefix; a session is one to subscribe on if our metadata says so."""
        return reference.startswith(("sub_", "cs_"))

    async def close_subscribing(self, reference: str) -> None:
        """Expire the session if it is still open."""
        try:
            await self._calls.expire_session(reference)
        except Refused as refused:
            self._notes.info("card_session_not_open", code=refused.code)

    # --- the truth -----------------------------------------------------------------------------

    async def observe_subscription(self, reference: str) -> SubscriptionObservation | None:
        """The subscription with its schedule, and its newest invoices."""
        try:
            if reference.startswith("cs_"):
                session = await self._calls.plain_session(reference)
                if session.get("subscription") is None:
                    return read_session_of_subscription(session)
                with understood("Stripe"):
                    reference = name_of(session["subscription"])
            subscription = await self._calls.subscription(reference)
        except Refused as refused:
            raise RailProtocolError(f"Stripe does not know {reference[:4]}…: {refused.code}") from refused
        invoices = [
            invoice for invoice in await self._calls.invoices(reference) if invoice.get("status") != "draft"
        ]
        offers = {price: await self._offer(price) for price in prices_in(subscription, invoices)}
        return read_subscription(subscription, invoices, offers)

    async def _offer(self, price_id: str) -> Offer | Overage | None:
        if price_id not in self._offers:
            try:
                self._offers[price_id] = read_offer(await self._calls.price(price_id))
            except Refused as refused:
                raise RailProtocolError(f"Stripe does not know its own price: {refused.code}") from refused
            while len(self._offers) > OFFERS_REMEMBERED:
                self._offers.popitem(last=False)
        return self._offers[price_id]

    async def observe_invoice(
        self, reference: str, remember: Callable[[str, str | None], None]
    ) -> Observation:
        """The money of one invoice. `remember` is given each payment intent with the invoice."""
        try:
            invoice = await self._calls.invoice(reference)
            paid_by = []
            for name in intents_of(invoice):
                remember(name, reference)
                paid_by.append(await self._charged(await self._calls.intent(name)))
        except Refused as refused:
            raise RailProtocolError(f"Stripe does not know this invoice: {refused.code}") from refused
        return read_invoice(invoice, paid_by)

    async def _charged(self, intent: Json) -> tuple[Json, Sequence[Json], Sequence[Json]]:
        """A payment intent with all its refunds and disputes."""
        with understood("Stripe"):
            charge, name = intent["latest_charge"], name_of(intent["id"])
            if charge is None:
                return intent, (), ()
            refunds, more = charge["refunds"]["data"], bool(charge["refunds"]["has_more"])
            disputed = bool(charge["disputed"])
        if more:
            refunds = await self._calls.refunds(name)
        return intent, refunds, await self._calls.disputes(name) if disputed else ()

    async def intent_of_invoice(self, reference: str) -> str | None:
        """The payment intent whose money can be sent back. May raise `Refused`."""
        for name in intents_of(await self._calls.invoice(reference)):
            intent = await self._calls.intent(name)
            if intent.get("status") == "succeeded":
                return name
        return None

    async def invoice_paid_by(self, intent: str) -> str | None:
        """The invoice of a subscription of ours that a payment intent pays, if any."""
        invoice = await self._calls.invoice_of_intent(intent)
        with understood("Stripe"):
            if invoice is None or subscription_of_invoice(invoice) is None:
                return None
            return name_of(invoice["id"])

    # --- changes -------------------------------------------------------------------------------

    async def preview_change(self, reference: str, offer: Offer, *, now: bool) -> ChangePreview:
        """Ask Stripe for the invoice that the change would make, and for the one of the next period."""
        at = self._clock().replace(microsecond=0)
        try:
            managed = read_managed(await self._calls.subscription(reference))
            items = await self._items(managed, offer)
            then, _ = await self._preview(reference, {"items": items, "proration_behavior": "none"})
            due_now, next_at = Money(0, USD), managed.period_end
            if now:
                at_once = {"items": items, "proration_date": int(at.timestamp()), **_PRORATED}
                due_now, period_end = await self._preview(reference, at_once)
                # Another length begins a period anew; parts of periods leave it as it is.
                next_at = period_end or next_at
        except Refused as refused:
            raise ChangeRefused(str(refused.code)) from refused
        return ChangePreview(due_now=due_now, due_next=then, next_at=next_at, at=at)

    async def _preview(self, reference: str, details: Json) -> tuple[Money, datetime | None]:
        terms = self._terms.of_subscription()
        shown = await self._calls.preview(
            {"subscription": reference, "subscription_details": details, **terms}
        )
        return read_preview(shown)

    async def change_plan(self, reference: str, offer: Offer, *, at: datetime | None, key: str) -> None:
        """At once: prorated, and only if it is paid. Later: a schedule with a second phase."""
        try:
            managed = read_managed(await self._calls.subscription(reference))
            items = await self._items(managed, offer)
            if at is None:
                await self._schedule(reference, managed, items, offer)
                return
            await self._clear_the_way(reference, managed)
            params = {
                "items": items,
                "proration_date": int(at.timestamp()),
                "payment_behavior": "pending_if_incomplete",
                **_PRORATED,
                **self._terms.of_subscription(),
            }
            await self._calls.update_subscription(reference, params, f"change:{reference}:{key}")
        except KeyReused as reused:
            raise ChangeRefused("the same change was asked for with other terms") from reused
        except Refused as refused:
            raise ChangeRefused(str(refused.code)) from refused

    async def _schedule(self, reference: str, managed: Managed, items: list[Json], offer: Offer) -> None:
        schedule, starts = managed.schedule, managed.phase_start
        if managed.ends_with_period:
            await self._calls.update_subscription(reference, {"cancel_at_period_end": False})
        if schedule is None:
            created = await self._calls.create_schedule(reference)
            starts = read_phase_start(created)
            with understood("Stripe"):
                schedule = name_of(created["id"])
        # A phase has no more of the subscription than what is said there, and a discount would be lost.
        kept = {"discounts": [{"discount": name} for name in managed.discounts]} if managed.discounts else {}
        kept |= self._terms.of_subscription()
        metered: list[Json] = [] if managed.metered is None else [{"price": managed.metered}]
        present = {
            **kept,
            "items": [{"price": managed.price, "quantity": 1}, *metered],
            "start_date": starts,
            "end_date": int(managed.period_end.timestamp()),
        }
        coming = {
            **kept,
            "items": [{"price": items[0]["price"], "quantity": 1}, *metered, *items[1:]],
            "duration": {"interval": offer.length, "interval_count": 1},
            "proration_behavior": "none",
        }
        phases = {"phases": [present, coming], "end_behavior": "release", "proration_behavior": "none"}
        await self._calls.update_schedule(schedule, phases)

    async def cancel_subscription(self, reference: str) -> None:
        """A schedule must let go of a subscription before that can be cancelled."""
        try:
            managed = read_managed(await self._calls.subscription(reference))
            if managed.schedule is not None:
                await self._calls.release_schedule(managed.schedule)
            await self._calls.update_subscription(reference, {"cancel_at_period_end": True})
        except Refused as refused:
            raise ChangeRefused(str(refused.code)) from refused

    async def resume_subscription(self, reference: str) -> None:
        """No end, no other plan, no pause."""
        try:
            managed = read_managed(await self._calls.subscription(reference))
            await self._clear_the_way(reference, managed)
        except Refused as refused:
            raise ChangeRefused(str(refused.code)) from refused

    async def _clear_the_way(self, reference: str, managed: Managed) -> None:
        """Take back what was scheduled."""
        if managed.schedule is not None:
            await self._calls.release_schedule(managed.schedule)
        if managed.ends_with_period:
            await self._calls.update_subscription(reference, {"cancel_at_period_end": False})
        elif managed.ends_at_a_date:
            await self._calls.update_subscription(reference, {"cancel_at": ""})
        if managed.is_paused:
            await self._calls.update_subscription(reference, {"pause_collection": ""})

    async def portal(self, reference: str, return_url: str) -> str:
        """Stripe's own page for the customer."""
        try:
            managed = read_managed(await self._calls.subscription(reference))
            session = await self._calls.portal_session(managed.customer, return_url)
        except Refused as refused:
            raise ChangeRefused(str(refused.code)) from refused
        with understood("Stripe"):
            return name_of(session["url"])
