"""Appends to an account what follows from a payment's events. Runs inside the payment's own transaction."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.domain import account as accounts
from ledger.log.model import Event, UnitOfWork
from rails.domain.buying import one_by_one, purchase_commands
from rails.domain.crediting import PaymentAccountMoved, ledger_commands
from rails.domain.state import Payment


def post(
    uow: UnitOfWork, account_id: str, payment_id: str, payment: Payment, happened: Sequence[Event]
) -> None:
    """Append to the account's stream what follows from a payment's events; `payment` is as it is after them.

    Raises `PaymentAccountMoved(into=…)` if the account has been merged: run it again there.
    """
    facts = payment.facts()
    is_plain = facts.purchase is None and facts.invoiced is None
    for event in happened if is_plain else one_by_one(happened):
        if is_plain:
            commands = ledger_commands(payment_id, facts.rail, event)
        else:
            commands = purchase_commands(payment_id, payment, event, uow.state(account_id), uow.now)
        for command in commands:
            account = uow.state(account_id)
            if account.status.merged_into:
                raise PaymentAccountMoved(into=account.status.merged_into)
            uow.append(account_id, accounts.decide(account, command, uow.now))
