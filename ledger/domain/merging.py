"""A guest signs in: paid lots move with their considerations, allowances do not."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ledger.domain import lots as lots_
from ledger.domain.consideration import Slice, total
from ledger.domain.events import CreditsMovedIn, CreditsMovedOut, DebtForgiven, DebtIncurred, DebtRepaid
from ledger.domain.granting import set_off, with_debt_repaid, withdraw_all
from ledger.domain.lots import Lot, LotTerms
from ledger.domain.refusals import AccountMerged, AccountNotMergeable
from ledger.domain.state import Account, remembering, with_lots, with_standing
from ledger.log.model import Event


def decide_merge(
    guest: Account, person: Account, guest_id: str, person_id: str, now: datetime
) -> tuple[list[Event], list[Event]]:
    """The events of both streams: (guest's, person's).

    A guest is merged into one account once; asking again moves only what has become free
    since (slices of jobs that were running then), also if that account has itself been merged
    meanwhile: merging it again sends them on. A debt goes with its guest.
    """
    if guest_id == person_id:
        raise AccountNotMergeable(account_id=guest_id)
    into = guest.standing.merged_into
    if into and into != person_id:
        raise AccountMerged(into=into)
    if person.standing.merged_into and not into:
        raise AccountMerged(into=person.standing.merged_into)
    slices: list[Slice] = []
    moved: list[LotTerms] = []
    for lot in guest.lots:
        if lot.terms.consideration is None or lot.left <= 0 or lots_.is_expired(lot, now):
            continue
        slices.append(lots_.slice_of(lot, lot.left))
        moved.append(_terms_of_rest(lot, person))
    closed, disputes = guest.standing.closed, guest.standing.disputes
    if into and not (slices or guest.debt or closed or disputes):
        return [], []
    amount = total(tuple(slices))
    out: list[Event] = [CreditsMovedOut(to_account=person_id, credits=amount, slices=tuple(slices))]
    arrived: list[Event] = []
    if moved or closed or disputes:
        known = tuple(lot for lot in closed if not _knows(person, lot.lot_id))
        arrived.append(
            CreditsMovedIn(
                from_account=guest_id, credits=amount, lots=tuple(moved), closed=known, disputes=disputes
            )
        )
    if guest.debt:
        out.append(DebtForgiven(credits=guest.debt, actor="system:merge", reason="moved"))
        arrived.insert(0, DebtIncurred(credits=guest.debt, cause="merge", reference=guest_id))
    owing = Account(person.lots, person.holds, person.debt + guest.debt, person.usage, person.standing)
    arrived = with_debt_repaid(owing, arrived)
    repaid = sum(event.credits for event in arrived if isinstance(event, DebtRepaid))
    return out, arrived + set_off(person, owing.debt - repaid, now)


def _knows(account: Account, lot_id: str) -> bool:
    return lots_.find(account.lots, lot_id) is not None or any(
        closed.lot_id == lot_id for closed in account.standing.closed
    )


def _terms_of_rest(lot: Lot, person: Account) -> LotTerms:
    """What is left of a lot, as a lot of its own.

    A lot that moves twice needs another id: a reversal of the payment asks for the lot's own id,
    and must find the first part, which knows what has been spent of the whole.
    """
    paid = lot.terms.consideration
    lot_id = lot.terms.lot_id
    while _knows(person, lot_id):
        lot_id += "_rest"
    return msgspec.structs.replace(
        lot.terms,
        lot_id=lot_id,
        credits=lot.left,
        spent_before=lots_.owable(lot) + lot.held,
        consideration=None if paid is None else msgspec.structs.replace(paid, worth=lot.left_worth),
    )


def moved_out(account: Account, event: CreditsMovedOut) -> Account:
    """The guest's free paid credits are gone, and the guest account is closed to new holds."""
    account = withdraw_all(account, event.slices)
    standing = msgspec.structs.replace(account.standing, merged_into=event.to_account, closed=(), disputes=())
    return with_standing(account, standing)


def moved_in(account: Account, event: CreditsMovedIn) -> Account:
    """The person's account has the guest's lots, and remembers what the guest remembered."""
    lots = account.lots
    for terms in event.lots:
        lots = lots_.insert(lots, Lot(terms, terms.credits))
    account = with_lots(account, lots)
    if event.disputes:
        disputes = (*account.standing.disputes, *event.disputes)
        account = with_standing(account, msgspec.structs.replace(account.standing, disputes=disputes))
    return remembering(account, event.closed) if event.closed else account
