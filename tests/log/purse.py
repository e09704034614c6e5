"""A tiny domain to test the log with: a purse that coins go into and out of."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from ledger.errors import Refusal
from ledger.identifiers import CommandKey
from ledger.log.model import Category, Event, SideTable, Transaction, UnitOfWork, Violation


class CoinsAdded(Event):
    amount: int


class CoinsTaken(Event):
    amount: int


class Purse(msgspec.Struct, frozen=True):
    coins: int = 0


class TooFewCoins(Refusal):
    """Details: `wanted` and `there`."""

    code = "too_few_coins"
    message = "There are too few coins in the purse."


def evolve(purse: Purse, event: Event) -> Purse:
    match event:
        case CoinsAdded(amount=amount):
            return Purse(purse.coins + amount)
        case CoinsTaken(amount=amount):
            return Purse(purse.coins - amount)
    return purse


def check(before: Purse, event: Event, after: Purse) -> Violation | None:
    return Violation((f"the purse has {after.coins} coins",), before, after) if after.coins < 0 else None


PURSES = Category(
    prefix="purse",
    events={"test.coins_added.v1": CoinsAdded, "test.coins_taken.v1": CoinsTaken},
    initial=Purse(),
    evolve=evolve,
    snapshot_type=Purse,
    check=check,
)
metadata = sa.MetaData()
NOTES = SideTable(
    sa.Table(
        "test_notes",
        metadata,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("count", sa.Integer, sa.CheckConstraint("count < 100")),
        sa.Column("data", sa.JSON),
    )
)


def add(key: str, purse: str, amount: int, *, fails: bool = False) -> Transaction:
    def decide(uow: UnitOfWork) -> Any:
        uow.append(purse, [CoinsAdded(amount=amount)])
        if fails:
            raise ZeroDivisionError
        return {"coins": uow.state(purse).coins}

    return Transaction(
        key=CommandKey(key), actor="system:test", body=["add", purse, amount], streams=(purse,), decide=decide
    )


def take(key: str, purse: str, amount: int) -> Transaction:
    def decide(uow: UnitOfWork) -> Any:
        if uow.state(purse).coins < amount:
            raise TooFewCoins(wanted=amount, there=uow.state(purse).coins)
        uow.append(purse, [CoinsTaken(amount=amount)])
        return {"coins": uow.state(purse).coins}

    return Transaction(
        key=CommandKey(key),
        actor="system:test",
        body=["take", purse, amount],
        streams=(purse,),
        decide=decide,
    )


def move(key: str, source: str, target: str, amount: int) -> Transaction:
    """Put first, take second: a refusal must undo what came before it."""

    def decide(uow: UnitOfWork) -> Any:
        uow.append(target, [CoinsAdded(amount=amount)])
        if uow.state(source).coins < amount:
            raise TooFewCoins(wanted=amount, there=uow.state(source).coins)
        uow.append(source, [CoinsTaken(amount=amount)])
        return None

    return Transaction(
        key=CommandKey(key),
        actor="system:test",
        body=["move", source, target, amount],
        streams=(source, target),
        decide=decide,
    )


def overdraw(key: str, purse: str, amount: int, *, first: str = "purse_z") -> Transaction:
    """Forget to ask what is there, after something harmless."""

    def decide(uow: UnitOfWork) -> Any:
        uow.append(first, [CoinsAdded(amount=1)])
        uow.append(purse, [CoinsAdded(amount=1), CoinsTaken(amount=amount)])

    return Transaction(
        key=CommandKey(key),
        actor="system:test",
        body=["overdraw", purse, amount],
        streams=(purse, first),
        decide=decide,
    )


def note(key: str, row: str, step: int = 1, purse: str | None = None) -> Transaction:
    """Count on a row of another table, together with an event if a purse is given."""

    def decide(uow: UnitOfWork) -> Any:
        before = uow.get(NOTES, row)
        count = (before["count"] if before else 0) + step
        uow.put(NOTES, {"id": row, "count": count, "data": {"seen": [count]}})
        if purse is not None:
            uow.append(purse, [CoinsAdded(amount=1)])
        return {"count": count}

    return Transaction(
        key=CommandKey(key),
        actor="system:test",
        body=["note", row, step],
        streams=() if purse is None else (purse,),
        rows=((NOTES, row),),
        decide=decide,
    )


def erase(key: str, row: str) -> Transaction:
    return Transaction(
        key=CommandKey(key),
        actor="system:test",
        body=["erase", row],
        streams=(),
        decide=lambda uow: uow.delete(NOTES, row),
    )
