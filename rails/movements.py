"""The contract of a rail that tells how money moved there by its own books.

`observe` answers about one payment. This answers about everything: each movement of money that the outside has
recorded, whether or not we ever heard of it, and what it holds for us now. The core compares both with what
our payments say; a rail compares nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from ledger.money import Money


class MovementKind(StrEnum):
    """Why money moved. Stored."""

    RECEIVED = "received"
    """A payer's money came."""
    TAKEN_BACK = "taken_back"
    """A payer's money went back: sent by us, or withdrawn. Positive if such money came back to us."""
    PAID_OUT = "paid_out"
    """To another account of our own. Positive if it came back."""
    COST = "cost"
    """What the rail charges beside payments."""
    OTHER = "other"
    """Anything else. It is always a difference: nobody here knows what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One movement of money, as the outside has it."""

    movement_ref: str
    """The outside's own name of it: unique on the rail, and the same whenever it is asked for."""
    kind: MovementKind
    amount: Money
    """What it adds to what is held for us, before `fee`; negative if money leaves."""
    fee: Money | None = None
    """What the rail took beside `amount`; negative if it gave a fee back. Of the same asset."""
    money_ref: str | None = None
    """Whose money moved, by the name of its funds receipt; None if it is no payer's."""
    occurred_at: datetime
    external_ref: str | None = None
    """What an accountant looks it up by, if not by `movement_ref`."""
    consists_of: Money | None = None
    """Of what is paid out: the sum of the movements that it pays out, where the outside says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovementPage:
    """Some movements, and where to go on."""

    movements: Sequence[Movement]
    """In any order; such as were given before may be among them."""
    cursor: str
    """To be kept with these movements, and given with the next question."""
    complete: bool
    """Whether there was nothing more when it was asked."""


@runtime_checkable
class Movements(Protocol):
    """A rail that tells its own books. Calls may raise `RailUnavailable` and `RailProtocolError`."""

    async def movements(self, cursor: str | None, since: datetime) -> MovementPage:
        """The next movements after `cursor`; without one those since then, by the outside's time."""

    async def holdings(self) -> Sequence[Money]:
        """What the outside holds for us now, under way or not: one amount for each asset."""
