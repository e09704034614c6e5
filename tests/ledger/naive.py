"""A deliberately naive model of an account: every single credit is an object with a place.

It shares no code with the ledger. No arithmetic on lots, no slices, no running floors: to
hold five credits it sorts all credits and marks five of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


class No(Exception):
    """The model refuses."""


@dataclass(eq=False)
class Credit:
    lot: str
    where: str = "left"  # left, held, spent, gone
    holder: str = ""
    revoked: bool = False
    reversed: bool = False


@dataclass
class Terms:
    priority: int
    expires_at: datetime | None
    granted_at: datetime
    paid: bool
    payment: str = ""


@dataclass
class Holder:
    deadline: datetime | None  # None for a refund
    credits: list[Credit]


@dataclass
class NaiveAccount:
    credits: list[Credit] = field(default_factory=list)
    lots: dict[str, Terms] = field(default_factory=dict)
    holders: dict[str, Holder] = field(default_factory=dict)
    disputes: dict[str, tuple[str, int, Terms, datetime]] = field(default_factory=dict)
    debt: int = 0
    last_day: str = ""

    # What one can see

    def usable(self, now: datetime) -> list[Credit]:
        found = [c for c in self.credits if c.where == "left" and not self.over(c.lot, now)]
        return sorted(found, key=lambda c: self.order(c.lot))

    def over(self, lot: str, now: datetime) -> bool:
        expires_at = self.lots[lot].expires_at
        return expires_at is not None and expires_at <= now

    def order(self, lot: str) -> Any:
        terms = self.lots[lot]
        never = terms.expires_at is None
        return terms.priority, never, terms.expires_at if not never else 0, terms.granted_at, lot

    def held(self) -> int:
        return sum(c.where == "held" for c in self.credits)

    def posted(self, now: datetime) -> int:
        return len(self.usable(now)) + self.held()

    def left_by_lot(self) -> dict[str, int]:
        return {lot: n for lot in self.lots if (n := self.count(lot, "left")) or self.count(lot, "held")}

    def count(self, lot: str, where: str) -> int:
        return sum(c.lot == lot and c.where == where for c in self.credits)

    # What one can do

    def grant(self, lot: str, amount: int, terms: Terms, now: datetime) -> None:
        if amount <= 0 or (terms.expires_at is not None and terms.expires_at <= now) or lot in self.lots:
            raise No
        self.add(lot, amount, terms)

    def add(self, lot: str, amount: int, terms: Terms) -> None:
        self.lots[lot] = terms
        fresh = [Credit(lot) for _ in range(amount)]
        self.credits += fresh
        if terms.paid:
            for credit in fresh[: self.debt]:
                credit.where = "spent"
                self.debt -= 1

    def allowance(self, day: str, lot: str, terms: Terms) -> None:
        if self.debt or day <= self.last_day:
            return
        self.last_day = day
        self.add(lot, 20, terms)

    def hold(self, name: str, amount: int, deadline: datetime, now: datetime, only: str | None) -> None:
        usable = [c for c in self.usable(now) if only in (None, c.lot)]
        if amount <= 0 or name in self.holders or deadline <= now or self.debt or len(usable) < amount:
            raise No
        self.give_to(name, deadline, usable[:amount])

    def give_to(self, name: str, deadline: datetime | None, credits_: list[Credit]) -> None:
        for credit in credits_:
            credit.where, credit.holder = "held", name
        self.holders[name] = Holder(deadline, credits_)

    def open_hold(self, name: str) -> Holder:
        holder = self.holders.get(name)
        if holder is None or holder.deadline is None:
            raise No
        return holder

    def capture(self, name: str, amount: int | None, limit: int, now: datetime) -> None:
        holder = self.open_hold(name)
        if holder.deadline is not None and holder.deadline <= now:
            raise No
        ordered = sorted(holder.credits, key=lambda c: c.revoked)
        amount = len(ordered) if amount is None else amount
        beyond = self.usable(now)[: max(0, amount - len(ordered))]
        if amount <= 0 or amount - len(ordered) > limit or len(ordered) + len(beyond) < amount:
            raise No
        for credit in (*ordered[:amount], *beyond):
            credit.where = "spent"
            credit.reversed = credit.revoked
            self.debt += credit.revoked
        self.put_back(ordered[amount:], now)
        del self.holders[name]

    def put_back(self, credits_: list[Credit], now: datetime) -> None:
        for credit in credits_:
            credit.where = "gone" if credit.revoked or self.over(credit.lot, now) else "left"
        self.set_off(now)

    def release(self, name: str, now: datetime) -> None:
        self.put_back(self.open_hold(name).credits, now)
        del self.holders[name]

    def expire(self, name: str, now: datetime) -> None:
        deadline = self.open_hold(name).deadline
        if deadline is None or deadline > now:
            raise No
        self.release(name, now)

    def move(self, name: str, to: str, deadline: datetime, now: datetime) -> None:
        holder = self.open_hold(name)
        late = holder.deadline is not None and holder.deadline <= now
        if late or deadline <= now or (to != name and to in self.holders):
            raise No
        del self.holders[name]
        self.give_to(to, deadline, holder.credits)

    def expire_lots(self, now: datetime) -> None:
        for credit in self.credits:
            if credit.where == "left" and self.over(credit.lot, now):
                credit.where = "gone"

    def reverse(self, ref: str, lot: str, amount: int, now: datetime, *, dispute: bool) -> None:
        if ref in self.disputes:
            raise No
        mine = [c for c in self.credits if c.lot == lot]
        for credit in mine:
            if credit.where == "left" and self.over(lot, now):
                credit.where = "gone"
        left = [c for c in mine if c.where == "left"][:amount]
        for credit in left:
            credit.where = "gone"
        held = self.held_latest_first(lot)[: amount - len(left)]
        for credit in held:
            credit.revoked = True
        spent = [c for c in mine if c.where == "spent" and not c.reversed][: amount - len(left) - len(held)]
        for credit in spent:
            credit.reversed = True
        self.debt += len(spent)
        if dispute:
            taken = len(left) + len(held) + len(spent)
            self.disputes[ref] = (lot, taken, self.lots[lot], now)
        if spent:
            self.set_off(now)

    def held_latest_first(self, lot: str) -> list[Credit]:
        timed = [(h.deadline, name, h) for name, h in self.holders.items() if h.deadline is not None]
        holders = [h for _, _, h in sorted(timed, key=lambda t: t[:2], reverse=True)]
        holders += [h for h in self.holders.values() if h.deadline is None]
        return [c for h in holders for c in h.credits if c.lot == lot and not c.revoked]

    def set_off(self, now: datetime) -> None:
        paid = [c for c in self.usable(now) if self.lots[c.lot].paid]
        for credit in paid[: self.debt]:
            credit.where = "spent"
            self.debt -= 1

    def restore(self, ref: str, lot: str, now: datetime) -> None:
        if ref not in self.disputes:
            raise No
        _, taken, terms, since = self.disputes.pop(ref)
        life = None if terms.expires_at is None else terms.expires_at - since
        expires_at = now + life if life is not None and life.total_seconds() > 0 else None
        self.add(lot, max(1, taken), Terms(terms.priority, expires_at, now, paid=True, payment=terms.payment))

    def lose(self, ref: str) -> None:
        if self.disputes.pop(ref, None) is None:
            raise No

    def refund(self, name: str, lot: str, amount: int, now: datetime) -> None:
        left = [c for c in self.credits if c.lot == lot and c.where == "left"]
        disputed = any(d[2].payment == self.lots[lot].payment for d in self.disputes.values())
        if name in self.holders or not self.lots[lot].paid or self.over(lot, now) or disputed:
            raise No
        if not 0 < amount <= len(left):
            raise No
        self.give_to(name, None, left[:amount])

    def resolve_refund(self, name: str, outcome: str, now: datetime) -> None:
        holder = self.holders.get(name)
        if holder is None or holder.deadline is not None:
            raise No
        if outcome == "unknown":
            return
        if outcome == "failed":
            self.put_back(holder.credits, now)
        for credit in holder.credits if outcome == "sent" else ():
            credit.where = "gone"
        del self.holders[name]

    def withdraw(self, amount: int, now: datetime) -> None:
        usable = self.usable(now)
        if len(usable) < amount:
            raise No
        for credit in usable[:amount]:
            credit.where = "gone"

    def forgive(self, amount: int) -> None:
        if not 0 < amount <= self.debt:
            raise No
        self.debt -= amount
