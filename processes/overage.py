"""What was used beyond a plan, from the capture of its hold to its rail: a row in the capture's own transaction."""

from __future__ import annotations

from datetime import timedelta

from ledger.domain.events import HoldCaptured
from ledger.domain.lots import Source
from ledger.domain.state import Account
from ledger.domain.view import billing_subscription
from ledger.log.model import Event, UnitOfWork
from rails.reconciliation.service import next_night
from rails.store.usage import TOTAL_TABLE, USE_TABLE

COUNTED_AFTER = timedelta(hours=1)


def on_account_event(uow: UnitOfWork, stream: str, _version: int, event: Event, account: Account) -> None:
    """See `Category.on_event`: credits beyond the plan were used, and are to be billed."""
    if not isinstance(event, HoldCaptured):
        return
    used = sum(portion.credits for portion in event.slices if portion.source == Source.OVERAGE)
    if not used:
        return
    subscription = billing_subscription(account, uow.now)
    name = "" if subscription is None else subscription.subscription_id
    uow.put(
        USE_TABLE,
        {
            "use_id": event.hold_id,
            "account_id": stream,
            "subscription_id": name,
            "credits": used,
            "used_at": uow.now,
            "state": "waiting",
            "due_at": uow.now,
        },
    )
    if name:
        uow.put(TOTAL_TABLE, {"subscription_id": name, "due_at": next_night(uow.now + COUNTED_AFTER)})
