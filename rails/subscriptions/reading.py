"""What a rail's answer about a subscription means for its account. Pure.

The answer is compared with what the account knows, so that the same news may come twice, late, in any
order, or not at all and later wholesale. Money alone brings a period or a larger plan; what is only said
(another plan at the provider, without a paid invoice) never grants anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from ledger.domain.commands import (
    CancelSubscription,
    ChangePlan,
    Command,
    EndSubscription,
    ResumeSubscription,
)
from ledger.domain.state import Account, Subscription
from ledger.domain.subscriptions import credits_of_rest, credits_of_upgrade
from ledger.money import Money
from ledger.plans import FREE, Plan
from rails.domain.invoiced import ChangeInvoiced, PeriodInvoiced
from rails.recurring import Invoice, InvoiceLine, Offer, SubscriptionObservation, SubscriptionStatus

Plans = Mapping[str, Plan]
_ENDS = (SubscriptionStatus.ENDED, SubscriptionStatus.UNPAID, SubscriptionStatus.EXPIRED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodBought:
    """An invoice pays for a period of a plan."""

    offer: Offer
    starts_at: datetime
    ends_at: datetime
    rest_credited: bool = False
    """What was left of the period before is credited on the same invoice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBought:
    """An invoice pays for a larger plan for the rest of a period."""

    offer: Offer
    at: datetime
    """From when on that rest is charged for."""


Bought = PeriodBought | PlanBought


def bought(invoice: Invoice, plans: Plans) -> Sequence[Bought]:
    """What an invoice brings once it is paid; nothing if it is for nothing of ours.

    Each whole period of each plan on it is one. Parts of periods are a change of plan; with a whole period
    beside them they belong to that one's price.
    """
    # A period that costs nothing is a trial set at the provider: nothing was paid for it.
    lines = [line for line in invoice.lines if _is_of(line, plans) and line.amount_minor > 0]
    whole = [line for line in lines if not line.proration]
    if whole:
        latest = sorted(whole, key=lambda line: line.starts_at, reverse=True)
        credited = any(line.proration and line.amount_minor < 0 for line in invoice.lines)
        return [_period(line, credited) for line in latest if line.ends_at > line.starts_at]
    if not lines:
        return []
    largest = max(lines, key=lambda line: _rank(line.offer, plans))
    assert largest.offer is not None
    return [PlanBought(offer=largest.offer, at=largest.starts_at)]


def overage_of(invoice: Invoice) -> tuple[int, int]:
    """Credits used beyond a plan that an invoice bills, and how much of its price is for them."""
    lines = [line for line in invoice.lines if line.overage_credits > 0]
    credits_ = sum(line.overage_credits for line in lines)
    asked = sum(line.amount_minor for line in invoice.lines if line.amount_minor > 0)
    for_them = sum(line.amount_minor for line in lines)
    return credits_, invoice.price.minor * for_them // asked if asked else 0


def as_billed(plans: Plans, overage: Money | None) -> Plans:
    """The plans as a subscription has them: what is used beyond is sold where the rail bills it, at the rail's price."""
    return {
        name: msgspec.structs.replace(plan, overage_usd_minor=overage.minor)
        if overage is not None and plan.overage_limit
        else plan.cut_off()
        for name, plan in plans.items()
    }


def _is_of(line: InvoiceLine, plans: Plans) -> bool:
    return line.offer is not None and line.offer.plan in plans


def _rank(offer: Offer | None, plans: Plans) -> int:
    return -1 if offer is None else plans[offer.plan].rank


def _period(line: InvoiceLine, credited: bool) -> PeriodBought:
    assert line.offer is not None
    return PeriodBought(
        offer=line.offer, starts_at=line.starts_at, ends_at=line.ends_at, rest_credited=credited
    )


def starts_at_once(present: Offer, wanted: Offer, plans: Plans) -> bool:
    """Whether a change can begin now: neither the plan nor the length is a smaller one.

    Anything else begins with the next period, so that no money has to be sent back.
    """
    rank = plans[present.plan].rank if present.plan in plans else -1
    return plans[wanted.plan].rank >= rank and wanted.months >= present.months


def invoiced_period(
    name: str, what: PeriodBought, known: Subscription | None, plans: Plans
) -> PeriodInvoiced:
    """The period as it was sold for its length; less what was credited of the one within which it begins."""
    plan = plans[what.offer.plan].sold_for(what.offer.months)
    if what.rest_credited and known is not None and plan.period != "day":
        left = plan.credits - credits_of_rest(known, what.starts_at)
        plan = msgspec.structs.replace(plan, credits=max(0, left))
    return PeriodInvoiced(subscription_id=name, plan=plan, starts_at=what.starts_at, ends_at=what.ends_at)


def invoiced_change(name: str, what: PlanBought, known: Subscription, plans: Plans) -> ChangeInvoiced | None:
    """The larger plan for the rest of the period that is charged for; None if it is not a larger one.

    However late its payment is heard of, it brings the credits that were shown when it was asked for.
    """
    current, target = _present(known, plans), plans[what.offer.plan]
    if target.rank <= current.rank:
        return None
    current, target = (plan.sold_for(what.offer.months) for plan in (current, target))
    more = credits_of_upgrade(known, current, target, what.at)
    return ChangeInvoiced(subscription_id=name, current=current, target=target, credits=more, at=what.at)


def _present(known: Subscription, plans: Plans) -> Plan:
    """The plan of the newest period; as it was sold, if the catalogue has it no more."""
    sold = (terms for name, terms in (period.brings for period in known.periods) if name == known.plan)
    return plans.get(known.plan) or next(sold, None) or plans[FREE]


def credits_at_once(
    known: Subscription | None, present: Offer, wanted: Offer, plans: Plans, at: datetime
) -> int:
    """Credits that a change brings at once."""
    if known is None:
        return 0
    target = plans[wanted.plan].sold_for(wanted.months)
    if target.period == "day":
        return 0
    if wanted.length != present.length:
        return max(0, target.credits - credits_of_rest(known, at))
    return credits_of_upgrade(known, _present(known, plans).sold_for(wanted.months), target, at)


def changes(account: Account, seen: SubscriptionObservation, plans: Plans) -> Sequence[Command]:
    """What the account has to be told beside what was paid: an end, a cancellation, a smaller plan to come."""
    known = account.status.find_subscription(seen.subscription_id)
    if known is None or known.ended_at is not None:
        return []
    name = known.subscription_id
    if seen.status in _ENDS:
        return [EndSubscription(subscription_id=name, reason=seen.status.value)]
    if seen.cancels:
        return [] if known.cancels else [CancelSubscription(subscription_id=name)]
    smaller = _smaller(known, seen, plans)
    if smaller is None:
        scheduled = known.cancels or known.next_plan
        return [ResumeSubscription(subscription_id=name)] if scheduled else []
    if known.next_plan == smaller.name and not known.cancels:
        return []
    current = plans[known.plan]
    return [ChangePlan(subscription_id=name, current=current, target=smaller, lot_id="")]


def _smaller(known: Subscription, seen: SubscriptionObservation, plans: Plans) -> Plan | None:
    """The smaller plan that comes after the period: scheduled there, or put on at once.

    A larger one comes with the invoice that pays for it, whatever is said before.
    """
    offer, current = seen.next_offer or seen.offer, plans.get(known.plan)
    target = None if offer is None else plans.get(offer.plan)
    if target is None or current is None or target.rank >= current.rank:
        return None
    return target
