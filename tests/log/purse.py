"""A tiny domain to test the log with: a purse that coins go into and out of."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from ledger.errors import Refusal
from ledger.identifiers import CommandKey
from ledger.log.model import Category, Draft, Event, SideTable, Transaction


class CoinsAdded(Event):
    amount: int


class CoinsTaken(Event):
    amount: int


class Purse(msgspec.Struct, frozen=True):
    coins: int = 0


class TooFewCoins(Refusal):
    """There are too few coins in the purse."""


def evolve(purse: Purse, event: Event) -> Purse:
    match event:
        case CoinsAdded(amount=amount):
            return Purse(purse.coins + amount)
        case CoinsTaken(amount=amount):
            return Purse(purse.coins - amount)
    return purse


PURSES = Category(
    prefix="purse",
    events={"test.coins_added.v1": CoinsAdded, "test.coins_taken.v1": CoinsTaken},
    initial=Purse(),
    evolve=evolve,
    snapshot_type=Purse,
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
    def decide(draft: Draft) -> Any:
        draft.append(purse, [CoinsAdded(amount=amount)])
        if fails:
            raise ZeroDivisionError
        return {"coins": draft.state(purse).coins}

    return Transaction(
        key=CommandKey(key), actor="system:test", body=["add", purse, amount], streams=(purse,), decide=decide
    )


def take(key: str, purse: str, amount: int) -> Transaction:
    def decide(draft: Draft) -> Any:
        if draft.state(purse).coins < amount:
            raise TooFewCoins(wanted=amount, there=draft.state(purse).coins)
        draft.append(purse, [CoinsTaken(amount=amount)])
        return {"coins": draft.state(purse).coins}

    return Transaction(
        key=CommandKey(key),
        actor="system:test",
        body=["take", purse, amount],
        streams=(purse,),
        decide=decide,
    )


def move(key: str, source: str, target: str, amount: int) -> Transaction:
    """Put first, take second: a refusal must undo what came before it."""

    def decide(draft: Draft) -> Any:
        draft.append(target, [CoinsAdded(amount=amount)])
        if draft.state(source).coins < amount:
            raise TooFewCoins(wanted=amount, there=draft.state(source).coins)
        draft.append(source, [CoinsTaken(amount=amount)])
        return None

    return Transaction(
        key=CommandKey(key),
        actor="system:test",
        body=["move", source, target, amount],
        streams=(source, target),
        decide=decide,
    )


def note(key: str, row: str, step: int = 1, purse: str | None = None) -> Transaction:
    """Count on a row of another table, together with an event if a purse is given."""

    def decide(draft: Draft) -> Any:
        before = draft.get(NOTES, row)
        count = (before["count"] if before else 0) + step
        draft.put(NOTES, {"id": row, "count": count, "data": {"seen": [count]}})
        if purse is not None:
            draft.append(purse, [CoinsAdded(amount=1)])
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
        decide=lambda draft: draft.delete(NOTES, row),
    )
