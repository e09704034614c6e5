"""One funds receipt inside a payment, as the stream knows it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import msgspec

from ledger.domain.consideration import NOTHING, Worth
from ledger.log.model import Event
from ledger.money import Money, Rate, split_by_weight_floor
from rails.breakdown import Breakdown
from rails.domain import events
from rails.domain.purchases import Bought, part_of


class ReceiptStatus(StrEnum):
    """Where one funds receipt stands with us."""

    SEEN = "seen"
    HELD = "held"
    SETTLED = "settled"
    UNPRICED = "unpriced"
    MISMATCHED = "mismatched"
    TOO_SMALL = "too_small"
    SHORT = "short"
    REVERSED = "reversed"
    DISPUTED = "disputed"
    RELEASED = "released"
    VANISHED = "vanished"


class LotShare(msgspec.Struct, frozen=True, omit_defaults=True):
    """Credits of a lot that stand for a funds receipt, as far as that money is ours."""

    lot_id: str
    credits: int
    bought: bool = False
    """Whether they are of the payment's purchase; of a plan with daily credits they are none."""


class ReceiptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one funds receipt."""

    money_ref: str
    amount: Money
    status: ReceiptStatus
    first_seen_at: datetime
    asked_at: datetime
    """When the rail was asked that last told something new."""
    credits: int = 0
    """Credits granted when it settled."""
    lots: tuple[LotShare, ...] = ()
    """Where the credits are that were not taken back."""
    worth: Worth = NOTHING
    """The whole money, apart."""
    rate: Rate | None = None
    """The rate it was credited at."""
    worth_out: Worth = NOTHING
    """Of this, gone with the credits that were taken back."""
    taken_minor: int = 0
    takings: int = 0
    """How often something was taken: numbers the reversals."""
    disputed: tuple[events.TakenPart, ...] = ()
    """What open disputes took."""
    disputed_minor: int = 0
    fee: Money | None = None
    external_ref: str | None = None
    refunded_minor: int = 0
    """What we have sent back ourselves. Not part of `taken_minor`."""
    refunded_credits: int = 0
    """Credits that went with it."""
    bought: Bought | None = None
    """The part that bought what the payment is for. What is left over beside it goes back first."""
    evidence_due_by: datetime | None = None
    """Of an open dispute, where the rail says so."""
    held_until: datetime | None = None
    """Of held money: until when it can surely be captured, where the rail says so."""
    costs: Money | None = None
    """What the rail took for it beside `fee`."""
    breakdown: Breakdown | None = None
    """How `amount` came about, where a discount or tax is in it."""

    @property
    def covers_minor(self) -> int:
        """How much of what was asked it pays for."""
        return self.amount.minor if self.breakdown is None else self.breakdown.price_minor

    def covers_left(self) -> int:
        """The same of the part that was not taken back; rounds up, as what was taken is what is missing."""
        return self.covers_minor - self.covers_minor * self.taken_minor // max(self.amount.minor, 1)

    @property
    def credits_left(self) -> int:
        """Credits granted for it and not taken back."""
        return sum(share.credits for share in self.lots)

    def credits_left_if(self, taken_minor: int) -> int:
        """How many credits the rest is worth when so much is taken back; rounds down. Those that we refunded are
        gone already."""
        if self.bought is not None:
            left = sum(
                portion.credits * (portion.minor - portion.gone(taken_minor)) // portion.minor
                for portion in self._portions(self.bought)
            )
            return max(left - self.refunded_credits, 0)
        remaining = max(self.amount.minor - taken_minor, 0)
        return max(self.credits * remaining // self.amount.minor - self.refunded_credits, 0)

    def refunded(self, lot_id: str, credits_: int, minor: int) -> ReceiptRecord:
        """As it is when so much has been sent back, and the credits of that lot with it."""
        return msgspec.structs.replace(
            self,
            lots=_without(self.lots, lot_id, credits_),
            refunded_minor=self.refunded_minor + minor,
            refunded_credits=self.refunded_credits + credits_,
        )

    def worth_out_if(self, taken_minor: int) -> Worth:
        """How much of each part of the money is gone when so much of it is."""
        return part_of(self.worth, min(taken_minor, self.amount.minor), self.amount.minor)

    def parts_to_take(self, taken_minor: int) -> tuple[events.TakenPart, ...]:
        """What has to leave which lot when so much is taken back in all."""
        if self.bought is not None:
            return self._parts_of_purchase(self.bought, taken_minor)
        gone = self.credits_left - self.credits_left_if(taken_minor)
        if gone <= 0:
            return ()
        shares: list[LotShare] = []
        for lot in self.lots:
            share = min(lot.credits, gone)
            gone -= share
            if share:
                shares.append(LotShare(lot.lot_id, share))
        worths = _split(self.worth_out_if(taken_minor) - self.worth_out, [share.credits for share in shares])
        return tuple(
            events.TakenPart(
                reversal_id=f"{self.money_ref}#{self.takings + place}",
                lot_id=share.lot_id,
                credits=share.credits,
                worth=worth,
            )
            for place, (share, worth) in enumerate(zip(shares, worths, strict=True), start=1)
        )

    def _portions(self, bought: Bought) -> tuple[_Portion, ...]:
        """What is left over beside a purchase, and the purchase."""
        beside = self.amount.minor - bought.minor
        portions = (
            _Portion(False, 0, beside, self.credits - bought.credits, self.worth - bought.worth),
            _Portion(True, beside, bought.minor, bought.credits, bought.worth),
        )
        return tuple(portion for portion in portions if portion.minor)

    def _parts_of_purchase(self, bought: Bought, taken_minor: int) -> tuple[events.TakenPart, ...]:
        """What is left over beside the purchase goes first. Of a plan with daily credits money goes alone."""
        money = {False: NOTHING, True: NOTHING}
        for portion in self._portions(bought):
            was, gone = portion.gone(self.taken_minor), portion.gone(taken_minor)
            if gone > was:
                money[portion.bought] = part_of(portion.worth, gone, portion.minor) - part_of(
                    portion.worth, was, portion.minor
                )
        ordered = sorted(self.lots, key=lambda lot: lot.bought)
        drawn = list(_taken_in_order(ordered, self.credits_left - self.credits_left_if(taken_minor)))
        beside = [(lot, amount) for lot, amount in drawn if not lot.bought]
        of_it = [(lot, amount) for lot, amount in drawn if lot.bought]
        if not beside:
            money[True] = money[False] + money[True]
        if not of_it and money[True] != NOTHING:
            last = next((lot.lot_id for lot in reversed(ordered) if lot.bought), bought.lot_id)
            of_it = [(LotShare(last, 0, bought=True), 0)]
        parts = [*_with_money(beside, money[False]), *_with_money(of_it, money[True])]
        return tuple(
            events.TakenPart(
                reversal_id=f"{self.money_ref}#{self.takings + place}",
                lot_id=lot.lot_id,
                credits=amount,
                worth=worth,
                bought=lot.bought,
            )
            for place, (lot, amount, worth) in enumerate(parts, start=1)
        )


class _Portion(NamedTuple):
    """Of a receipt's money: from where on it counts, how much it is, and what it stands for."""

    bought: bool
    begins: int
    minor: int
    credits: int
    worth: Worth

    def gone(self, taken_minor: int) -> int:
        """How much of it is gone when so much of the receipt is taken back."""
        return min(max(taken_minor - self.begins, 0), self.minor)


def _taken_in_order(lots: list[LotShare], wanted: int) -> Iterator[tuple[LotShare, int]]:
    for lot in lots:
        amount = min(lot.credits, wanted)
        wanted -= amount
        if amount > 0:
            yield lot, amount


def _with_money(drawn: list[tuple[LotShare, int]], money: Worth) -> list[tuple[LotShare, int, Worth]]:
    """What is drawn from lots, with its part of the money."""
    if not drawn:
        return []
    weights = [amount for _, amount in drawn]
    worths = _split(money, weights if any(weights) else [1])
    return [(lot, amount, worth) for (lot, amount), worth in zip(drawn, worths, strict=True)]


def _without(lots: tuple[LotShare, ...], lot_id: str, gone: int) -> tuple[LotShare, ...]:
    """The shares when credits of a lot are gone. What moved with a guest twice has another id: then the first go."""
    named = any(share.lot_id == lot_id for share in lots)
    left: list[LotShare] = []
    for share in lots:
        part = min(share.credits, gone) if not named or share.lot_id == lot_id else 0
        gone -= part
        if share.credits > part or share.bought:
            left.append(LotShare(share.lot_id, share.credits - part, share.bought))
    return tuple(left)


def _split(worth: Worth, weights: list[int]) -> list[Worth]:
    """Split each part by `weights`; the parts sum to the whole."""
    columns = [split_by_weight_floor(part, weights) for part in msgspec.structs.astuple(worth)]
    return [Worth(*row) for row in zip(*columns, strict=True)]


_ARRIVALS: dict[type[Event], ReceiptStatus] = {
    events.FundsSeen: ReceiptStatus.SEEN,
    events.FundsHeld: ReceiptStatus.HELD,
    events.FundsMismatched: ReceiptStatus.MISMATCHED,
    events.FundsTooSmall: ReceiptStatus.TOO_SMALL,
    events.FundsUnpriced: ReceiptStatus.UNPRICED,
    events.FundsShort: ReceiptStatus.SHORT,
}


def evolve_receipt(receipt: ReceiptRecord | None, event: Event) -> ReceiptRecord | None:
    """Fold one fact about one funds receipt. Never refuses; None if it tells of no known money."""
    match event:
        case (
            events.FundsSeen()
            | events.FundsHeld()
            | events.FundsMismatched()
            | events.FundsTooSmall()
            | events.FundsUnpriced()
            | events.FundsShort()
        ):
            return ReceiptRecord(
                money_ref=event.money_ref,
                amount=event.amount,
                status=_ARRIVALS[type(event)],
                first_seen_at=event.first_seen_at,
                asked_at=event.asked_at,
                fee=getattr(event, "fee", None),
                external_ref=getattr(event, "external_ref", None),
                held_until=getattr(event, "held_until", None),
                breakdown=event.breakdown,
            )
        case events.PaymentSettled():
            return ReceiptRecord(
                money_ref=event.money_ref,
                amount=event.amount,
                status=ReceiptStatus.SETTLED,
                first_seen_at=event.first_seen_at,
                asked_at=event.asked_at,
                credits=event.credits,
                lots=_lots_of(event),
                worth=event.worth,
                rate=event.rate,
                fee=event.fee,
                external_ref=event.external_ref,
                bought=event.bought,
                breakdown=event.breakdown,
            )
        case _:
            return None if receipt is None else _change(receipt, event)


def _lots_of(event: events.PaymentSettled) -> tuple[LotShare, ...]:
    if event.bought is None:
        return (LotShare(event.lot_id, event.credits),)
    bought = LotShare(event.bought.lot_id, event.bought.credits, bought=True)
    return (LotShare(event.lot_id, event.plain_credits), bought) if event.plain_credits else (bought,)


def _change(receipt: ReceiptRecord, event: Event) -> ReceiptRecord:
    replace = msgspec.structs.replace
    match event:
        case events.FundsReleased(asked_at=asked_at):
            return replace(receipt, status=ReceiptStatus.RELEASED, asked_at=asked_at)
        case events.FundsVanished(asked_at=asked_at):
            return replace(receipt, status=ReceiptStatus.VANISHED, asked_at=asked_at)
        case events.FeeReported(fee=fee):
            return replace(receipt, fee=fee)
        case events.CostsReported(costs=costs, asked_at=asked_at):
            return replace(receipt, costs=costs, asked_at=asked_at)
        case events.PaymentReversed():
            gone = event.taken.minor >= receipt.amount.minor
            return _take(receipt, event, ReceiptStatus.REVERSED if gone else receipt.status)
        case events.DisputeOpened(taken=taken, parts=parts):
            return replace(
                _take(receipt, event, ReceiptStatus.DISPUTED),
                disputed=receipt.disputed + parts,
                disputed_minor=receipt.disputed_minor + taken.minor - receipt.taken_minor,
                evidence_due_by=event.evidence_due_by,
            )
        case events.DisputeWon(parts=parts):
            lots = tuple(LotShare(part.lot_id, part.credits, part.bought) for part in parts)
            return replace(
                _give(receipt, event, lots, [part.worth for part in parts]), disputed=(), disputed_minor=0
            )
        case events.PaymentReinstated(lot_id=lot_id, credits=credits, worth=worth):
            bought = receipt.bought is not None
            lots = (LotShare(lot_id, credits, bought),) if credits or bought else ()
            return _give(receipt, event, lots, [worth])
        case events.RefundReturned():
            shares = (*receipt.lots, LotShare(event.lot_id, event.credits)) if event.credits else receipt.lots
            return replace(
                receipt,
                lots=shares,
                refunded_minor=receipt.refunded_minor - event.worth.gross_minor,
                refunded_credits=receipt.refunded_credits - event.credits,
            )
        case events.DisputeLost(asked_at=asked_at):
            return replace(
                receipt, status=ReceiptStatus.REVERSED, disputed=(), disputed_minor=0, asked_at=asked_at
            )
        case _:
            return receipt


def _take(
    receipt: ReceiptRecord, event: events.PaymentReversed | events.DisputeOpened, status: ReceiptStatus
) -> ReceiptRecord:
    taken = {part.lot_id: part.credits for part in event.parts}
    shares = (
        LotShare(lot.lot_id, lot.credits - taken.get(lot.lot_id, 0), lot.bought) for lot in receipt.lots
    )
    return msgspec.structs.replace(
        receipt,
        status=status,
        lots=tuple(share for share in shares if share.credits or share.bought),
        worth_out=sum((part.worth for part in event.parts), start=receipt.worth_out),
        taken_minor=event.taken.minor,
        takings=receipt.takings + len(event.parts),
        asked_at=event.asked_at,
    )


def _give(
    receipt: ReceiptRecord,
    event: events.PaymentReinstated | events.DisputeWon,
    lots: tuple[LotShare, ...],
    worths: list[Worth],
) -> ReceiptRecord:
    gone = 0 < receipt.amount.minor <= event.taken.minor
    return msgspec.structs.replace(
        receipt,
        status=ReceiptStatus.REVERSED if gone else ReceiptStatus.SETTLED,
        lots=receipt.lots + lots,
        worth_out=receipt.worth_out - sum(worths, start=NOTHING),
        taken_minor=event.taken.minor,
        asked_at=event.asked_at,
    )
