"""Money for what was used beyond a plan. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.domain.commands import BillOverage, Command, GrantCredits
from ledger.domain.consideration import NOTHING, Consideration
from ledger.domain.lots import Source
from ledger.money import USD
from rails.domain import events
from rails.domain.crediting import paid
from rails.domain.purchases import part_of


def billing(payment_id: str, rail: str, event: events.PaymentSettled, owed: int) -> Sequence[Command]:
    """It pays for what is owed. Money for more than that becomes plain credits, so that it never buys nothing."""
    settled = min(event.credits, max(owed, 0))
    worth = part_of(event.worth, settled, event.credits)
    commands: list[Command] = []
    if settled:
        money = paid(payment_id, rail, event.rate, worth)
        commands.append(BillOverage(credits=settled, consideration=money))
    if event.credits > settled:
        commands.append(
            GrantCredits(
                lot_id=event.lot_id,
                credits=event.credits - settled,
                source=Source.PAYMENT,
                consideration=paid(payment_id, rail, event.rate, event.worth - worth),
                reference=payment_id,
            )
        )
    return commands


def written_off(rail: str, credits_: int, owed: int) -> Sequence[Command]:
    """Nobody will pay for it: a discount left nothing to pay, or there is no subscription any more to bill it with."""
    amount = min(credits_, owed)
    if amount <= 0:
        return []
    nothing = Consideration(asset=USD, worth=NOTHING, rail=rail, payment_id="")
    return [BillOverage(credits=amount, consideration=nothing)]
