"""A network on which each invoice is paid once, and a rail that sends refunds over it.

Unlike the fake rail alone, it knows nothing of keys: that no refund is sent twice is the core's own doing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from ledger.money import Money
from rails.contract import PreparedRefund, RailUnavailable, Refund, RefundImpossible, RefundTo
from rails.testing.fake_rail import FakeRail

OPEN_AMOUNT = 0


@dataclass
class FakePayees:
    """Who can be paid: invoices `invoice<n>`, and addresses `<name>@payees`, which make a new one each time."""

    asked: dict[str, int] = field(default_factory=dict)
    """By invoice; `OPEN_AMOUNT` leaves it to the payer."""
    paid: dict[str, int] = field(default_factory=dict)
    """By invoice."""
    refused: set[str] = field(default_factory=set)
    answers_to_lose: int = 0
    """So many payments are made, and their outcome is not told."""
    silent: bool = False
    """Nobody answers who is asked for an invoice."""
    refuses: bool = False
    """No payment arrives."""

    def invoice(self, minor: int = OPEN_AMOUNT) -> str:
        """A new one."""
        name = f"invoice{len(self.asked)}"
        self.asked[name] = minor
        return name

    def pay(self, invoice: str, minor: int) -> Refund:
        """At most once; asking again tells how it ended."""
        if invoice in self.paid:
            return Refund.SENT
        if invoice in self.refused:
            return Refund.FAILED
        if self.refuses:
            self.refused.add(invoice)
            return Refund.FAILED
        self.paid[invoice] = minor
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            return Refund.UNKNOWN
        return Refund.SENT


class FakePayoutRail(FakeRail):
    """A fake rail whose refunds go to invoices. Implements `PreparesRefunds`."""

    def __init__(self, *arguments: Any, payees: FakePayees, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.capabilities = replace(self.capabilities, refund_to=RefundTo.INVOICE)
        self.payees = payees

    def destination_fault(self, destination: str, amount: Money) -> str | None:
        """As a rail of invoices would read it."""
        if destination.endswith("@payees"):
            return None
        if destination not in self.payees.asked:
            return "unreadable"
        return "other_amount" if self.payees.asked[destination] not in (OPEN_AMOUNT, amount.minor) else None

    async def prepare_refund(self, amount: Money, destination: str) -> PreparedRefund:
        """An address makes an invoice whenever it is asked."""
        if destination.endswith("@payees"):
            if self.payees.silent:
                raise RailUnavailable("nobody answers")
            destination = self.payees.invoice(amount.minor)
            await asyncio.sleep(0)  # others ask meanwhile
        if destination in self.payees.paid or destination in self.payees.refused:
            raise RefundImpossible("paid before")
        return PreparedRefund(destination=destination, claim=f"fake:{destination}")

    async def refund(self, reference: str, amount: Money, destination: str | None, key: str) -> Refund:
        """Pay the invoice, once."""
        assert destination is not None
        return self.payees.pay(destination, amount.minor)
