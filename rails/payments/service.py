"""Payments: what the rest of the platform calls to be paid.

    payments = Payments(log=…, store=…, rails={"card": …}, rates=…, ids=…, clock=…)
    topup = await payments.open_topup("acct_…", "card", wanted=500, return_url="https://…/topups/{payment_id}")
    topup = await payments.topup(topup.payment_id)

Everything may raise a `ledger.errors.Refusal` by name (see `rails.domain.refusals`), or a `RailUnavailable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import structlog

from ledger.clock import Clock
from ledger.identifiers import AccountId, CommandKey, Identifiers, PaymentId, is_identifier
from ledger.log.model import LogWriter
from ledger.money import Money
from rails.contract import (
    Holds,
    Instructions,
    Notification,
    NotificationRejected,
    Observation,
    Order,
    Rail,
    RailError,
    RailProtocolError,
    RailUnavailable,
    Webhooks,
)
from rails.domain import payment as domain
from rails.domain.openings import NoPlaceLeft
from rails.domain.pricing import PACK, PackPrice
from rails.domain.purchases import Purchase
from rails.domain.refusals import (
    CannotHold,
    NoWebhooks,
    TooManyOpenPayments,
    UnknownRail,
)
from rails.domain.state import Payment, PaymentNotFound
from rails.domain.topup import TopupView, payment_of, view
from rails.payments.asking import asset_of, close, counting, holding, verified
from rails.payments.intent import asked, facts_of
from rails.payments.postponing import Postponing
from rails.payments.reach import Reach
from rails.payments.recording import Recorder, TransactionHook
from rails.payments.refunds import RefundService
from rails.payments.refused import RefusedNotifications
from rails.payments.sweeps import Sweeps
from rails.quotes.quote import Rates
from rails.quotes.quoter import CreditPrice, PaymentLimits, Quoter
from rails.saved import ChargeLapsed, MethodUnusable, SavedMethods
from rails.store.port import RailStore, RetryTask, TooManyWaiting

JOBS_PAID_MAX = 1_000
"""What is beyond is found by the sweep of those who wait for it."""


DealWith = Callable[[str, str], Awaitable[bool]]
"""Follows a notification by rail and reference; False if it is about nothing that is known."""


class UnknownReference(Exception):
    """A notification names a reference that is not ours, or not yet."""


class NotificationsFull(RailError):
    """As many notifications of the rail wait as may. This one was not kept: it has to be sent again."""

    code = "notifications_full"
    message = "Too many notifications are waiting to be dealt with; this one was not kept."


class Payments(Sweeps):
    """Opens, observes and settles payments over any rails. Safe to run in many processes."""

    def __init__(
        self,
        *,
        log: LogWriter,
        store: RailStore,
        rails: Mapping[str, Rail],
        rates: Rates,
        ids: Identifiers,
        clock: Clock,
        price: PackPrice = PACK,
        offers: Sequence[int] = (100, 500, 2_000),
        limits: PaymentLimits | None = None,
        elsewhere: DealWith | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        self.store = store
        self.notification_stored: dict[str, asyncio.Event] = {name: asyncio.Event() for name in rails}
        """Set whenever a notification was stored for a rail."""
        self.jobs_paid: asyncio.Queue[str] = asyncio.Queue(JOBS_PAID_MAX)
        """Jobs for whose payments money is held or here, as soon as that is written down: to be woken by, and no more."""
        self.limits = limits or PaymentLimits()
        self.refused = RefusedNotifications(clock)
        """Webhooks that were not kept, and why."""
        self._elsewhere = elsewhere
        self._rails = rails
        self._rates = rates
        self._ids = ids
        self._clock = clock
        self._quoter = Quoter(rates=rates, clock=clock, price=price, offers=offers, limits=self.limits)
        self._reach = Reach(rails, self._quoter)
        self.health, self.doubted = self._reach.health, self._reach.doubted
        self.ask_rails_again = self._reach.ask_again
        self._recorder = Recorder(log=log, store=store, rates=rates, ids=ids, clock=clock)
        self.refunds = RefundService(log=log, store=store, rails=rails, ids=ids, recorder=self._recorder)
        self._postponing = Postponing(store, self.health, clock, randomness or random.SystemRandom())
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._log = structlog.get_logger("rails.payments")

    # --- opening -------------------------------------------------------------------------------

    async def open_topup(
        self,
        account_id: str,
        rail: str,
        *,
        return_url: str,
        wanted: int | None = None,
        amount: Money | None = None,
        pay_asset: str | None = None,
        key: str | None = None,
        attempt_of: str | None = None,
        hold: bool = False,
        job_id: str | None = None,
        description: str | None = None,
        link: str | None = None,
        purchase: Purchase | None = None,
        method: str | None = None,
    ) -> TopupView:
        """Open a payment request for `wanted` credits, for `amount` (in USD or the asset to pay with), or for a `purchase`.

        `{payment_id}` in `return_url` is replaced. `key` makes it idempotent for ever. If the rail
        does not answer, the view says `opening` and the runner goes on trying. `link` is the digest of
        the link that asks for the account: those have places of their own. `method` is charged by the next `open_request`.
        """
        chosen = self._rail(rail)
        if hold and not isinstance(chosen, Holds):
            raise CannotHold(rail=rail)
        asset = asset_of(chosen, pay_asset)
        quote = await self._reach.quote(chosen, asset, wanted, amount, purchase)
        most = await self._require_place(account_id, by_link=link is not None)
        root = None if attempt_of is None else await self._root(account_id, attempt_of)
        try:
            payment_id = await self._recorder.open(
                self._ids.payment(),
                facts_of(
                    account_id,
                    rail,
                    quote,
                    root,
                    hold=hold,
                    job_id=job_id,
                    link=link,
                    purchase=purchase,
                    charged=method is not None,
                ),
                key=key,
                body=asked(account_id, rail, wanted, amount, pay_asset, root, job_id, purchase),
                account_id=account_id,
                rail=rail,
                return_url=return_url,
                description=description or (purchase.label if purchase else f"{quote.credits} images"),
                open_max=most,
                by_link=link is not None,
                method=method,
            )
        except NoPlaceLeft:
            raise TooManyOpenPayments(limit=most) from None
        if method is None:
            await self._try_to_open(payment_id, rail)
        return await self.topup(payment_id)

    async def _try_to_open(self, payment_id: str, rail: str) -> None:
        try:
            await self.open_request(payment_id)
        except RailUnavailable as error:
            self._log.warning("way_to_pay_delayed", payment_id=payment_id, rail=rail, error=str(error))

    async def _require_place(self, account_id: str, *, by_link: bool) -> int:
        """How many may be open. A look without the lock, so that a refusal costs the log nothing; the transaction decides."""
        most = self.limits.open_by_links if by_link else self.limits.open_per_account
        openings = await self.store.openings(account_id, self._clock(), by_link=by_link)
        if len(openings.until) >= most:
            raise TooManyOpenPayments(limit=most)
        return most

    async def retract(
        self, account_id: str, rail: str, *, key: str, wanted: int, pay_asset: str | None, job_id: str
    ) -> PaymentId | None:
        """What `open_topup` opened for a job, asked alike. None: nothing, and from now on it raises `PaymentRetracted`."""
        body = asked(account_id, rail, wanted, None, pay_asset, None, job_id)
        return await self._recorder.retract(key=key, body=body, account_id=account_id)

    async def open_request(self, payment_id: str) -> None:
        """Ask the rail for a payment request, unless there is one. Heals a crash between intent and answer."""
        opened = await self._open_request(payment_id)
        if opened and payment_of(await self._row(payment_id)).expired:
            # Another process has closed it while the rail was opening it: nobody else closes it there.
            await self._ask(payment_id, close, None)

    async def _open_request(self, payment_id: str) -> bool:
        """Whether the rail was asked."""
        async with self._lock(payment_id):
            place = await self.store.reference(payment_id)
            row = await self.store.payment(payment_id)
            kept = await self.store.instructions(payment_id)
            if place is None or row is None:
                raise PaymentNotFound
            payment = payment_of(row)
            if place.reference is not None or kept is None or payment.expired:
                return False
            facts = payment.facts()
            order = Order(
                payment_id=PaymentId(payment_id),
                account_id=AccountId(row["account_id"]),
                ordinal=place.ordinal,
                amount_due=facts.amount_due,
                description=kept.description,
                expires_at=facts.quote_expires_at,
                return_url=kept.return_url.replace("{payment_id}", payment_id),
                hold=facts.hold,
            )
            async with self._in_time(place.rail):
                instructions = await self._opening(place.rail, order, charged=facts.charged)
            digest = hashlib.sha256(instructions.reference.encode()).hexdigest()
            await self._recorder.issue(order, place.rail, instructions, digest)
        return True

    async def _opening(self, name: str, order: Order, *, charged: bool) -> Instructions:
        rail = self._rail(name)
        if not charged:
            return await rail.open(order)
        method = await self.store.method_of(order.payment_id)
        if method is None or not isinstance(rail, SavedMethods):
            raise MethodUnusable
        return await rail.charge(order, method)

    async def abandon(self, payment_id: str) -> None:
        """Give up a charge of which the rail has said that it was not and will not be made."""
        async with self._lock(payment_id):
            row = await self._row(payment_id)
            await self._recorder.run(payment_id, row, domain.GiveUpOpening(), actor="system:payments")

    # --- reading -------------------------------------------------------------------------------

    async def topup(self, payment_id: str) -> TopupView:
        """What is known about a payment. Raises `PaymentNotFound`."""
        return await self._view(await self._row(payment_id))

    async def attempts(self, payment_id: str) -> Sequence[TopupView]:
        """All attempts of the same top-up, oldest first."""
        root = (await self._row(payment_id))["root_id"]
        return [await self._view(row) for row in await self.store.attempts(root)]

    async def topups_of(self, account_id: str, limit: int = 50) -> Sequence[TopupView]:
        """An account's payments, newest first."""
        return [await self._view(row) for row in await self.store.of_account(account_id, min(limit, 200))]

    def rails(self) -> dict[str, Any]:
        """The body of `GET /v1/rails`."""
        return self._reach.rails_json()

    def prices(self, usd_minor: int) -> Sequence[tuple[str, Money]]:
        """What a price in US cents is now, by rail and asset, where that much can be paid."""
        return self._quoter.prices(self._rails.values(), self.health, usd_minor)

    def credit_prices(self, credits_: int) -> Sequence[CreditPrice]:
        """What so many credits cost now, by rail and asset, where they can be paid for."""
        return self._quoter.credit_prices(self._rails.values(), self.health, credits_)

    # --- news ----------------------------------------------------------------------------------

    async def observe(self, payment_id: str, hook: TransactionHook | None = None) -> TopupView:
        """Ask the rail what is so now, and write down what is new. May raise `RailUnavailable`."""
        await self._ask(payment_id, _observe, hook)
        await self._answered(payment_id)
        return await self.topup(payment_id)

    async def cancel(self, payment_id: str) -> TopupView:
        """Close an unpaid payment request, where the rail can. Money already there wins.

        What the rail has not opened yet is closed without it; a charge that may have been made is asked for first.
        """
        facts = payment_of(await self._row(payment_id)).facts()
        if facts.charged and self._clock() < facts.quote_expires_at:
            # It may be on its way to the rail: only after its time it can be known not to be made.
            known = await self.store.reference(payment_id)
            if known is not None and known.reference is None:
                return await self.topup(payment_id)
        elif facts.charged:
            with contextlib.suppress(MethodUnusable, ChargeLapsed):
                await self.open_request(payment_id)
        async with self._lock(payment_id):
            place = await self.store.reference(payment_id)
            if place is not None and place.reference is None:
                row = await self._row(payment_id)
                await self._recorder.run(payment_id, row, domain.GiveUpOpening(), actor="system:payments")
        await self._ask(payment_id, close, None)
        return await self.topup(payment_id)

    async def capture(self, payment_id: str, hook: TransactionHook | None = None) -> TopupView:
        """Take held money; its credits are granted, and `hook` decided, in one transaction."""
        await self._ask(payment_id, lambda rail, ref: holding(rail).capture(ref), hook)
        return await self.topup(payment_id)

    async def release(self, payment_id: str, hook: TransactionHook | None = None) -> TopupView:
        """Give held money back, or close the payment request if none has come."""
        await self._ask(payment_id, lambda rail, ref: holding(rail).release(ref), hook)
        return await self.topup(payment_id)

    async def expire(self, payment_id: str) -> TopupView:
        """The quote's time is over: close the payment request where the rail can, and say so."""
        view_now = await self.cancel(payment_id)
        if not view_now.expired:
            async with self._lock(payment_id):
                row = await self._row(payment_id)
                await self._recorder.run(payment_id, row, domain.ExpireQuote(), actor="system:payments")
            view_now = await self.topup(payment_id)
        return view_now

    async def accept_funds(
        self,
        payment_id: str,
        money_ref: str,
        actor: str,
        *,
        credits_: int | None = None,
        reason: str = "",
        key: CommandKey | None = None,
    ) -> TopupView:
        """Credit money that waits in suspense: at today's rate, because its payer agreed, or so many credits."""
        async with self._lock(payment_id):
            await self._recorder.accept(
                payment_id, money_ref, actor=actor, credits_=credits_, reason=reason, key=key
            )
        return await self.topup(payment_id)

    async def accept_notification(self, rail: str, headers: Mapping[str, str], body: bytes) -> int:
        """Verify and store a webhook; returns how many notifications were new. It is dealt with afterwards.

        Raises `UnknownRail`, `NoWebhooks` (both are "not found"), `NotificationRejected`, or `NotificationsFull`.
        """
        chosen = self._rail(rail)
        if not isinstance(chosen, Webhooks):
            raise NoWebhooks(rail=rail)
        try:
            notifications = verified(chosen, headers, body)
        except NotificationRejected as error:
            self.refused.note(rail, error)
            raise
        most = self.limits.notifications_waiting_max
        try:
            store = self.store.store_notification
            new = [await store(rail, found, self._clock(), most) for found in notifications]
        except TooManyWaiting:
            raise NotificationsFull from None
        self.notification_stored[rail].set()
        return sum(new)

    async def deal_with(self, rail: str, reference: str | None, seen: Observation | None = None) -> None:
        """Follow a notification. Raises `UnknownReference` if nothing of ours is known by that reference.

        `seen` is what the rail has seen already: then it is not asked.
        """
        if reference is None:
            await self.observe_pending(rail)
            return
        payment_id = await self.store.find(rail, reference)
        if payment_id is None:
            if self._elsewhere is None or not await self._elsewhere(rail, reference):
                raise UnknownReference(reference)
            return
        await self._ask(payment_id, _observe if seen is None else _brought(seen), None)
        await self._answered(payment_id)

    async def _answered(self, payment_id: str) -> None:
        """The rail has answered about it, whoever asked: nothing waits any more for being asked."""
        await self.store.resume(PaymentId(payment_id), RetryTask.OBSERVE)

    async def _look_into(self, payment_id: str) -> None:
        """Open what a crash left unopened, and ask what is so now. A charge is begun by whoever wants it alone."""
        if not payment_of(await self._row(payment_id)).facts().charged:
            await self.open_request(payment_id)
        await self._ask(payment_id, _observe, None)

    async def keep_notification(self, rail: str, notification: Notification) -> None:
        """Store a notification that could not be followed now.

        Without the message's id: by webhook the same message may have come before, have named nobody
        and be done with, and then this one would be lost as a repetition.
        """
        await self.store.store_notification(
            rail, Notification(reference=notification.reference), self._clock()
        )
        self.notification_stored[rail].set()

    async def _ask(
        self,
        payment_id: str,
        question: Callable[[Rail, str], Awaitable[Observation]],
        hook: TransactionHook | None,
    ) -> None:
        async with self._lock(payment_id):
            place = await self.store.reference(payment_id)
            if place is None:
                raise PaymentNotFound
            if place.reference is None and hook is not None:
                raise RailUnavailable("the payment request is not open yet")
            if place.reference is not None:
                asked_at = self._clock()
                async with self._in_time(place.rail):
                    observation = await question(self._rail(place.rail), place.reference)
                if observation.reference != place.reference:
                    raise RailProtocolError("the rail answered about another reference than was asked")
                known_at = observation.as_of or asked_at
                paid_job = await self._recorder.record(payment_id, observation, known_at, hook)
                if paid_job is not None and hook is None and not self.jobs_paid.full():
                    self.jobs_paid.put_nowait(paid_job)

    async def _root(self, account_id: str, attempt_of: str) -> str:
        if not is_identifier(attempt_of, "pay"):
            raise PaymentNotFound
        row = await self._row(attempt_of)
        if not await self.store.owns(account_id, row["account_id"]):
            raise PaymentNotFound
        return str(row["root_id"])

    async def _row(self, payment_id: str) -> Mapping[str, Any]:
        row = await self.store.payment(payment_id)
        if row is None:
            raise PaymentNotFound
        return row

    async def _view(self, row: Mapping[str, Any]) -> TopupView:
        kept = await self.store.instructions(row["payment_id"])
        payment: Payment = payment_of(row)
        counted = counting(self._rails.get(row["rail"]))
        return view(row["payment_id"], payment, row, (kept.shown or None) if kept else None, counted)

    @contextlib.asynccontextmanager
    async def _in_time(self, rail: str) -> AsyncIterator[None]:
        """A rail that does not answer in time is unavailable; and one that is unavailable is asked how it is."""
        try:
            async with in_time(self.limits.rail_timeout_seconds):
                yield
        except RailUnavailable:
            self.doubted[rail].set()
            raise

    def _rail(self, name: str) -> Rail:
        try:
            return self._rails[name]
        except KeyError:
            raise UnknownRail(rail=name) from None

    def _lock(self, payment_id: str) -> asyncio.Lock:
        lock = self._locks.get(payment_id)
        if lock is None:
            lock = self._locks[payment_id] = asyncio.Lock()
        return lock


async def _observe(rail: Rail, reference: str) -> Observation:
    return await rail.observe(reference)


def _brought(seen: Observation) -> Callable[[Rail, str], Awaitable[Observation]]:
    """What a notification brought, with its time; without one it would pass for newer than it is."""

    async def answer(rail: Rail, reference: str) -> Observation:
        return await rail.observe(reference) if seen.as_of is None else seen

    return answer


@contextlib.asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Raises `RailUnavailable` if what a rail is asked inside takes longer than these seconds."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise RailUnavailable("the rail did not answer in time") from error
