"""Subscriptions: what the rest of the platform calls to subscribe people and to change what they have.

    subscriptions = Subscriptions(log=…, store=…, rails={"card": …}, ids=…, clock=…, plans=…)
    record = await subscriptions.subscribe("acct_…", "card", Offer(plan="pro", length="month"), return_url="…")

A page that people come back to grants nothing: everything follows from asking the rail. Whatever changes a
subscription first lets the sweep ask soon, then asks the rail for it, and then for the truth: a crash in
between loses nothing. Everything may raise a `ledger.errors.Refusal` by name (`rails.subscriptions.refusals`),
a `ChangeRefused` of the rail, or a `RailUnavailable`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from ledger.clock import Clock
from ledger.identifiers import AccountId, Identifiers
from ledger.log.model import LogWriter
from ledger.log.reader import LogReader
from ledger.plans import FREE, Plan
from rails.contract import Rail
from rails.domain.openings import NoPlaceLeft
from rails.domain.refusals import UnknownRail
from rails.payments.service import in_time
from rails.recurring import (
    ChangePreview,
    InvoiceStatus,
    Offer,
    Recurring,
    SubscriptionObservation,
    SubscriptionOrder,
    SubscriptionStatus,
)
from rails.store.subscriptions import SubscriptionStore
from rails.subscriptions.reading import credits_at_once, starts_at_once
from rails.subscriptions.record import (
    PREFIX,
    SubscriptionRecord,
    never_opened,
    opened_record,
    record_of,
    with_observation,
)
from rails.subscriptions.recording import Changed, PaidInvoice, SubscriptionRecorder, payment_id_of
from rails.subscriptions.refusals import (
    CannotSubscribe,
    ChangeWaits,
    NotRunning,
    OverageByTheMonth,
    PlanUnchanged,
    PlanUnknown,
    PreviewStale,
    SubscriptionExists,
    SubscriptionUnknown,
    TooManyPages,
)

PAGE_LASTS = timedelta(hours=1)
PAGES_MAX = 3
"""Open pages to subscribe on of one account: each costs the provider and us something."""
PREVIEW_LASTS = timedelta(minutes=15)
SOON = timedelta(minutes=1)
_RUNNING = (
    SubscriptionStatus.ACTIVE,
    SubscriptionStatus.TRIALING,
    SubscriptionStatus.PAST_DUE,
    SubscriptionStatus.UNPAID,
    SubscriptionStatus.PAUSED,
)


class Subscriptions:
    """Subscribes people over rails that charge again. Safe to run in many processes."""

    def __init__(
        self,
        *,
        log: LogWriter,
        reader: LogReader,
        store: SubscriptionStore,
        rails: Mapping[str, Rail],
        ids: Identifiers,
        clock: Clock,
        plans: Mapping[str, Plan],
        changed: Changed | None = None,
        rail_timeout_seconds: int = 20,
    ) -> None:
        self._reader = reader
        self._store = store
        self._rails = rails
        self._ids = ids
        self._clock = clock
        self._plans = plans
        self._timeout_seconds = rail_timeout_seconds
        self._recorder = SubscriptionRecorder(log=log, ids=ids, plans=plans, changed=changed)
        self._log = structlog.get_logger("rails.subscriptions")

    # --- subscribing ---------------------------------------------------------------------------

    async def subscribe(
        self, account_id: str, rail: str, offer: Offer, *, return_url: str, key: str | None = None
    ) -> SubscriptionRecord:
        """Open a page to subscribe on. `key` makes it idempotent for ever.

        Pages that the account has left open are closed first; of those that stay open for the provider
        `PAGES_MAX` are allowed.
        """
        self._recurring(rail)
        self._paid_plan(offer.plan)
        await self._require_no_other(account_id)
        now = self._clock()
        opened = opened_record(
            self._ids.new(PREFIX), account_id, rail, offer, now=now, page_expires_at=now + PAGE_LASTS
        )
        try:
            subscription_id = await self._recorder.open(opened, key=key, pages_max=PAGES_MAX)
        except NoPlaceLeft:
            raise TooManyPages(limit=PAGES_MAX) from None
        return await self.page(subscription_id, return_url)

    async def page(self, subscription_id: str, return_url: str) -> SubscriptionRecord:
        """A subscription whose page is open, if nothing came of it yet. Heals a crash between intent and answer."""
        record = await self.known(subscription_id)
        if record.page_reference is None and not record.is_over:
            await self._open_page(self._recurring(record.rail), record, return_url)
            record = await self.known(subscription_id)
        return record

    async def _require_no_other(self, account_id: str) -> None:
        view = (await self._reader.state(account_id)).state
        paid = [known for known in view.status.subscriptions() if known.lasts_until > self._clock()]
        if paid:
            raise SubscriptionExists(plan=paid[0].plan)
        for record in await self.of_account(account_id):
            if record.status in _RUNNING:
                raise SubscriptionExists(plan=record.plan)
            if record.status is SubscriptionStatus.OPENING and record.page_reference is not None:
                await self._leave_page(record)

    async def _leave_page(self, record: SubscriptionRecord) -> None:
        """Close a page that its payer has left for another. What was paid there meanwhile wins."""
        assert record.page_reference is not None
        async with in_time(self._timeout_seconds):
            await self._recurring(record.rail).close_subscribing(record.page_reference)
        found = await self._look(record)
        if found.status in _RUNNING:
            raise SubscriptionExists(plan=found.plan)

    async def _open_page(self, rail: Recurring, record: SubscriptionRecord, return_url: str) -> None:
        order = SubscriptionOrder(
            subscription_id=record.subscription_id,
            account_id=AccountId(record.account_id),
            offer=record.offer,
            expires_at=record.page_expires_at,
            return_url=return_url.replace("{subscription_id}", record.subscription_id),
        )
        async with in_time(self._timeout_seconds):
            page = await rail.subscribe(order)
        await self._recorder.issue(record, page)

    # --- reading -------------------------------------------------------------------------------

    async def find(self, subscription_id: str) -> SubscriptionRecord | None:
        """A subscription as of when its rail was last asked, if there is one."""
        row = await self._store.row(subscription_id)
        return None if row is None else record_of(row)

    async def known(self, subscription_id: str) -> SubscriptionRecord:
        """A subscription as of when its rail was last asked. Raises `SubscriptionUnknown`."""
        found = await self.find(subscription_id)
        if found is None:
            raise SubscriptionUnknown
        return found

    async def of_account(self, account_id: str) -> Sequence[SubscriptionRecord]:
        """The newest subscriptions of an account, newest first."""
        return [record_of(row) for row in await self._store.of_account(account_id)]

    def rails(self) -> Sequence[str]:
        """The rails that charge again by themselves."""
        return [name for name, rail in self._rails.items() if isinstance(rail, Recurring)]

    # --- news ----------------------------------------------------------------------------------

    async def deal_with(self, rail: str, reference: str) -> bool:
        """Follow a notification. False if it is about none of ours, or not yet. May raise `RailUnavailable`."""
        chosen = self._rails.get(rail)
        if not isinstance(chosen, Recurring) or not chosen.is_subscription(reference):
            return False
        asked_at, seen = await self._ask(chosen, reference)
        row = None if seen is None else await self._store.row(seen.subscription_id)
        if seen is None or row is None:
            return False
        await self._record(record_of(row), seen, asked_at)
        return True

    async def observe(self, subscription_id: str) -> SubscriptionRecord:
        """Ask the rail what is so now, and write down what is new. May raise `RailUnavailable`."""
        return await self._look(await self.known(subscription_id))

    async def visit(self, row: Mapping[str, Any]) -> datetime | None:
        """The sweep's work on one row; returns when it is due again. Raises what keeps it from being done."""
        record = record_of(row)
        left = never_opened(record, self._clock())
        if left is not None:
            await self._recorder.put(left)
            return left.due_at
        if record.page_reference is None:
            return record.due_at
        return (await self._look(record)).due_at

    async def _look(self, record: SubscriptionRecord) -> SubscriptionRecord:
        reference = record.reference or record.page_reference
        if reference is None:
            return record
        asked_at, seen = await self._ask(self._recurring(record.rail), reference)
        if seen is None or seen.subscription_id != record.subscription_id:
            self._log.error("subscription_not_ours", subscription_id=record.subscription_id)
            raise SubscriptionUnknown
        return await self._record(record, seen, asked_at)

    async def _ask(self, rail: Recurring, reference: str) -> tuple[datetime, SubscriptionObservation | None]:
        asked_at = self._clock()
        async with in_time(self._timeout_seconds):
            return asked_at, await rail.observe_subscription(reference)

    async def _record(
        self, record: SubscriptionRecord, seen: SubscriptionObservation, asked_at: datetime
    ) -> SubscriptionRecord:
        """Write down what is new: the money of each invoice that was paid meanwhile is asked for first."""
        paid = {
            payment_id_of(record.rail, invoice): invoice
            for invoice in seen.invoices
            if invoice.status is InvoiceStatus.PAID
        }
        known = await self._store.known_payments(list(paid)) if paid else frozenset()
        news = []
        for payment_id, invoice in paid.items():
            if payment_id not in known:
                async with in_time(self._timeout_seconds):
                    money = await self._rails[record.rail].observe(invoice.reference)
                news.append(PaidInvoice(payment_id=payment_id, invoice=invoice, money=money))
        after = with_observation(record, seen, asked_at)
        account = (await self._reader.state(record.account_id)).state
        if self._recorder.is_news(record, after, seen, news, account):
            await self._recorder.record(record, seen, news, asked_at)
        return after

    # --- changes -------------------------------------------------------------------------------

    async def preview(
        self, subscription_id: str, offer: Offer, *, later: bool = False
    ) -> tuple[ChangePreview, int, bool]:
        """What a change would cost, the credits that it brings at once, and whether it begins at once.

        `later`: only after the period, although it could begin at once.
        """
        record, now = await self._changeable(subscription_id, offer, later=later)
        async with in_time(self._timeout_seconds):
            shown = await self._recurring(record.rail).preview_change(_name(record), offer, now=now)
        if not now:
            return shown, 0, False
        account = (await self._reader.state(record.account_id)).state
        known = account.status.find_subscription(subscription_id)
        return shown, credits_at_once(known, record.offer, offer, self._plans, shown.at), True

    async def change(
        self, subscription_id: str, offer: Offer, *, at: datetime | None, key: str, later: bool = False
    ) -> SubscriptionRecord:
        """Another plan or length: a larger one at once, at the price shown for `at`; a smaller one after the period.

        `later`: after the period in any case.
        """
        record, at_once = await self._changeable(subscription_id, offer, later=later)
        if at_once:
            now = self._clock()
            if at is None or not now - PREVIEW_LASTS <= at <= now:
                raise PreviewStale(seconds_max=PREVIEW_LASTS // timedelta(seconds=1))
        when = at if at_once else None
        return await self._do(record, lambda rail, name: rail.change_plan(name, offer, at=when, key=key))

    async def cancel(self, subscription_id: str) -> SubscriptionRecord:
        """End with the period."""
        record = await self._running(subscription_id)
        return await self._do(record, lambda rail, name: rail.cancel_subscription(name))

    async def resume(self, subscription_id: str) -> SubscriptionRecord:
        """Take back a cancellation, a smaller plan to come, or a pause."""
        record = await self._running(subscription_id)
        return await self._do(record, lambda rail, name: rail.resume_subscription(name))

    async def portal(self, subscription_id: str, return_url: str) -> str:
        """A page of the rail for card, invoices and cancelling."""
        record = await self._running(subscription_id)
        async with in_time(self._timeout_seconds):
            return await self._recurring(record.rail).portal(_name(record), return_url)

    async def _do(
        self, record: SubscriptionRecord, act: Callable[[Recurring, str], Awaitable[None]]
    ) -> SubscriptionRecord:
        """Let the rail do something, and write down what is so then: by the sweep, if we die in between."""
        await self._store.look_again(record.subscription_id, self._clock() + SOON)
        async with in_time(self._timeout_seconds):
            await act(self._recurring(record.rail), _name(record))
        return await self._look(record)

    async def _running(self, subscription_id: str) -> SubscriptionRecord:
        record = await self.known(subscription_id)
        if record.status not in _RUNNING or record.reference is None:
            raise NotRunning(state=record.status.value)
        return record

    async def _changeable(
        self, subscription_id: str, offer: Offer, *, later: bool
    ) -> tuple[SubscriptionRecord, bool]:
        """The subscription, and whether the change begins at once."""
        record = await self._running(subscription_id)
        self._paid_plan(offer.plan)
        if record.pending_plan is not None:
            raise ChangeWaits(plan=record.pending_plan)
        if offer == record.offer:
            raise PlanUnchanged(plan=record.plan)
        if record.overage_usd_minor and offer.length != record.length:
            raise OverageByTheMonth
        at_once = not later and starts_at_once(record.offer, offer, self._plans)
        if at_once and record.status not in (SubscriptionStatus.ACTIVE, SubscriptionStatus.TRIALING):
            raise NotRunning(state=record.status.value)
        return record, at_once

    # -------------------------------------------------------------------------------------------

    def _paid_plan(self, name: str) -> Plan:
        plan = self._plans.get(name)
        if plan is None or name == FREE:
            raise PlanUnknown(plan=name)
        return plan

    def _recurring(self, name: str) -> Recurring:
        rail = self._rails.get(name)
        if rail is None:
            raise UnknownRail(rail=name)
        if not isinstance(rail, Recurring):
            raise CannotSubscribe(rail=name)
        return rail


def _name(record: SubscriptionRecord) -> str:
    assert record.reference is not None, "it runs"
    return record.reference
