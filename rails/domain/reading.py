"""The difference between what a rail says now and what a payment's stream knows. Pure.

So the same news may come twice, late, in any order, or not at all and later wholesale: each
funds receipt is credited at most once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, assert_never

from ledger.domain.consideration import Worth
from ledger.log.model import Event
from ledger.money import Money, Rate
from rails.breakdown import Breakdown
from rails.contract import FundsReceipt, Observation, PaymentRequestStatus, ReceiptState
from rails.domain import events
from rails.domain.invoice_money import Buying, settled_invoice
from rails.domain.invoiced import Invoiced, invoice_shares
from rails.domain.pricing import credits_down
from rails.domain.purchases import Arrival, Bought, Share, part_of, shares
from rails.domain.receipts import ReceiptRecord, ReceiptStatus
from rails.domain.returned import read_returned
from rails.domain.state import LATE_GRACE, Payment, evolve, may_expire

_LOTS_PER_RECEIPT_MAX = 8
_STEPS_MAX = 6
"""Seen, settled, disputed, taken back further, fee, costs: no receipt needs more steps at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordObservation:
    """What the rail said when asked at `asked_at`.

    `spot` has a fresh rate to USD by asset code, where there is one. `lot_ids` are fresh ids, enough
    for every lot that may have to be granted (`lots_needed_max` of the receipts).
    """

    observation: Observation
    asked_at: datetime
    spot: Mapping[str, Rate] = field(default_factory=dict)
    lot_ids: Sequence[str] = ()
    buying: Mapping[str, Buying] = field(default_factory=dict)
    """Worked out by `read_observation`: which money buys what the payment is for."""


def lots_needed_max(observation: Observation) -> int:
    """How many fresh lot ids `RecordObservation` may need at most."""
    return _LOTS_PER_RECEIPT_MAX * len(observation.receipts) + len(observation.refunds)


def read_observation(payment: Payment, command: RecordObservation) -> Sequence[Event]:
    """Every fact that the rail tells now and that the stream does not know yet."""
    payment.facts()
    reported: list[Event] = []
    lot_ids = iter(command.lot_ids)
    command = replace(command, buying=_buying(payment, command, lot_ids))
    receipts = sorted(
        command.observation.receipts, key=lambda receipt: (receipt.first_seen_at, receipt.money_ref)
    )
    for receipt in receipts:
        for _ in range(_STEPS_MAX):
            event = _next_step(payment, receipt, command, lot_ids)
            if event is None:
                break
            reported.append(event)
            payment = evolve(payment, event)
    for event in _vanished(payment, command):
        reported.append(event)
        payment = evolve(payment, event)
    if command.observation.refunds:
        for event in list(read_returned(payment, command.observation, command.asked_at, lot_ids)):
            reported.append(event)
            payment = evolve(payment, event)
    return [*reported, *_status(payment, command.observation)]


def _next_step(
    payment: Payment, receipt: FundsReceipt, command: RecordObservation, lot_ids: Iterator[str]
) -> Event | None:
    """The next fact that is missing about one funds receipt, or None if all is known."""
    known = payment.receipts.get(receipt.money_ref)
    if known is not None and known.asked_at > command.asked_at:
        return None  # an older answer that was overtaken
    if known is not None and known.status is ReceiptStatus.REVERSED and known.rate is None:
        # It went before it was ever credited: should it come back, it comes as if for the first time.
        return None if _is_gone(receipt) else _arriving(payment, known, receipt, command, lot_ids)
    match known.status if known else None:
        case None | ReceiptStatus.SEEN | ReceiptStatus.HELD | ReceiptStatus.RELEASED | ReceiptStatus.VANISHED:
            return _arriving(payment, known, receipt, command, lot_ids)
        case ReceiptStatus.UNPRICED | ReceiptStatus.SHORT if _is_ours(receipt):
            return _settle(payment, known, receipt, command, lot_ids)
        case ReceiptStatus.SETTLED | ReceiptStatus.DISPUTED | ReceiptStatus.REVERSED:
            assert known is not None
            return _taken_or_given_back(known, receipt, command.asked_at, lot_ids)
        case (
            ReceiptStatus.UNPRICED | ReceiptStatus.SHORT | ReceiptStatus.MISMATCHED | ReceiptStatus.TOO_SMALL
        ):
            assert known is not None
            return _suspended(known, receipt, command.asked_at)
        case never:
            assert_never(never)


def _arriving(
    payment: Payment,
    known: ReceiptRecord | None,
    receipt: FundsReceipt,
    command: RecordObservation,
    lot_ids: Iterator[str],
) -> Event | None:
    """News about money that is not ours yet."""
    status = known.status if known else None
    waiting = status in (ReceiptStatus.SEEN, ReceiptStatus.HELD)
    match receipt.state:
        case ReceiptState.SEEN:
            return None if waiting else events.FundsSeen(**_sighting(receipt, command.asked_at, known))
        case ReceiptState.HELD:
            return (
                None
                if status is ReceiptStatus.HELD
                else events.FundsHeld(
                    **_sighting(receipt, command.asked_at, known), held_until=receipt.held_until
                )
            )
        case ReceiptState.SETTLED | ReceiptState.DISPUTED:
            return _settle(payment, known, receipt, command, lot_ids)
        case ReceiptState.REVERSED | ReceiptState.RETURNED:
            if status is ReceiptStatus.HELD:
                return events.FundsReleased(money_ref=receipt.money_ref, asked_at=command.asked_at)
            if status is ReceiptStatus.SEEN:
                return events.FundsVanished(money_ref=receipt.money_ref, asked_at=command.asked_at)
            return None
        case never:
            assert_never(never)


def _settle(
    payment: Payment,
    known: ReceiptRecord | None,
    receipt: FundsReceipt,
    command: RecordObservation,
    lot_ids: Iterator[str],
) -> Event | None:
    """Money is ours: credit it, or say why not yet."""
    facts = payment.facts()
    arrival: dict[str, Any] = {
        **_sighting(receipt, command.asked_at, known),
        "fee": receipt.fee,
        "external_ref": receipt.external_ref,
    }
    if receipt.amount.asset != facts.amount_due.asset:
        return events.FundsMismatched(**arrival)
    in_time, rate = _rate_of(payment, known, receipt, command)
    if rate is None:
        return None if known and known.status is ReceiptStatus.UNPRICED else events.FundsUnpriced(**arrival)
    worth = worth_of(receipt.amount, receipt.fee, rate, receipt.breakdown)
    pays = command.buying.get(receipt.money_ref) if facts.invoiced is not None else None
    if pays is not None:
        return settled_invoice(receipt, pays, arrival, rate, worth, lot_ids)
    basis = "quote" if in_time else "spot"
    if facts.purchase is not None:
        waits = in_time and command.asked_at <= facts.quote_expires_at + LATE_GRACE
        return _settle_toward(payment, known, receipt, command, lot_ids, arrival, rate, basis, waits=waits)
    covers = Money(receipt.covers_minor, receipt.amount.asset)
    bought = credits_down(covers, rate, facts.price)
    if bought < 1:
        return events.FundsTooSmall(**arrival)
    if in_time:  # fractions of a credit add up over the receipts of one quote
        whole = Money(payment.quoted_minor + covers.minor, covers.asset)
        bought = credits_down(whole, rate, facts.price) - payment.quoted_credits
    return events.PaymentSettled(
        **arrival,
        credits=bought,
        lot_id=next(lot_ids),
        rate=rate,
        rate_basis=basis,
        worth=worth,
    )


def _rate_of(
    payment: Payment, known: ReceiptRecord | None, receipt: FundsReceipt, command: RecordObservation
) -> tuple[bool, Rate | None]:
    """Whether money came in time for the quote, and the rate that it is worth."""
    facts = payment.facts()
    first = min(receipt.first_seen_at, known.first_seen_at) if known else receipt.first_seen_at
    in_time = first <= facts.quote_expires_at + LATE_GRACE
    return in_time, facts.rate if in_time else command.spot.get(receipt.amount.asset.code)


def _settle_toward(
    payment: Payment,
    known: ReceiptRecord | None,
    receipt: FundsReceipt,
    command: RecordObservation,
    lot_ids: Iterator[str],
    arrival: dict[str, Any],
    rate: Rate,
    basis: str,
    *,
    waits: bool,
) -> Event | None:
    """Money toward a purchase: it buys it, or waits for the rest, or becomes plain credits."""
    facts, amount = payment.facts(), receipt.amount
    covers = receipt.covers_minor
    worth = worth_of(amount, receipt.fee, rate, receipt.breakdown)
    settled = {**arrival, "rate": rate, "rate_basis": basis, "worth": worth}
    buying = command.buying.get(receipt.money_ref)
    if buying is None:
        plain = credits_down(Money(covers, amount.asset), rate, facts.price)
        if plain < 1:
            return (
                None if known and known.status is ReceiptStatus.TOO_SMALL else events.FundsTooSmall(**arrival)
            )
        if waits and not command.buying and not payment.purchases:
            return None if known and known.status is ReceiptStatus.SHORT else events.FundsShort(**arrival)
        return events.PaymentSettled(**settled, credits=plain, lot_id=next(lot_ids))
    share = buying.share
    plain = credits_down(Money(covers - share.minor, amount.asset), rate, facts.price)
    minor = amount.minor * share.minor // covers if plain else amount.minor
    return events.PaymentSettled(
        **settled,
        credits=plain + share.credits,
        lot_id=next(lot_ids) if plain else buying.lot_id,
        bought=Bought(
            lot_id=buying.lot_id,
            minor=minor,
            credits=share.credits,
            worth=worth if minor == amount.minor else part_of(worth, minor, amount.minor),
        ),
    )


_BEFORE_IT_COUNTS = (
    ReceiptStatus.SEEN,
    ReceiptStatus.HELD,
    ReceiptStatus.RELEASED,
    ReceiptStatus.VANISHED,
    ReceiptStatus.UNPRICED,
    ReceiptStatus.SHORT,
)


def _counts_for_nothing(known: ReceiptRecord, receipt: FundsReceipt) -> bool:
    """Whether money that is known has not been credited yet, and would be now."""
    if known.status is ReceiptStatus.REVERSED:
        return known.rate is None and not _is_gone(receipt)
    return known.status in _BEFORE_IT_COUNTS


def _buying(payment: Payment, command: RecordObservation, lot_ids: Iterator[str]) -> Mapping[str, Buying]:
    """Which of the money that is there now, and stands for nothing yet, buys what the payment is for."""
    facts = payment.facts()
    if facts.invoiced is not None:
        return _paying(payment, facts.invoiced, command, lot_ids)
    if facts.purchase is None:
        return {}
    found = shares(
        facts.purchase, facts.amount_due, _arrivals(payment, command), already_bought=bool(payment.purchases)
    )
    lots: dict[int, str] = {}
    for share in found.values():
        if share.group not in lots:
            lots[share.group] = next(lot_ids)
    return {ref: Buying(share=share, lot_id=lots[share.group]) for ref, share in found.items()}


def _paying(
    payment: Payment, invoiced: Invoiced, command: RecordObservation, lot_ids: Iterator[str]
) -> Mapping[str, Buying]:
    """The money that pays an invoice: once, whatever comes later."""
    arrivals = [] if payment.purchases else [a for a in _arrivals(payment, command) if a.in_time]
    found = invoice_shares(invoiced, payment.facts().amount_due.minor, arrivals)
    if not found:
        return {}
    lot_id = next(lot_ids)
    return {
        ref: Buying(
            share=Share(group=0, minor=part.minor, credits=part.credits), lot_id=lot_id, overage=part.overage
        )
        for ref, part in found.items()
    }


def _arrivals(payment: Payment, command: RecordObservation) -> Sequence[Arrival]:
    """The money that is there now and stands for nothing yet."""
    facts = payment.facts()
    arrivals = []
    for receipt in sorted(command.observation.receipts, key=lambda r: (r.first_seen_at, r.money_ref)):
        known = payment.receipts.get(receipt.money_ref)
        in_time, rate = _rate_of(payment, known, receipt, command)
        fresh = known is None or (known.asked_at <= command.asked_at and _counts_for_nothing(known, receipt))
        if (
            fresh
            and _is_ours(receipt)
            and receipt.amount.asset == facts.amount_due.asset
            and rate is not None
            and credits_down(Money(receipt.covers_minor, receipt.amount.asset), rate, facts.price) >= 1
        ):
            money = Arrival(
                money_ref=receipt.money_ref, minor=receipt.covers_minor, rate=rate, in_time=in_time
            )
            arrivals.append(money)
    return arrivals


def worth_of(amount: Money, fee: Money | None, rate: Rate, breakdown: Breakdown | None = None) -> Worth:
    """The parts of some money. A fee in another asset is not a part of it; no fee exceeds its money without tax."""
    tax_minor = 0 if breakdown is None else breakdown.tax_minor
    untaxed = amount.minor - tax_minor
    fee_minor = min(fee.minor, untaxed) if fee is not None and fee.asset == amount.asset else 0
    tax_usd = rate.convert_down(Money(tax_minor, amount.asset)).minor
    return Worth(
        net_minor=untaxed - fee_minor,
        tax_minor=tax_minor,
        fee_minor=fee_minor,
        usd_minor=rate.convert_down(amount).minor - tax_usd,
        tax_usd_minor=tax_usd,
    )


def _taken_or_given_back(
    known: ReceiptRecord, receipt: FundsReceipt, asked_at: datetime, lot_ids: Iterator[str]
) -> Event | None:
    """News about money that was credited."""
    taken = min(_taken_minor(receipt), known.amount.minor)
    disputed = known.status is ReceiptStatus.DISPUTED
    match receipt.state:
        case ReceiptState.SETTLED if disputed:
            return _dispute_won(known, asked_at, lot_ids)
        case ReceiptState.REVERSED | ReceiptState.RETURNED if disputed:
            ids = tuple(part.reversal_id for part in known.disputed)
            return events.DisputeLost(money_ref=known.money_ref, reversal_ids=ids, asked_at=asked_at)
        case ReceiptState.DISPUTED if (
            (taken > known.taken_minor) if disputed else (taken >= known.taken_minor)
        ):
            return events.DisputeOpened(
                **_taking(known, taken, asked_at), evidence_due_by=receipt.evidence_due_by
            )
        case ReceiptState.DISPUTED:
            pass
        case _ if taken > known.taken_minor:
            return events.PaymentReversed(**_taking(known, taken, asked_at))
        case _ if taken < known.taken_minor:
            return _reinstated(known, taken, asked_at, lot_ids)
    return _charged(known, receipt, asked_at)


def _charged(known: ReceiptRecord, receipt: FundsReceipt, asked_at: datetime) -> Event | None:
    """What the rail took for the money."""
    if receipt.fee is not None and known.fee is None:
        return events.FeeReported(money_ref=receipt.money_ref, fee=receipt.fee)
    if receipt.costs is not None and receipt.costs != known.costs:
        return events.CostsReported(money_ref=receipt.money_ref, costs=receipt.costs, asked_at=asked_at)
    return None


def _taking(known: ReceiptRecord, taken: int, asked_at: datetime) -> dict[str, Any]:
    return {
        "money_ref": known.money_ref,
        "taken": Money(taken, known.amount.asset),
        "parts": known.parts_to_take(taken),
        "asked_at": asked_at,
    }


def _dispute_won(known: ReceiptRecord, asked_at: datetime, lot_ids: Iterator[str]) -> Event:
    """Exactly what disputes took comes back; anything else the rail says is the next step."""
    return events.DisputeWon(
        money_ref=known.money_ref,
        taken=Money(known.taken_minor - known.disputed_minor, known.amount.asset),
        parts=tuple(
            events.RestoredPart(
                reversal_id=part.reversal_id,
                lot_id=next(lot_ids),
                credits=part.credits,
                worth=part.worth,
                bought=part.bought,
            )
            for part in known.disputed
        ),
        asked_at=asked_at,
    )


def _reinstated(known: ReceiptRecord, taken: int, asked_at: datetime, lot_ids: Iterator[str]) -> Event:
    assert known.rate is not None, "only credited money is reinstated"
    return events.PaymentReinstated(
        money_ref=known.money_ref,
        taken=Money(taken, known.amount.asset),
        lot_id=next(lot_ids),
        credits=known.credits_left_if(taken) - known.credits_left,
        worth=known.worth_out - known.worth_out_if(taken),
        rate=known.rate,
        asked_at=asked_at,
    )


def _suspended(known: ReceiptRecord, receipt: FundsReceipt, asked_at: datetime) -> Event | None:
    """News about money that waits in suspense: only its going away matters."""
    taken = min(_taken_minor(receipt), known.amount.minor)
    if taken <= known.taken_minor:
        return _charged(known, receipt, asked_at)
    amount = Money(taken, known.amount.asset)
    return events.PaymentReversed(money_ref=receipt.money_ref, taken=amount, asked_at=asked_at)


def _is_ours(receipt: FundsReceipt) -> bool:
    return receipt.state in (ReceiptState.SETTLED, ReceiptState.DISPUTED)


def _is_gone(receipt: FundsReceipt) -> bool:
    return receipt.state is not ReceiptState.SETTLED or _taken_minor(receipt) >= receipt.amount.minor


def _taken_minor(receipt: FundsReceipt) -> int:
    """How much of what was ours is no longer ours, by what the rail says now."""
    match receipt.state:
        case ReceiptState.SETTLED:
            return receipt.reversed_amount.minor if receipt.reversed_amount else 0
        case ReceiptState.REVERSED | ReceiptState.DISPUTED:
            return receipt.reversed_amount.minor if receipt.reversed_amount else receipt.amount.minor
        case ReceiptState.SEEN | ReceiptState.HELD | ReceiptState.RETURNED:
            return receipt.amount.minor  # a reorganised chain: final no more
        case never:
            assert_never(never)


def _vanished(payment: Payment, command: RecordObservation) -> Sequence[Event]:
    """Money on its way that the rail no longer mentions."""
    mentioned = {receipt.money_ref for receipt in command.observation.receipts}
    return [
        events.FundsVanished(money_ref=ref, asked_at=command.asked_at)
        for ref, known in payment.receipts.items()
        if ref not in mentioned and known.status is ReceiptStatus.SEEN and known.asked_at <= command.asked_at
    ]


def _status(payment: Payment, observation: Observation) -> Sequence[Event]:
    match observation.status:
        case PaymentRequestStatus.OPEN:
            return []
        case PaymentRequestStatus.DECLINED:
            code = observation.decline_code or "declined"
            new = code != payment.decline_code and not _credited(payment)
            return [events.PaymentDeclined(decline_code=code)] if new else []
        case PaymentRequestStatus.EXPIRED:
            return [events.PaymentExpired()] if may_expire(payment) else []
        case PaymentRequestStatus.CLOSED:
            return [events.PaymentExpired(closed=True)] if may_expire(payment) else []
        case never:
            assert_never(never)


def _sighting(
    receipt: FundsReceipt, asked_at: datetime, known: ReceiptRecord | None = None
) -> dict[str, Any]:
    """What is said of money whenever it is first met. The earliest sight of it counts."""
    first = min(receipt.first_seen_at, known.first_seen_at) if known else receipt.first_seen_at
    return {
        "money_ref": receipt.money_ref,
        "amount": receipt.amount,
        "first_seen_at": first,
        "asked_at": asked_at,
        "breakdown": receipt.breakdown,
    }


def _credited(payment: Payment) -> bool:
    return any(receipt.credits or receipt.bought for receipt in payment.receipts.values())
