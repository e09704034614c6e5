"""Where what the outside says differs from what our payments say. Pure.

Everything is compared by the name of the money; what is no payer's money has the outside's own name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ledger.money import ASSETS, Asset, Money
from rails.domain.receipts import ReceiptRecord, ReceiptStatus
from rails.domain.refunding import RefundState
from rails.domain.state import Payment
from rails.movements import Movement, MovementKind

FIAT_SCALE = 2
"""Of a currency that is no asset of ours."""
_NEVER_OURS = (
    ReceiptStatus.SEEN,
    ReceiptStatus.HELD,
    ReceiptStatus.RELEASED,
    ReceiptStatus.VANISHED,
)


class Part(StrEnum):
    """What of some money is compared. Stored."""

    RECEIVED = "received"
    TAKEN_BACK = "taken_back"
    """Refunds and what banks withdrew, less what came back of both."""
    FEE = "fee"
    """What the rail took out of what was received."""
    COSTS = "costs"
    """What it took besides."""
    PAID_OUT = "paid_out"
    """A payout, and what it consists of."""
    BALANCE = "balance"
    """What is held for us, and the sum of all movements."""


class Reason(StrEnum):
    """How both differ. Stored."""

    MISSING_HERE = "missing_here"
    """The outside moved money of which we know nothing."""
    MISSING_THERE = "missing_there"
    """We have booked money of which the outside knows nothing."""
    AMOUNT_DIFFERS = "amount_differs"
    FEE_DIFFERS = "fee_differs"
    CURRENCY_DIFFERS = "currency_differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class OurMoney:
    """What our payments say about one funds receipt, in minor units of its asset."""

    money_ref: str
    payment_id: str
    asset: Asset
    received: int
    taken_back: int
    fee: int
    costs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing on which both do not agree. None: that side knows nothing of it."""

    subject: str
    part: Part
    reason: Reason
    asset: Asset
    ours: int | None
    theirs: int | None
    payment_id: str | None = None


def our_money(payment_id: str, payment: Payment) -> Iterator[OurMoney]:
    """All money of a payment that is, or was, ours."""
    for receipt in payment.receipts.values():
        if receipt.status not in _NEVER_OURS:
            yield OurMoney(
                money_ref=receipt.money_ref,
                payment_id=payment_id,
                asset=receipt.amount.asset,
                received=receipt.amount.minor,
                taken_back=receipt.taken_minor + receipt.refunded_minor,
                fee=_minor(receipt.fee, receipt),
                costs=_minor(receipt.costs, receipt) + _refunding(payment, receipt),
            )


def _refunding(payment: Payment, receipt: ReceiptRecord) -> int:
    """What sending it back took."""
    sent = (RefundState.SENT, RefundState.RETURNED)
    return sum(
        _minor(refund.cost, receipt)
        for refund in payment.refunds.values()
        if refund.asked.money_ref == receipt.money_ref and refund.state in sent
    )


def _minor(amount: Money | None, receipt: ReceiptRecord) -> int:
    return 0 if amount is None or amount.asset != receipt.amount.asset else amount.minor


def compare(subject: str, ours: OurMoney | None, theirs: Sequence[Movement]) -> Sequence[Difference]:
    """All differences about one money, or about one movement that is no payer's money."""
    if ours is not None and not theirs:
        if not ours.received:
            return []
        return [_of(ours, Part.RECEIVED, Reason.MISSING_THERE, ours.received, None)]
    if ours is None:
        return [found for asset in _assets(theirs) for found in _unknown(subject, asset, theirs)]
    others = [asset for asset in _assets(theirs) if asset != ours.asset]
    if others:
        moved = sum(entry.amount.minor for entry in theirs if entry.amount.asset == others[0])
        return [_of(ours, Part.RECEIVED, Reason.CURRENCY_DIFFERS, ours.received, moved, others[0])]
    return list(_amounts(ours, theirs))


def _assets(theirs: Sequence[Movement]) -> Sequence[Asset]:
    return list(dict.fromkeys(entry.amount.asset for entry in theirs))


def _unknown(subject: str, asset: Asset, theirs: Sequence[Movement]) -> Iterator[Difference]:
    """What the outside moved, and none of our payments knows. Costs and payouts are told by the outside alone."""
    mine = [entry for entry in theirs if entry.amount.asset == asset]
    kinds = {entry.kind for entry in mine}
    if kinds <= {MovementKind.COST, MovementKind.PAID_OUT}:
        yield from (found for entry in mine if (found := _payout(subject, entry)) is not None)
        return
    moved = sum(entry.amount.minor for entry in mine)
    received = MovementKind.RECEIVED in kinds or MovementKind.OTHER in kinds
    yield Difference(
        subject=subject,
        part=Part.RECEIVED if received else Part.TAKEN_BACK,
        reason=Reason.MISSING_HERE,
        asset=asset,
        ours=None,
        theirs=moved,
    )


def _payout(subject: str, entry: Movement) -> Difference | None:
    """An automatic payout is the sum of what it consists of."""
    parts = entry.consists_of
    if parts is None or parts.minor == -entry.amount.minor:
        return None
    return Difference(
        subject=subject,
        part=Part.PAID_OUT,
        reason=Reason.AMOUNT_DIFFERS,
        asset=entry.amount.asset,
        ours=parts.minor,
        theirs=-entry.amount.minor,
    )


def _amounts(ours: OurMoney, theirs: Sequence[Movement]) -> Iterator[Difference]:
    received = [entry for entry in theirs if entry.kind is MovementKind.RECEIVED]
    others = [entry for entry in theirs if entry.kind is not MovementKind.RECEIVED]
    compared = (
        (Part.RECEIVED, Reason.AMOUNT_DIFFERS, ours.received, _sum(received)),
        (Part.TAKEN_BACK, Reason.AMOUNT_DIFFERS, ours.taken_back, -_sum(others)),
        (Part.FEE, Reason.FEE_DIFFERS, ours.fee, _fees(received)),
        (Part.COSTS, Reason.FEE_DIFFERS, ours.costs, _fees(others)),
    )
    for part, reason, mine, other in compared:
        if mine != other:
            yield _of(ours, part, reason, mine, other)


def _sum(theirs: Sequence[Movement]) -> int:
    return sum(entry.amount.minor for entry in theirs)


def _fees(theirs: Sequence[Movement]) -> int:
    return sum(0 if entry.fee is None else entry.fee.minor for entry in theirs)


def _of(
    ours: OurMoney, part: Part, reason: Reason, mine: int, theirs: int | None, asset: Asset | None = None
) -> Difference:
    return Difference(
        subject=ours.money_ref,
        part=part,
        reason=reason,
        asset=asset or ours.asset,
        ours=mine,
        theirs=theirs,
        payment_id=ours.payment_id,
    )


def compare_balance(
    rail: str, opening: Mapping[str, int], moved: Mapping[Asset, int], holdings: Sequence[Money]
) -> Sequence[Difference]:
    """Whether what is held is what was held when we began, and all movements since."""
    held = {amount.asset: amount.minor for amount in holdings}
    found = []
    named = {asset.code for asset in (*held, *moved)}
    # What was held once, and is not even named any more, is gone.
    gone = {ASSETS.get(code) or Asset(code, FIAT_SCALE) for code in opening if code not in named}
    for asset in sorted({*held, *moved, *gone}):
        expected = opening.get(asset.code, 0) + moved.get(asset, 0)
        if expected != held.get(asset, 0):
            found.append(
                Difference(
                    subject=f"{rail}:{asset.code}",
                    part=Part.BALANCE,
                    reason=Reason.AMOUNT_DIFFERS,
                    asset=asset,
                    ours=expected,
                    theirs=held.get(asset, 0),
                )
            )
    return found
