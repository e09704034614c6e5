"""What the events of a payment for credits mean for its account. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from ledger.domain.commands import (
    ChangePlan,
    Command,
    GrantCredits,
    LoseDispute,
    PayPeriod,
    RestoreReversal,
    ReverseCredits,
)
from ledger.domain.consideration import Consideration, Worth
from ledger.domain.lots import Source
from ledger.errors import Refusal
from ledger.log.model import Event
from ledger.money import Asset, Rate
from rails.domain import events
from rails.domain.invoiced import ChangeInvoiced, Invoiced, OverageInvoiced, PeriodInvoiced

MERGES_MAX = 32
"""A guest merged into an account that was merged … more hops than this are a fault."""


class TooManyMerges(Exception):
    """An account was merged into one that was merged, and so on, further than we follow."""


class PaymentAccountMoved(Refusal):
    """Details: `into`."""

    code = "payment_account_moved"
    message = "The account of this payment has been merged into another."


def ledger_commands(payment_id: str, rail: str, event: Event) -> Sequence[Command]:
    """The ledger's side of one event of a payment for credits. Pure."""
    match event:
        case events.PaymentSettled() | events.PaymentReinstated():
            return [_grant(payment_id, rail, event)] if event.credits else []
        case events.RefundReturned():
            return [_grant_again(payment_id, rail, event)] if event.credits else []
        case events.PaymentReversed(parts=parts, taken=taken):
            return [reverse(payment_id, rail, part, "reversal", taken.asset) for part in parts]
        case events.DisputeOpened(parts=parts, taken=taken):
            return [reverse(payment_id, rail, part, "dispute", taken.asset) for part in parts]
        case events.DisputeWon(parts=restored):
            return [RestoreReversal(reversal_id=part.reversal_id, lot_id=part.lot_id) for part in restored]
        case events.DisputeLost(reversal_ids=reversal_ids):
            return [LoseDispute(reversal_id=reversal_id) for reversal_id in reversal_ids]
        case _:
            return []


def bringing(invoiced: Invoiced, lot_id: str, money: Consideration | None) -> Command:
    """What something that was invoiced and paid means for the account. Pure."""
    match invoiced:
        case PeriodInvoiced():
            return PayPeriod(
                subscription_id=invoiced.subscription_id,
                plan=invoiced.plan,
                period_start=invoiced.starts_at,
                period_end=invoiced.ends_at,
                lot_id=lot_id,
                consideration=money,
            )
        case ChangeInvoiced():
            return ChangePlan(
                subscription_id=invoiced.subscription_id,
                current=invoiced.current,
                target=invoiced.target,
                lot_id=lot_id,
                consideration=money,
                at=invoiced.at,
            )
        case OverageInvoiced():
            raise AssertionError("what was used brings nothing")
        case never:
            assert_never(never)


def _grant(payment_id: str, rail: str, event: events.PaymentSettled | events.PaymentReinstated) -> Command:
    return GrantCredits(
        lot_id=event.lot_id,
        credits=event.credits,
        source=Source.PAYMENT,
        consideration=paid(payment_id, rail, event.rate, event.worth),
        reference=payment_id,
    )


def _grant_again(payment_id: str, rail: str, event: events.RefundReturned) -> Command:
    return GrantCredits(
        lot_id=event.lot_id,
        credits=event.credits,
        source=Source.RESTORED,
        priority=event.priority,
        expires_at=event.expires_at,
        consideration=paid(payment_id, rail, event.rate, event.worth),
        reference=payment_id,
    )


def paid(payment_id: str, rail: str, rate: Rate, worth: Worth) -> Consideration:
    """Money of a payment, as what stands behind what was granted for it."""
    return Consideration(
        asset=rate.source,
        worth=worth,
        rate_numerator=rate.numerator,
        rate_denominator=rate.denominator,
        rail=rail,
        payment_id=payment_id,
    )


def reverse(payment_id: str, rail: str, part: events.TakenPart, cause: str, asset: Asset) -> Command:
    """The ledger's side of a part that was taken back."""
    return ReverseCredits(
        reversal_id=part.reversal_id,
        lot_id=part.lot_id,
        credits=part.credits,
        cause=cause,
        asset=asset.code,
        rail=rail,
        payment_id=payment_id,
        worth=part.worth,
    )
