"""The fake network's own books: what moved there, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ledger.clock import Clock
from ledger.money import Asset, Money
from rails.contract import FundsReceipt, ReceiptState
from rails.movements import Movement, MovementKind, MovementPage

PAGE = 3
"""Movements of one answer: few, so that going on is tried."""


@dataclass(slots=True)
class _Account:
    received: int = 0
    taken_back: int = 0
    fee: int = 0
    costs: int = 0


@dataclass(slots=True)
class FakeBooks:
    """Every change of a funds receipt is a movement."""

    clock: Clock
    name: str = "fake"
    entries: list[Movement] = field(default_factory=list)
    """May be changed by a test, to have the outside say something else."""
    before: dict[Asset, int] = field(default_factory=dict)
    """What was held before the first movement, in minor units."""
    _known: dict[str, _Account] = field(default_factory=dict)

    def note(self, receipt: FundsReceipt) -> None:
        """A funds receipt is so now."""
        known = self._known.setdefault(receipt.money_ref, _Account())
        if receipt.state in (ReceiptState.SEEN, ReceiptState.HELD, ReceiptState.RETURNED):
            return
        asset = receipt.amount.asset
        if not known.received:
            known.received, known.fee = receipt.amount.minor, _minor(receipt.fee)
            self.add(
                MovementKind.RECEIVED,
                receipt.amount,
                receipt.money_ref,
                fee=receipt.fee,
                at=receipt.first_seen_at,
            )
        taken = _minor(receipt.reversed_amount) if receipt.reversed_amount else 0
        if receipt.state is not ReceiptState.SETTLED and receipt.reversed_amount is None:
            taken = receipt.amount.minor
        costs = _minor(receipt.costs)
        if taken != known.taken_back or costs != known.costs:
            back = Money(known.taken_back - taken, asset)
            fee = Money(costs - known.costs, asset)
            known.taken_back, known.costs = taken, costs
            self.add(MovementKind.TAKEN_BACK, back, receipt.money_ref, fee=fee)

    def add(
        self,
        kind: MovementKind,
        amount: Money,
        money_ref: str | None = None,
        *,
        fee: Money | None = None,
        consists_of: Money | None = None,
        at: datetime | None = None,
    ) -> Movement:
        """Something moved, now if nothing else is said."""
        movement = Movement(
            movement_ref=f"{self.name}-move-{len(self.entries) + 1}",
            kind=kind,
            amount=amount,
            fee=fee,
            money_ref=money_ref,
            occurred_at=at or self.clock(),
            consists_of=consists_of,
        )
        self.entries.append(movement)
        return movement

    def page(self, cursor: str | None) -> MovementPage:
        """From the beginning, whatever was asked for: those that are known are given again."""
        begins = int(cursor or 0)
        found = self.entries[begins : begins + PAGE]
        reached = begins + len(found)
        return MovementPage(
            movements=tuple(found), cursor=str(reached), complete=reached == len(self.entries)
        )

    def holdings(self) -> tuple[Money, ...]:
        """The sum of everything."""
        sums = dict(self.before)
        for entry in self.entries:
            asset = entry.amount.asset
            sums[asset] = sums.get(asset, 0) + entry.amount.minor - _minor(entry.fee)
        return tuple(Money(minor, asset) for asset, minor in sums.items())


def _minor(amount: Money | None) -> int:
    return 0 if amount is None else amount.minor
