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
from ledger.domain.state import Account, remembering, with_lots, with_status
from ledger.log import tables
from ledger.log.model import Event, SideTable, UnitOfWork

MERGES = SideTable(tables.account_merges)
"""Guests of whom something is still to be moved. Worked off by whoever keeps the follow-ups."""

MERGED = SideTable(tables.merged_accounts)
"""Whose it is what a merged guest made: written with the merge, never changed."""


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
    into = guest.status.merged_into
    if into and into != person_id:
        raise AccountMerged(into=into)
    if person.status.merged_into and not into:
        raise AccountMerged(into=person.status.merged_into)
    if into and not anything_left(guest, now):
        return [], []
    slices: list[Slice] = []
    moved: list[LotTerms] = []
    for lot in guest.lots:
        if _moves(lot, now):
            slices.append(lots_.slice_of(lot, lot.left))
            moved.append(_terms_of_rest(lot, person))
    closed, disputes = guest.status.closed, guest.status.disputes
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
    owing = Account(person.lots, person.holds, person.debt + guest.debt, person.usage, person.status)
    arrived = with_debt_repaid(owing, arrived)
    repaid = sum(event.credits for event in arrived if isinstance(event, DebtRepaid))
    return out, arrived + set_off(person, owing.debt - repaid, now)


def anything_left(guest: Account, now: datetime) -> bool:
    """Whether a merge would move anything: paid credits, a debt, or what is remembered for disputes."""
    status = guest.status
    return bool(guest.debt or status.closed or status.disputes or any(_moves(lot, now) for lot in guest.lots))


def note_what_is_left(uow: UnitOfWork, account_id: str, account: Account) -> None:
    """The follow-up of every event of a merged guest that leaves something with it: to merge once more.

    It replaces a row that waits already and makes it due now; whoever is at work on that row finds
    it changed, and leaves it.
    """
    into = account.status.merged_into
    if into and anything_left(account, uow.now):
        uow.put(MERGES, {"account_id": account_id, "into_account": into, "due_at": uow.now})


def _moves(lot: Lot, now: datetime) -> bool:
    return lot.terms.consideration is not None and lot.left > 0 and not lots_.is_expired(lot, now)


def _knows(account: Account, lot_id: str) -> bool:
    return lots_.find(account.lots, lot_id) is not None or any(
        closed.lot_id == lot_id for closed in account.status.closed
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
    status = msgspec.structs.replace(account.status, merged_into=event.to_account, closed=(), disputes=())
    return with_status(account, status)


def moved_in(account: Account, event: CreditsMovedIn) -> Account:
    """The person's account has the guest's lots, and remembers what the guest remembered."""
    lots = account.lots
    for terms in event.lots:
        lots = lots_.insert(lots, Lot(terms, terms.credits))
    account = with_lots(account, lots)
    if event.disputes:
        disputes = (*account.status.disputes, *event.disputes)
        account = with_status(account, msgspec.structs.replace(account.status, disputes=disputes))
    return remembering(account, event.closed) if event.closed else account
