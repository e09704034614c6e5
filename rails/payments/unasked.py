"""A payment that its rail opened by itself: an invoice of a subscription. Runs inside a transaction of others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ledger.log.model import Event, UnitOfWork
from rails.contract import Observation
from rails.domain import events
from rails.domain import payment as domain
from rails.domain.posting import post
from rails.domain.reading import RecordObservation
from rails.domain.topup import payment_row
from rails.payments.recording import claim
from rails.store.tables import ORDINAL_TABLE, PAYMENT_TABLE, REFERENCE_TABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Unasked:
    """What is known of such a payment when it is first met."""

    payment_id: str
    account_id: str
    rail: str
    money: Observation
    asked_at: datetime
    lot_ids: Sequence[str]
    """Enough for every lot that may have to be granted (`lots_needed_max`)."""


def open_unasked(
    uow: UnitOfWork, found: Unasked, facts: Callable[[int], events.PaymentOpened]
) -> Sequence[Event]:
    """Open it and credit what arrived, in one step; returns what happened. `facts` gets the rail's next ordinal.

    The transaction declares the streams of payment and account, the rail's ordinal and the rows of the money.
    Raises `PaymentAccountMoved`, `MoneyCreditedElsewhere`, and whatever the account refuses.
    """
    row = uow.get(ORDINAL_TABLE, found.rail)
    ordinal = 1 if row is None else row["last"] + 1
    uow.put(ORDINAL_TABLE, {"rail": found.rail, "last": ordinal})
    payment_id, reference = found.payment_id, found.money.reference
    happened: list[Event] = []
    for command in (
        domain.OpenPayment(facts=facts(ordinal)),
        domain.IssueInstructions(reference_digest=hashlib.sha256(reference.encode()).hexdigest()),
        RecordObservation(observation=found.money, asked_at=found.asked_at, lot_ids=tuple(found.lot_ids)),
    ):
        decided = domain.decide(uow.state(payment_id), command, uow.now)
        claim(uow, payment_id, decided)
        uow.append(payment_id, decided)
        happened += decided
    post(uow, found.account_id, payment_id, uow.state(payment_id), happened)
    uow.put(PAYMENT_TABLE, payment_row(payment_id, uow.state(payment_id), found.account_id, uow.now))
    uow.put(
        REFERENCE_TABLE,
        {"payment_id": payment_id, "rail": found.rail, "ordinal": ordinal, "reference": reference},
    )
    return happened
