"""How an account is served, by its plan and by whether anybody has paid for its credits."""

from __future__ import annotations

from datetime import datetime

from generation.domain.fairness import FREE, PAID, PRIORITY, Tier
from ledger.domain.lots import is_expired
from ledger.domain.state import Account
from ledger.domain.view import plan_in_force


def tier_of(account: Account, now: datetime) -> Tier:
    """The tier of an account at an instant."""
    if plan_in_force(account, now).priority:
        return PRIORITY
    paid = (lot for lot in account.lots if lot.terms.consideration is not None)
    return PAID if any(lot.held or not is_expired(lot, now) for lot in paid) else FREE
