"""The difference between what a rail says now and what a payment's stream knows. Pure.

So the same news may come twice, late, in any order, or not at all and later wholesale: each
piece of money is credited at most once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never

from ledger.domain.consideration import Worth
from ledger.log.model import Event
from ledger.money import Money, Rate
from rails import payment_events as events
from rails.contract import Observation, Piece, PieceState, Standing
from rails.payment_pieces import PieceRecord, PieceStanding
from rails.payment_state import Payment, evolve, may_expire
from rails.pricing import credits_down

LATE_GRACE = timedelta(minutes=60)
"""Money first seen this long after a quote's expiry still gets the quote's rate."""

_LOTS_PER_PIECE_MAX = 8
_STEPS_MAX = 4
"""Seen, settled, disputed, taken back further: no piece needs more steps at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordObservation:
    """What the rail said when asked at `asked_at`.

    `spot` has a fresh rate to USD by asset code, where there is one. `lot_ids` are fresh ids, enough
    for every lot that may have to be granted (`lots_needed_max` of the pieces).
    """

    observation: Observation
    asked_at: datetime
    spot: Mapping[str, Rate] = field(default_factory=dict)
    lot_ids: Sequence[str] = ()


def lots_needed_max(observation: Observation) -> int:
    """How many fresh lot ids `RecordObservation` may need at most."""
    return _LOTS_PER_PIECE_MAX * len(observation.pieces)


def read_observation(payment: Payment, command: RecordObservation) -> Sequence[Event]:
    """Every fact that the rail tells now and that the stream does not know yet."""
    payment.facts()
    said: list[Event] = []
    lot_ids = iter(command.lot_ids)
    pieces = sorted(command.observation.pieces, key=lambda piece: (piece.first_seen_at, piece.money_ref))
    for piece in pieces:
        for _ in range(_STEPS_MAX):
            event = _next_step(payment, piece, command, lot_ids)
            if event is None:
                break
            said.append(event)
            payment = evolve(payment, event)
    for event in [*_vanished(payment, command), *_standing(payment, command.observation)]:
        said.append(event)
        payment = evolve(payment, event)
    return said


def _next_step(
    payment: Payment, piece: Piece, command: RecordObservation, lot_ids: Iterator[str]
) -> Event | None:
    """The next fact that is missing about one piece of money, or None if all is known."""
    known = payment.pieces.get(piece.money_ref)
    if known is not None and known.asked_at > command.asked_at:
        return None  # an older answer that was overtaken
    if known is not None and known.standing is PieceStanding.REVERSED and known.rate is None:
        # It went before it was ever credited: should it come back, it comes as if for the first time.
        return None if _is_gone(piece) else _arriving(payment, known, piece, command, lot_ids)
    match known.standing if known else None:
        case None | PieceStanding.SEEN | PieceStanding.HELD | PieceStanding.RELEASED | PieceStanding.VANISHED:
            return _arriving(payment, known, piece, command, lot_ids)
        case PieceStanding.UNPRICED if piece.state in (PieceState.SETTLED, PieceState.DISPUTED):
            return _settle(payment, known, piece, command, lot_ids)
        case PieceStanding.SETTLED | PieceStanding.DISPUTED | PieceStanding.REVERSED:
            assert known is not None
            return _taken_or_given_back(known, piece, command.asked_at, lot_ids)
        case PieceStanding.UNPRICED | PieceStanding.MISMATCHED | PieceStanding.TOO_SMALL:
            assert known is not None
            return _suspended(known, piece, command.asked_at)
        case never:
            assert_never(never)


def _arriving(
    payment: Payment,
    known: PieceRecord | None,
    piece: Piece,
    command: RecordObservation,
    lot_ids: Iterator[str],
) -> Event | None:
    """News about money that is not ours yet."""
    standing = known.standing if known else None
    waiting = standing in (PieceStanding.SEEN, PieceStanding.HELD)
    match piece.state:
        case PieceState.SEEN:
            return None if waiting else events.FundsSeen(**_sighting(piece, command.asked_at, known))
        case PieceState.HELD:
            return (
                None
                if standing is PieceStanding.HELD
                else events.FundsHeld(**_sighting(piece, command.asked_at, known))
            )
        case PieceState.SETTLED | PieceState.DISPUTED:
            return _settle(payment, known, piece, command, lot_ids)
        case PieceState.REVERSED | PieceState.RETURNED:
            if standing is PieceStanding.HELD:
                return events.FundsReleased(money_ref=piece.money_ref, asked_at=command.asked_at)
            if standing is PieceStanding.SEEN:
                return events.FundsVanished(money_ref=piece.money_ref, asked_at=command.asked_at)
            return None
        case never:
            assert_never(never)


def _settle(
    payment: Payment,
    known: PieceRecord | None,
    piece: Piece,
    command: RecordObservation,
    lot_ids: Iterator[str],
) -> Event | None:
    """Money is ours: credit it, or say why not yet."""
    facts = payment.facts()
    arrival: dict[str, Any] = {
        **_sighting(piece, command.asked_at, known),
        "fee": piece.fee,
        "proof": piece.proof,
    }
    if piece.amount.asset != facts.amount_due.asset:
        return events.FundsMismatched(**arrival)
    first_seen_at: datetime = arrival["first_seen_at"]
    in_time = first_seen_at <= facts.quote_expires_at + LATE_GRACE
    rate = facts.rate if in_time else command.spot.get(piece.amount.asset.code)
    if rate is None:
        return None if known and known.standing is PieceStanding.UNPRICED else events.FundsUnpriced(**arrival)
    bought = credits_down(piece.amount, rate, facts.price)
    if bought < 1:
        return events.FundsTooSmall(**arrival)
    if in_time:  # fractions of a credit add up over the pieces of one quote
        whole = Money(payment.quoted_minor + piece.amount.minor, piece.amount.asset)
        bought = credits_down(whole, rate, facts.price) - payment.quoted_credits
    return events.PaymentSettled(
        **arrival,
        credits=bought,
        lot_id=next(lot_ids),
        rate=rate,
        rate_basis="quote" if in_time else "spot",
        worth=worth_of(piece.amount, piece.fee, rate),
    )


def worth_of(amount: Money, fee: Money | None, rate: Rate) -> Worth:
    """The parts of some money. A fee in another asset is not a part of it; no fee exceeds its money."""
    fee_minor = min(fee.minor, amount.minor) if fee is not None and fee.asset == amount.asset else 0
    return Worth(
        net_minor=amount.minor - fee_minor, fee_minor=fee_minor, usd_minor=rate.convert_down(amount).minor
    )


def _taken_or_given_back(
    known: PieceRecord, piece: Piece, asked_at: datetime, lot_ids: Iterator[str]
) -> Event | None:
    """News about money that was credited."""
    taken = min(_taken_minor(piece), known.amount.minor)
    disputed = known.standing is PieceStanding.DISPUTED
    match piece.state:
        case PieceState.SETTLED if disputed:
            return _dispute_won(known, asked_at, lot_ids)
        case PieceState.REVERSED | PieceState.RETURNED if disputed:
            ids = tuple(part.reversal_id for part in known.disputed)
            return events.DisputeLost(money_ref=known.money_ref, reversal_ids=ids, asked_at=asked_at)
        case PieceState.DISPUTED if (taken > known.taken_minor) if disputed else (taken >= known.taken_minor):
            return events.DisputeOpened(**_taking(known, taken, asked_at))
        case PieceState.DISPUTED:
            return None
        case _ if taken > known.taken_minor:
            return events.PaymentReversed(**_taking(known, taken, asked_at))
        case _ if taken < known.taken_minor:
            return _reinstated(known, taken, asked_at, lot_ids)
    if piece.fee is not None and known.fee is None:
        return events.FeeReported(money_ref=piece.money_ref, fee=piece.fee)
    return None


def _taking(known: PieceRecord, taken: int, asked_at: datetime) -> dict[str, Any]:
    return {
        "money_ref": known.money_ref,
        "taken": Money(taken, known.amount.asset),
        "parts": known.parts_to_take(taken),
        "asked_at": asked_at,
    }


def _dispute_won(known: PieceRecord, asked_at: datetime, lot_ids: Iterator[str]) -> Event:
    """Exactly what disputes took comes back; anything else the rail says is the next step."""
    return events.DisputeWon(
        money_ref=known.money_ref,
        taken=Money(known.taken_minor - known.disputed_minor, known.amount.asset),
        parts=tuple(
            events.RestoredPart(
                reversal_id=part.reversal_id, lot_id=next(lot_ids), credits=part.credits, worth=part.worth
            )
            for part in known.disputed
        ),
        asked_at=asked_at,
    )


def _reinstated(known: PieceRecord, taken: int, asked_at: datetime, lot_ids: Iterator[str]) -> Event:
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


def _suspended(known: PieceRecord, piece: Piece, asked_at: datetime) -> Event | None:
    """News about money that waits in suspense: only its going away matters."""
    taken = min(_taken_minor(piece), known.amount.minor)
    if taken <= known.taken_minor:
        return None
    amount = Money(taken, known.amount.asset)
    return events.PaymentReversed(money_ref=piece.money_ref, taken=amount, asked_at=asked_at)


def _is_gone(piece: Piece) -> bool:
    return piece.state is not PieceState.SETTLED or _taken_minor(piece) >= piece.amount.minor


def _taken_minor(piece: Piece) -> int:
    """How much of a piece that was ours is no longer ours, by what the rail says now."""
    match piece.state:
        case PieceState.SETTLED:
            return piece.reversed_amount.minor if piece.reversed_amount else 0
        case PieceState.REVERSED | PieceState.DISPUTED:
            return piece.reversed_amount.minor if piece.reversed_amount else piece.amount.minor
        case PieceState.SEEN | PieceState.HELD | PieceState.RETURNED:
            return piece.amount.minor  # a reorganised chain: final no more
        case never:
            assert_never(never)


def _vanished(payment: Payment, command: RecordObservation) -> Sequence[Event]:
    """Money on its way that the rail no longer mentions."""
    mentioned = {piece.money_ref for piece in command.observation.pieces}
    return [
        events.FundsVanished(money_ref=ref, asked_at=command.asked_at)
        for ref, known in payment.pieces.items()
        if ref not in mentioned
        and known.standing is PieceStanding.SEEN
        and known.asked_at <= command.asked_at
    ]


def _standing(payment: Payment, observation: Observation) -> Sequence[Event]:
    match observation.standing:
        case Standing.OPEN:
            return []
        case Standing.DECLINED:
            code = observation.decline_code or "declined"
            new = code != payment.decline_code and not _credited(payment)
            return [events.PaymentDeclined(decline_code=code)] if new else []
        case Standing.EXPIRED:
            return [events.PaymentExpired()] if may_expire(payment) else []
        case Standing.CLOSED:
            return [events.PaymentExpired(closed=True)] if may_expire(payment) else []
        case never:
            assert_never(never)


def _sighting(piece: Piece, asked_at: datetime, known: PieceRecord | None = None) -> dict[str, Any]:
    """What is said of money whenever it is first met. The earliest sight of it counts."""
    first = min(piece.first_seen_at, known.first_seen_at) if known else piece.first_seen_at
    return {
        "money_ref": piece.money_ref,
        "amount": piece.amount,
        "first_seen_at": first,
        "asked_at": asked_at,
    }


def _credited(payment: Payment) -> bool:
    return any(piece.credits for piece in payment.pieces.values())
