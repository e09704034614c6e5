"""What is mailed for what happens: from an event to a letter, pure, and its row in the event's own transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from ledger.domain.consideration import total
from ledger.domain.events import (
    PeriodRestored,
    PeriodRevoked,
    RefundFailed,
    RefundSent,
    SubscriptionRenewed,
    SubscriptionStarted,
    UsageWarned,
)
from ledger.domain.prepaying import PREFIX
from ledger.domain.state import MARKS, Account
from ledger.domain.usage import subscription_of_usage
from ledger.domain.view import plan_in_force
from ledger.log.model import Event, UnitOfWork
from ledger.plans import Plan, label_of
from mail.domain import letters
from mail.outbox import drop, put, put_later
from rails.domain.events import PaymentOpened, PaymentSettled
from rails.domain.invoiced import ChangeInvoiced, OverageInvoiced, PeriodInvoiced
from rails.domain.state import Payment
from rails.recurring import SubscriptionStatus
from rails.subscriptions.record import SubscriptionRecord

REMINDED_BEFORE = timedelta(days=3)
"""So long before the end of what is paid ahead its owner is reminded."""


def on_payment_event(uow: UnitOfWork, stream: str, version: int, event: Event, payment: Payment) -> None:
    """See `Category.on_event`: a receipt for money that was credited."""
    facts = payment.facts()
    # A payment for one image alone has that image's page; who pays so pays often, and each time a little.
    if not isinstance(event, PaymentSettled) or facts.job_id is not None:
        return
    label, until = bought(facts, event)
    if not event.credits and not label:
        return
    parts = event.breakdown
    receipt = letters.Receipt(
        payment_id=stream,
        amount_minor=event.amount.minor,
        tax_minor=event.worth.tax_minor,
        asset=event.amount.asset.code,
        usd_minor=event.worth.usd_minor + event.worth.tax_usd_minor,
        credits=_brought(facts, event),
        rail=facts.rail,
        paid_at=uow.now,
        label=label,
        until=until,
        price_minor=event.amount.minor if parts is None else parts.price_minor,
        discount_minor=0 if parts is None else parts.discount_minor,
        tax_on_top_minor=0 if parts is None else parts.tax_on_top_minor,
    )
    put(uow, receipt, account_id=facts.account_id, cause=f"{stream}:{version}")


def _brought(facts: PaymentOpened, event: PaymentSettled) -> int:
    """Credits that are there now: what was used beyond a plan is not."""
    if facts.invoiced is None or not facts.invoiced.overage_credits:
        return event.credits
    return 0 if event.bought is None else event.bought.credits


def bought(facts: PaymentOpened, event: PaymentSettled) -> tuple[str, datetime | None]:
    """What money bought, in the words of its page, and until when; nothing where it is plain credits."""
    match facts.invoiced:
        case PeriodInvoiced(plan=plan, ends_at=ends_at, overage_credits=beyond):
            used = f", and {beyond:,} credits used beyond the plan" if beyond else ""
            return f"{plan.label}{used}", ends_at
        case ChangeInvoiced(target=target):
            return target.label, None
        case OverageInvoiced(overage_credits=beyond):
            return f"{beyond:,} credits used beyond the plan", None
        case None:
            return (
                ("", None) if facts.purchase is None or event.bought is None else (facts.purchase.label, None)
            )


def on_subscription_change(
    plans: Mapping[str, Plan],
    uow: UnitOfWork,
    account_id: str,
    before: SubscriptionRecord,
    after: SubscriptionRecord,
) -> None:
    """What a rail says of a subscription, when it is written down: somebody is told if a renewal was not paid."""
    failed = SubscriptionStatus.PAST_DUE
    if after.status is not failed or before.status is failed:
        return
    letter = letters.PaymentFailed(
        subscription_id=after.subscription_id,
        plan_label=label_of(after.plan, plans),
        next_attempt_at=after.next_attempt_at,
    )
    period = "" if after.period_end is None else after.period_end.isoformat()
    put(uow, letter, account_id=account_id, cause=f"{after.subscription_id}:{period}")


def on_account_event(uow: UnitOfWork, stream: str, version: int, event: Event, account: Account) -> None:
    """See `Category.on_event`: how a refund of ours ended."""
    match event:
        case RefundSent():
            letter: letters.AnyLetter = letters.RefundSent(
                refund_id=event.refund_id,
                amount_minor=event.amount_minor,
                asset=event.asset,
                credits=total(event.slices),
                rail=event.rail,
                sent_at=uow.now,
            )
        case RefundFailed():
            letter = letters.RefundFailed(refund_id=event.refund_id, credits=total(event.returned))
        case SubscriptionStarted() | SubscriptionRenewed() | PeriodRevoked() | PeriodRestored():
            if event.subscription_id.startswith(PREFIX):
                _remind(uow, stream, event.subscription_id, account)
            return
        case UsageWarned():
            reached = usage_reached(event, account, uow.now)
            if reached is not None:
                put(uow, reached, account_id=stream, cause=f"{stream}:{version}")
            return
        case _:
            return
    put(uow, letter, account_id=stream, cause=f"{stream}:{version}")


def usage_reached(event: UsageWarned, account: Account, now: datetime) -> letters.UsageReached | None:
    """The letter for a mark of a paid period, if one is sent.

    None for a day's allowance, which would be a letter every day; of two marks that one image crosses together
    only the last is mailed.
    """
    next_mark = min((mark for mark in MARKS if mark > event.percent), default=None)
    if next_mark is not None and event.used * 100 >= event.granted * next_mark:
        return None
    subscription = subscription_of_usage(account)
    if subscription is None or event.period != account.usage.period or subscription.newest_until <= now:
        return None
    plan = plan_in_force(account, now)
    return letters.UsageReached(
        plan_label=plan.label,
        percent=event.percent,
        used=event.used,
        granted=event.granted,
        ends_at=subscription.newest_until,
        overage_left=max(0, plan.overage_limit - max(account.usage.overage, account.status.overage_owed)),
        overage_usd_minor=plan.overage_usd_minor,
    )


def _remind(uow: UnitOfWork, account_id: str, subscription_id: str, account: Account) -> None:
    """One reminder for each account, ahead of the end of all that is paid ahead: paying again moves it."""
    subscription = account.status.find_subscription(subscription_id)
    bringing = [] if subscription is None else [p for p in subscription.periods if p.revoked_at is None]
    last = max(bringing, key=lambda period: period.until, default=None)
    if last is None or last.until <= uow.now:
        drop(uow, letters.PlanEnds, cause=account_id)
        return
    label = last.plan if last.terms is None else last.terms.label
    letter = letters.PlanEnds(plan=last.plan, label=label, ends_at=last.until)
    due_at = max(uow.now, last.until - REMINDED_BEFORE)
    put_later(uow, letter, account_id=account_id, cause=account_id, due_at=due_at)
