"""Rows of `auto_topups` in PostgreSQL. Each change is of the row that was read, or none at all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.followups.sweeper import SweepRules
from mail.outbox import mail_row
from mail.tables import OUTBOX_ROWS
from processes.auto_topups.deciding import AutoState, AutoTopup, Step
from processes.auto_topups.tables import AUTO_TOPUP_ROWS, FORGET_ROWS

_A = AUTO_TOPUP_ROWS.c
WORKED_ON = SweepRules().lease
_OWN = frozenset(AutoTopup.__struct_fields__)


class AutoTopupStore:
    """Reads and changes rows; a letter is put into the outbox with the change that causes it."""

    def __init__(self, engine: AsyncEngine, balances: sa.Table, *, sends_mail: bool) -> None:
        """`balances` has `account_id`, `posted` and `held`."""
        self._engine = engine
        self._balances = balances
        self._sends_mail = sends_mail

    async def find(self, account_id: str) -> AutoTopup | None:
        """The account's, if it was ever turned on."""
        query = sa.select(AUTO_TOPUP_ROWS).where(_A.account_id == account_id)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else record_of(dict(row))

    async def begin(self, record: AutoTopup) -> bool:
        """The account's first row. False if there is one."""
        adding = insert(AUTO_TOPUP_ROWS).values(**_row(record)).on_conflict_do_nothing()
        async with self._engine.begin() as connection:
            return (await connection.execute(adding.returning(_A.account_id))).one_or_none() is not None

    async def change(self, step: Step, now: datetime, *, forgets: str | None = None) -> bool:
        """Write what follows, if nothing else was written since its row was read; else False.

        `forgets` is a method that the provider is to forget by this.
        """
        then = step.then
        following = msgspec.structs.replace(then, revision=then.revision + 1)
        changing = (
            sa.update(AUTO_TOPUP_ROWS)
            .where(_A.account_id == then.account_id, _A.revision == then.revision)
            .values(**_row(following), attempts=0, last_problem=None)
        )
        async with self._engine.begin() as connection:
            if (await connection.execute(changing)).rowcount != 1:
                return False
            if forgets is not None:
                row = {"method": forgets, "rail": then.rail, "due_at": now}
                await connection.execute(insert(FORGET_ROWS).values(**row).on_conflict_do_nothing())
            if step.letter is not None and self._sends_mail:
                # By the change itself: the same change is written once.
                cause = f"{then.account_id}:{following.revision}"
                row = mail_row(step.letter, account_id=then.account_id, cause=cause, now=now)
                await connection.execute(insert(OUTBOX_ROWS).values(**row).on_conflict_do_nothing())
        return True

    async def wake(self, now: datetime) -> int:
        """Make due whose balance is below its threshold; returns how many."""
        held = self._balances.c
        low = (
            sa.update(AUTO_TOPUP_ROWS)
            .where(
                _A.state == AutoState.ON.value,
                # Neither one that somebody works on just now, nor one that failed and has a time to be tried again.
                _A.due_at > now + WORKED_ON,
                _A.attempts == 0,
                _A.not_before <= now,
                held.account_id == _A.account_id,
                held.posted - held.held < _A.threshold,
            )
            .values(due_at=now)
        )
        async with self._engine.begin() as connection:
            return (await connection.execute(low)).rowcount


def record_of(row: Mapping[str, Any]) -> AutoTopup:
    """A row as it is decided on."""
    return msgspec.convert({name: row[name] for name in _OWN}, AutoTopup)


def _row(record: AutoTopup) -> dict[str, Any]:
    return {
        **{name: getattr(record, name) for name in _OWN},
        "state": record.state.value,
        "pack": msgspec.to_builtins(record.pack),
    }
