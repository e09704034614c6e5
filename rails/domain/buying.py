"""What the events of a payment for a pack, a pass or a plan mean for its account, invoiced or not. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import msgspec

from ledger.domain.commands import (
    Command,
    GrantCredits,
    LoseDispute,
    PayPeriod,
    RestorePeriod,
    RestoreReversal,
    RevokePeriod,
    StopEarning,
)
from ledger.domain.consideration import NOTHING, Consideration
from ledger.domain.granting import pack_grant
from ledger.domain.lots import Source, find
from ledger.domain.periods import months_after
from ledger.domain.prepaying import next_period
from ledger.domain.state import Account
from ledger.log.model import Event
from rails.domain import events
from rails.domain.crediting import bringing, ledger_commands, paid, reverse
from rails.domain.invoiced import ChangeInvoiced, PeriodInvoiced
from rails.domain.overage import billing
from rails.domain.purchases import PackSold, PlanSold
from rails.domain.state import Payment


class _Together(Event, frozen=True):
    """The receipts that bought one thing. Never stored."""

    receipts: tuple[events.PaymentSettled, ...]


def one_by_one(happened: Sequence[Event]) -> Iterator[Event]:
    """What happened, with the receipts that buy one thing as one, and what is left over beside them apart."""
    lots = [
        event.bought.lot_id for event in happened if isinstance(event, events.PaymentSettled) and event.bought
    ]
    for event in happened:
        if not isinstance(event, events.PaymentSettled) or event.bought is None:
            yield event
            continue
        lot_id = event.bought.lot_id
        if lot_id in lots:
            lots = [other for other in lots if other != lot_id]
            receipts = (e for e in happened if isinstance(e, events.PaymentSettled) and e.bought)
            yield _Together(tuple(e for e in receipts if e.bought and e.bought.lot_id == lot_id))
        if event.plain_credits:
            worth = event.worth - event.bought.worth
            yield msgspec.structs.replace(event, credits=event.plain_credits, worth=worth, bought=None)


def purchase_commands(
    payment_id: str, payment: Payment, event: Event, account: Account, now: datetime
) -> Sequence[Command]:
    """The ledger's side of one event, of those that `one_by_one` gives."""
    rail = payment.facts().rail
    match event:
        case _Together(receipts=receipts):
            return [_bought(payment_id, payment, receipts, account, now)]
        case events.PaymentSettled(bought=None) if _bills_use(payment):
            return billing(payment_id, rail, event, account.status.overage_owed)
        case events.PaymentReversed() | events.DisputeOpened():
            cause = "dispute" if isinstance(event, events.DisputeOpened) else "reversal"
            taken = [_take(payment_id, payment, part, cause, event, account) for part in event.parts]
            return [*taken, *_revoked(payment_id, payment)]
        case events.DisputeWon(parts=parts):
            won = [_won(payment_id, payment, part, event, account) for part in parts]
            return [*won, *_restored(payment_id, payment)]
        case events.DisputeLost(reversal_ids=ids):
            known = {dispute.reversal_id for dispute in account.status.disputes}
            return [LoseDispute(reversal_id=reversal_id) for reversal_id in ids if reversal_id in known]
        case events.PaymentReinstated() if payment.receipts[event.money_ref].bought is not None:
            return [*_reinstated(payment_id, payment, event, now), *_restored(payment_id, payment)]
        case events.RefundReturned():
            return [*ledger_commands(payment_id, rail, event), *_restored(payment_id, payment)]
        case _:
            return ledger_commands(payment_id, rail, event)


def _bills_use(payment: Payment) -> bool:
    """Whether what is beside the plan is for what was used beyond it."""
    invoiced = payment.facts().invoiced
    return invoiced is not None and invoiced.overage_credits > 0


def _bought(
    payment_id: str,
    payment: Payment,
    receipts: Sequence[events.PaymentSettled],
    account: Account,
    now: datetime,
) -> Command:
    facts, parts = payment.facts(), [event.bought for event in receipts if event.bought is not None]
    worth = sum((part.worth for part in parts), start=NOTHING)
    money = paid(payment_id, facts.rail, receipts[0].rate, worth)
    if facts.invoiced is not None:
        return bringing(facts.invoiced, parts[0].lot_id, money)
    match facts.purchase:
        case PlanSold(plan=plan, months=months, subscription_id=subscription_id):
            start, end = next_period(account, plan, months, now)
            return PayPeriod(
                subscription_id=subscription_id,
                plan=plan,
                period_start=start,
                period_end=end,
                lot_id=parts[0].lot_id,
                consideration=money,
            )
        case PackSold(pack=pack):
            return pack_grant(pack, parts[0].lot_id, money, now)
        case None:
            raise AssertionError("a payment for plain credits buys nothing else")


def _take(
    payment_id: str,
    payment: Payment,
    part: events.TakenPart,
    cause: str,
    event: events.PaymentReversed | events.DisputeOpened,
    account: Account,
) -> Command:
    """Of a plan with daily credits no more is earned; what had been earned, or was stopped before, is our loss."""
    earns = any(schedule.schedule_id == part.lot_id for schedule in account.status.schedules)
    if part.bought and not part.credits and earns:
        return StopEarning(schedule_id=part.lot_id, worth=part.worth)
    return reverse(payment_id, payment.facts().rail, part, cause, event.taken.asset)


def _won(
    payment_id: str, payment: Payment, part: events.RestoredPart, event: events.DisputeWon, account: Account
) -> Command:
    is_known = any(dispute.reversal_id == part.reversal_id for dispute in account.status.disputes)
    rate, name = payment.receipts[event.money_ref].rate, _period_of(payment)
    if is_known or rate is None or name is None:
        return RestoreReversal(reversal_id=part.reversal_id, lot_id=part.lot_id)
    return RestorePeriod(
        subscription_id=name,
        payment_id=payment_id,
        schedule_id=part.lot_id,
        consideration=paid(payment_id, payment.facts().rail, rate, part.worth),
    )


def _reinstated(
    payment_id: str, payment: Payment, event: events.PaymentReinstated, now: datetime
) -> Sequence[Command]:
    """Money that was credited, went and came back: it brings again what it brought, with a whole life."""
    facts, name = payment.facts(), _period_of(payment)
    money = paid(payment_id, facts.rail, event.rate, event.worth)
    if name is not None and not event.credits:
        restore = RestorePeriod(
            subscription_id=name, payment_id=payment_id, schedule_id=event.lot_id, consideration=money
        )
        return [restore]
    match facts.purchase or facts.invoiced:
        case PeriodInvoiced(plan=plan, starts_at=starts_at, ends_at=ends_at):
            over = now + (ends_at - starts_at) + timedelta(seconds=plan.grace_seconds)
            return [_again(event, money, Source.RESTORED, over)]
        case ChangeInvoiced(target=plan):
            over = months_after(now, 1) + timedelta(seconds=plan.grace_seconds)
            return [_again(event, money, Source.RESTORED, over)]
        case PlanSold(plan=plan, months=months):
            over = months_after(now, months) + timedelta(seconds=plan.grace_seconds)
            return [_again(event, money, Source.RESTORED, over)]
        case PackSold(pack=pack) if pack.lasts_seconds is not None:
            return [_again(event, money, Source.PASS, now + timedelta(seconds=pack.lasts_seconds))]
        case _:
            return ledger_commands(payment_id, facts.rail, event)


def _again(
    event: events.PaymentReinstated, money: Consideration, source: Source, expires_at: datetime
) -> Command:
    return GrantCredits(
        lot_id=event.lot_id,
        credits=event.credits,
        source=source,
        consideration=money,
        reference=money.payment_id,
        expires_at=expires_at,
    )


def _period_of(payment: Payment) -> str | None:
    """The subscription of which the payment buys a period, or a larger plan for its rest; None if neither."""
    facts = payment.facts()
    match facts.purchase or facts.invoiced:
        case (
            PlanSold(subscription_id=name)
            | PeriodInvoiced(subscription_id=name)
            | ChangeInvoiced(subscription_id=name)
        ):
            return name
        case _:
            return None


def _money_is_gone(payment: Payment) -> bool:
    """Whether everything that bought the plan has gone back: taken from us, or sent back by us before."""
    receipts = [receipt for receipt in payment.receipts.values() if receipt.bought is not None]
    gone = (r.taken_minor + r.refunded_minor >= r.amount.minor for r in receipts)
    return all(gone) and bool(receipts)


def _revoked(payment_id: str, payment: Payment) -> Sequence[Command]:
    name = _period_of(payment)
    if name is None or not _money_is_gone(payment):
        return []
    return [RevokePeriod(subscription_id=name, payment_id=payment_id)]


def ended_by_refund(payment_id: str, payment: Payment, lot_id: str, account: Account) -> Sequence[Command]:
    """What follows from a refund that was sent: a plan ends with the last of its unspent credits."""
    name = _period_of(payment)
    lots = [receipt.bought.lot_id for receipt in payment.receipts.values() if receipt.bought is not None]
    if name is None or lot_id not in lots or find(account.lots, lot_id) is not None:
        return []
    return [RevokePeriod(subscription_id=name, payment_id=payment_id)]


def _restored(payment_id: str, payment: Payment) -> Sequence[Command]:
    name = _period_of(payment)
    if name is None or _money_is_gone(payment):
        return []
    return [RestorePeriod(subscription_id=name, payment_id=payment_id)]
