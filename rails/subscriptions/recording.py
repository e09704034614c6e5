"""Writing down what a rail says about a subscription: payments, periods, changes and the row, in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial

import msgspec

from ledger.domain.account import decide as decide_account
from ledger.domain.state import Account
from ledger.identifiers import CommandKey, Identifiers, PaymentId, encode_crockford, is_identifier
from ledger.log.model import LogWriter, Transaction, UnitOfWork
from ledger.money import USD, Money
from ledger.plans import Plan
from rails.contract import Instructions, Observation
from rails.domain import events
from rails.domain.crediting import PaymentAccountMoved, bringing
from rails.domain.invoiced import Invoiced, OverageInvoiced
from rails.domain.openings import NoPlaceLeft, Openings, take_or_free
from rails.domain.overage import written_off
from rails.domain.pricing import PACK, credits_down
from rails.domain.reading import lots_needed_max
from rails.payments.recording import following_merges
from rails.payments.unasked import Unasked, open_unasked
from rails.quotes.rates import rate_to_usd
from rails.recurring import Invoice, SubscriptionObservation, SubscriptionStatus
from rails.store.tables import MONEY_TABLE, OPENING_TABLE, ORDINAL_TABLE, SUBSCRIPTION_TABLE
from rails.subscriptions.reading import (
    Bought,
    PeriodBought,
    PlanBought,
    as_billed,
    bought,
    changes,
    invoiced_change,
    invoiced_period,
    overage_of,
)
from rails.subscriptions.record import PREFIX, SubscriptionRecord, record_of, with_observation
from rails.subscriptions.refusals import SubscriptionUnknown

Changed = Callable[[UnitOfWork, str, SubscriptionRecord, SubscriptionRecord], None]
"""What others want written down with a change of a subscription: the account, and how it stood and stands."""
_RANDOM_BITS = 80
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidInvoice:
    """An invoice that was paid, and the money of it as the rail has it now."""

    payment_id: PaymentId
    invoice: Invoice
    money: Observation


def payment_id_of(rail: str, invoice: Invoice) -> PaymentId:
    """The payment that an invoice is: it follows from the invoice, so that whoever sees it first opens the same."""
    milliseconds = (invoice.created_at - _EPOCH) // timedelta(milliseconds=1)
    digest = hashlib.sha256(f"{rail}:{invoice.reference}".encode()).digest()
    tail = int.from_bytes(digest[:10], "big")
    return PaymentId(f"pay_{encode_crockford(milliseconds << _RANDOM_BITS | tail)}")


class SubscriptionRecorder:
    """Turns answers about subscriptions into transactions."""

    def __init__(
        self, *, log: LogWriter, ids: Identifiers, plans: Mapping[str, Plan], changed: Changed | None = None
    ) -> None:
        self._log = log
        self._ids = ids
        self._plans = plans
        self._changed = changed

    async def open(self, opened: SubscriptionRecord, *, key: str | None, pages_max: int) -> str:
        """Store the intent to subscribe; returns the id of the first that came with this key.

        Raises `NoPlaceLeft`, and nothing is recorded, if the account has as many pages open as it may.
        """

        def decide(uow: UnitOfWork) -> str:
            places = Openings.of(opened.account_id, uow.get(OPENING_TABLE, opened.account_id), uow.now)
            if sum(is_identifier(name, PREFIX) for name in places.until) >= pages_max:
                raise NoPlaceLeft
            _put(uow, opened)
            return opened.subscription_id

        body = ["subscribe", opened.account_id, opened.rail, opened.plan, opened.length]
        receipt = await self._log.submit(
            Transaction(
                key=self._ids.command() if key is None else CommandKey(key),
                actor=opened.account_id,
                body=body,
                streams=(),
                rows=((OPENING_TABLE, opened.account_id),),
                decide=decide,
            )
        )
        return str(receipt.result)

    async def issue(self, record: SubscriptionRecord, page: Instructions) -> None:
        """The page is open: remember it."""
        await self.put(
            replace(
                record,
                page_reference=page.reference,
                page_url=page.url,
                due_at=record.page_expires_at + timedelta(minutes=5),
            )
        )

    async def put(self, record: SubscriptionRecord) -> None:
        """Write the row, unless more is known meanwhile."""

        def decide(uow: UnitOfWork) -> None:
            row = uow.get(SUBSCRIPTION_TABLE, record.subscription_id)
            if row is not None and record_of(row).asked_at <= record.asked_at:
                _put(uow, record)

        await self._log.submit(
            Transaction(
                key=self._ids.command(),
                actor=f"rail:{record.rail}",
                body=["subscription", record.subscription_id, record.status.value],
                streams=(),
                rows=((SUBSCRIPTION_TABLE, record.subscription_id), (OPENING_TABLE, record.account_id)),
                decide=decide,
            )
        )

    def is_news(
        self,
        before: SubscriptionRecord,
        after: SubscriptionRecord,
        seen: SubscriptionObservation,
        news: Sequence[PaidInvoice],
        account: Account,
    ) -> bool:
        """Whether there is anything to write down. When it was asked, and is asked next, is only kept with more."""
        same = replace(after, asked_at=before.asked_at, due_at=before.due_at)
        return bool(news) or same != before or bool(changes(account, seen, self._plans))

    async def record(
        self,
        record: SubscriptionRecord,
        seen: SubscriptionObservation,
        news: Sequence[PaidInvoice],
        asked_at: datetime,
    ) -> None:
        """Payments, periods, changes of the account, and the row; all or nothing."""
        await following_merges(
            record.account_id, lambda account_id: self._submit(record, account_id, seen, news, asked_at)
        )

    async def _submit(
        self,
        record: SubscriptionRecord,
        account_id: str,
        seen: SubscriptionObservation,
        news: Sequence[PaidInvoice],
        asked_at: datetime,
    ) -> None:
        lots = {
            paid.payment_id: tuple(self._ids.lot() for _ in range(1 + lots_needed_max(paid.money)))
            for paid in news
        }

        def decide(uow: UnitOfWork) -> None:
            row = uow.get(SUBSCRIPTION_TABLE, record.subscription_id)
            if row is None:
                raise SubscriptionUnknown
            known = record_of(row)
            into = uow.state(account_id).status.merged_into
            if into:
                raise PaymentAccountMoved(into=into)
            for paid in news:
                self._book(
                    uow,
                    account_id,
                    known,
                    paid,
                    lots[paid.payment_id],
                    asked_at,
                    as_billed(self._plans, seen.overage),
                )
            if asked_at >= known.asked_at:
                for command in changes(uow.state(account_id), seen, self._plans):
                    uow.append(account_id, decide_account(uow.state(account_id), command, uow.now))
            after = with_observation(known, seen, asked_at)
            _put(uow, after)
            if self._changed is not None:
                self._changed(uow, account_id, known, after)

        money = [receipt.money_ref for paid in news for receipt in paid.money.receipts]
        await self._log.submit(
            Transaction(
                key=self._ids.command(),
                actor=f"rail:{record.rail}",
                body=["observed", record.subscription_id, account_id],
                streams=(account_id, *(paid.payment_id for paid in news)),
                rows=(
                    (SUBSCRIPTION_TABLE, record.subscription_id),
                    (OPENING_TABLE, record.account_id),
                    *(((ORDINAL_TABLE, record.rail),) if news else ()),
                    *((MONEY_TABLE, money_ref) for money_ref in money),
                ),
                decide=decide,
            )
        )

    def _book(
        self,
        uow: UnitOfWork,
        account_id: str,
        record: SubscriptionRecord,
        paid: PaidInvoice,
        lots: Sequence[str],
        asked_at: datetime,
        plans: Mapping[str, Plan],
    ) -> None:
        """What one paid invoice brings, unless it has brought it before."""
        if uow.state(paid.payment_id).opened is not None:
            return
        name, what = record.subscription_id, bought(paid.invoice, plans)
        account: Account = uow.state(account_id)
        first, others = (what[0] if what else None), what[1:]
        if paid.money.receipts:
            invoiced = _with_use(_invoiced(account, name, first, plans), name, paid.invoice)
            found = Unasked(
                payment_id=paid.payment_id,
                account_id=account_id,
                rail=record.rail,
                money=paid.money,
                asked_at=asked_at,
                lot_ids=lots[1:],
            )
            open_unasked(
                uow, found, partial(_facts, account_id, record.rail, paid.invoice, invoiced, asked_at)
            )
        elif first is not None:
            # Paid out of what the rail kept for the payer: there is no money that could go back.
            others = what
        for place, more in enumerate(others):
            lot_id = f"{lots[0]}_{place}" if place else lots[0]
            _bring(uow, account_id, _invoiced(uow.state(account_id), name, more, plans), lot_id)
        if not paid.money.receipts:
            owed = uow.state(account_id).status.overage_owed
            for command in written_off(record.rail, overage_of(paid.invoice)[0], owed):
                uow.append(account_id, decide_account(uow.state(account_id), command, uow.now))


def _bring(uow: UnitOfWork, account_id: str, invoiced: Invoiced | None, lot_id: str) -> None:
    """What was paid for without money of its own, unless the account has it."""
    if invoiced is not None:
        command = bringing(invoiced, lot_id, None)
        uow.append(account_id, decide_account(uow.state(account_id), command, uow.now))


def _invoiced(account: Account, name: str, what: Bought | None, plans: Mapping[str, Plan]) -> Invoiced | None:
    """What the account takes for the money. None: plain credits, so that money never buys nothing."""
    known = account.status.find_subscription(name)
    match what:
        case PeriodBought() if known is None or not known.has_granted(what.starts_at):
            return invoiced_period(name, what, known, plans)
        case PlanBought() if known is not None and known.ended_at is None:
            return invoiced_change(name, what, known, plans)
        case _:
            return None


def _with_use(invoiced: Invoiced | None, name: str, invoice: Invoice) -> Invoiced | None:
    """With what the invoice bills of what was used beyond the plan."""
    credits_, minor = overage_of(invoice)
    if not credits_:
        return invoiced
    if invoiced is not None:
        return msgspec.structs.replace(invoiced, overage_credits=credits_, overage_minor=minor)
    # Whatever else is on it brings nothing here: its money is for plain credits, as without what was used.
    par = rate_to_usd(Fraction(1), USD)
    more = credits_down(Money(invoice.price.minor - minor, USD), par, PACK)
    return OverageInvoiced(
        subscription_id=name, overage_credits=credits_ + more, overage_minor=invoice.price.minor
    )


def _put(uow: UnitOfWork, record: SubscriptionRecord) -> None:
    """Write the row. An open page takes one of the places of the account's open payment requests."""
    uow.put(SUBSCRIPTION_TABLE, record.to_row())
    page = {
        "payment_id": record.subscription_id,
        "quote_expires_at": record.page_expires_at,
        "unpaid": record.status is SubscriptionStatus.OPENING,
    }
    take_or_free(uow, OPENING_TABLE, record.account_id, page)


def _facts(
    account_id: str, rail: str, invoice: Invoice, invoiced: Invoiced | None, asked_at: datetime, ordinal: int
) -> events.PaymentOpened:
    """The intent, as the rail had it: the money of an invoice is there when we first see it."""
    par = rate_to_usd(Fraction(1), USD)
    bought_for_it = credits_down(invoice.price, par, PACK) if invoiced is None else invoiced.credits
    return events.PaymentOpened(
        account_id=account_id,
        rail=rail,
        ordinal=ordinal,
        amount_due=invoice.price,
        credits=bought_for_it,
        price=PACK,
        rate=par,
        rate_source="par",
        quote_expires_at=max(asked_at, invoice.created_at),
        invoiced=invoiced,
    )
