"""Lots: credits granted by one cause, kept in the order in which they are used up."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from ledger.domain.consideration import NOTHING, Consideration, Slice, Worth, next_part


class Source(StrEnum):
    """Why a lot was granted."""

    ALLOWANCE = "allowance"
    """A plan's daily credits."""
    PASS = "pass"  # noqa: S105 - a day pass, not a password
    """A session or hourly pass."""
    SUBSCRIPTION = "subscription"
    """A plan's credits for a paid period."""
    PROMOTION = "promotion"
    ADJUSTMENT = "adjustment"
    """By hand, with actor and reason."""
    PAYMENT = "payment"
    """A top-up or a pack."""
    RESTORED = "restored"
    """Came back after a dispute was won."""
    OVERAGE = "overage"
    """Used beyond what was there, to be billed."""


PRIORITY = {
    Source.ALLOWANCE: 0,
    Source.PASS: 5,
    Source.SUBSCRIPTION: 10,
    Source.PROMOTION: 20,
    Source.ADJUSTMENT: 25,
    Source.PAYMENT: 30,
    Source.RESTORED: 30,
    Source.OVERAGE: 90,
}
"""What is used up first, lowest first, unless a grant says otherwise."""

CAPPED = frozenset({Source.ALLOWANCE.value, Source.SUBSCRIPTION.value})
"""Sources that count against a plan's allowance."""

_NEVER = datetime(9999, 12, 31, tzinfo=UTC)


class LotTerms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What never changes about a lot."""

    lot_id: str
    source: str
    credits: int
    granted_at: datetime
    priority: int
    expires_at: datetime | None = None
    consideration: Consideration | None = None
    reference: str = ""
    """What the lot came from: a payment, a period, an adjustment."""
    spent_before: int = 0
    """Of a lot that moved from a guest: what had been spent or held there, should a dispute ask."""
    period: str = ""
    """Of an allowance, a subscription or an overage: the period it was granted for."""


class Lot(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A lot now. Always `credits == left + held + spent + withdrawn`."""

    terms: LotTerms
    left: int
    """Neither held nor gone."""
    held: int = 0
    spent: int = 0
    """Captured for good."""
    withdrawn: int = 0
    """Gone without being used: expired, refunded, reversed, moved, adjusted."""
    reversed: int = 0
    """Of `spent`: turned into debt because the money went back."""
    out: Worth = NOTHING
    """The worth of everything that is not left."""

    @property
    def left_worth(self) -> Worth:
        """The part of the consideration that the credits left still carry."""
        consideration = self.terms.consideration
        return NOTHING if consideration is None else consideration.worth - self.out


def owable(lot: Lot) -> int:
    """Spent credits that a reversal can still turn into debt."""
    return lot.spent + lot.terms.spent_before - lot.reversed


class ClosedLot(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is remembered of a used-up paid lot, so that a late dispute knows what was spent.

    Also stored in events, where a guest's memory goes with it to a person.
    """

    lot_id: str
    spent: int
    priority: int
    reversed: int = 0
    expires_at: datetime | None = None
    partly: bool = False
    """Not all of its credits were spent: some lapsed, or went back, or moved."""

    @property
    def plain(self) -> bool:
        """Whether a lot that nobody remembers would be treated just the same."""
        payment = PRIORITY[Source.PAYMENT]
        return not (self.partly or self.reversed or self.expires_at) and self.priority == payment


def is_expired(lot: Lot, now: datetime) -> bool:
    """Whether the lot's time is over; acts whether or not it has been booked."""
    expires_at = lot.terms.expires_at
    return expires_at is not None and expires_at <= now


def insert(lots: tuple[Lot, ...], lot: Lot) -> tuple[Lot, ...]:
    """Add a lot in burn-down order: priority, expiry, grant time."""
    return tuple(sorted((*lots, lot), key=_burn_down))


def _burn_down(lot: Lot) -> tuple[int, datetime, datetime, str]:
    terms = lot.terms
    return terms.priority, terms.expires_at or _NEVER, terms.granted_at, terms.lot_id


def slice_of(lot: Lot, amount: int) -> Slice:
    """The next `amount` credits of what is left in a lot, with their part of the consideration."""
    terms = lot.terms
    consideration = terms.consideration
    if consideration is None:
        return Slice(terms.lot_id, amount, terms.source)
    worth = next_part(consideration.worth, lot.out, terms.credits - lot.left, amount, terms.credits)
    return Slice(terms.lot_id, amount, terms.source, consideration.asset.code, consideration.rail, worth)


def take(lots: tuple[Lot, ...], amount: int, now: datetime) -> tuple[Slice, ...] | None:
    """Slices of usable lots in burn-down order, or None if there is not enough."""
    slices: tuple[Slice, ...] = ()
    for lot in lots:
        left = lot.left
        if left <= 0:
            continue
        expires_at = lot.terms.expires_at
        if expires_at is not None and expires_at <= now:
            continue
        if left >= amount:
            return (*slices, slice_of(lot, amount)) if slices else (slice_of(lot, amount),)
        slices = (*slices, slice_of(lot, left))
        amount -= left
    return None


def available(lots: tuple[Lot, ...], now: datetime) -> int:
    """Credits that a hold could take now."""
    return sum(lot.left for lot in lots if not is_expired(lot, now))


def find(lots: tuple[Lot, ...], lot_id: str) -> Lot | None:
    """The lot with this id."""
    for lot in lots:
        if lot.terms.lot_id == lot_id:
            return lot
    return None


def held_from(lot: Lot, portion: Slice) -> Lot:
    """The lot after `portion` of what was left became held."""
    worth = portion.worth
    return Lot(
        lot.terms,
        lot.left - portion.credits,
        lot.held + portion.credits,
        lot.spent,
        lot.withdrawn,
        lot.reversed,
        lot.out if worth is None else lot.out + worth,
    )


def spent_from(lot: Lot, portion: Slice) -> Lot:
    """The lot after a held `portion` was captured."""
    return Lot(
        lot.terms,
        lot.left,
        lot.held - portion.credits,
        lot.spent + portion.credits,
        lot.withdrawn,
        lot.reversed + portion.credits if portion.revoked else lot.reversed,
        lot.out,
    )


def returned_to(lot: Lot, portion: Slice) -> Lot:
    """The lot after a held `portion` came back."""
    worth = portion.worth
    return Lot(
        lot.terms,
        lot.left + portion.credits,
        lot.held - portion.credits,
        lot.spent,
        lot.withdrawn,
        lot.reversed,
        lot.out if worth is None else lot.out - worth,
    )


def withdrawn_held(lot: Lot, portion: Slice) -> Lot:
    """The lot after a held `portion` left for good without being used."""
    return Lot(
        lot.terms,
        lot.left,
        lot.held - portion.credits,
        lot.spent,
        lot.withdrawn + portion.credits,
        lot.reversed,
        lot.out,
    )


def withdrawn_left(lot: Lot, portion: Slice) -> Lot:
    """The lot after `portion` of what was left went away without being used."""
    worth = portion.worth
    return Lot(
        lot.terms,
        lot.left - portion.credits,
        lot.held,
        lot.spent,
        lot.withdrawn + portion.credits,
        lot.reversed,
        lot.out if worth is None else lot.out + worth,
    )


def spent_left(lot: Lot, portion: Slice) -> Lot:
    """The lot after `portion` of what was left was used at once, without a hold."""
    worth = portion.worth
    return Lot(
        lot.terms,
        lot.left - portion.credits,
        lot.held,
        lot.spent + portion.credits,
        lot.withdrawn,
        lot.reversed,
        lot.out if worth is None else lot.out + worth,
    )
