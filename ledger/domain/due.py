"""When time will next do something to an account that should be booked. Pure.

Breakage and earned days act by time whether or not anybody books them. Booking them is the work
of a sweep, and these functions say which accounts it has to visit, and when.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from ledger.domain.events import CreditsGranted, CreditsMovedIn, EarningScheduled
from ledger.domain.state import Account
from ledger.log.model import Event


def next_due(account: Account, now: datetime) -> datetime | None:
    """When the next lot lapses or the next day is earned; None if time does nothing to the account.

    A lot that is wholly held counts until its time is over: what comes back before then lapses then. What
    comes back later lapses by the command that gives it back.
    """
    due = [
        expires_at
        for lot in account.lots
        if (expires_at := lot.terms.expires_at) is not None and (lot.left or (lot.held and expires_at > now))
    ]
    due += [_end_of(s.first_day + timedelta(days=s.earned_days)) for s in account.status.schedules]
    return min(due, default=None)


def due_after(event: Event) -> datetime | None:
    """The earliest instant at which this event makes its account due, as far as the event tells."""
    match event:
        case CreditsGranted(expires_at=expires_at):
            return expires_at
        case CreditsMovedIn(lots=lots):
            return min((lot.expires_at for lot in lots if lot.expires_at is not None), default=None)
        case EarningScheduled(first_day=first_day):
            return _end_of(first_day)
        case _:
            return None


def _end_of(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), UTC)
