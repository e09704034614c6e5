"""The store in PostgreSQL, by SQLAlchemy Core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.identifiers import PaymentId
from ledger.ownership import Ownership
from rails.contract import Notification, OpenReference
from rails.domain.openings import Openings
from rails.store.port import (
    RetryTask,
    StoredInstructions,
    StoredNotification,
    StoredReference,
    TooManyWaiting,
)
from rails.store.tables import (
    CHARGE_ROWS,
    CURSOR_ROWS,
    INSTRUCTION_ROWS,
    LINK_OPENING_ROWS,
    NOTIFICATION_ROWS,
    OPENING_ROWS,
    PAYMENT_ROWS,
    REFERENCE_ROWS,
    RETRY_ROWS,
)

_P, _R, _H, _T = PAYMENT_ROWS.c, REFERENCE_ROWS.c, NOTIFICATION_ROWS.c, RETRY_ROWS.c


_LOCK_NOTIFICATIONS = sa.text(
    "SELECT pg_advisory_xact_lock(hashtextextended('rail_notifications ' || :rail, 0))"
)


class SqlRailStore:
    """Implements `RailStore` on an async engine (`postgresql+psycopg://`)."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._ownership = Ownership(engine)

    async def payment(self, payment_id: str) -> Mapping[str, Any] | None:
        """See `RailStore`."""
        return await self._one(sa.select(PAYMENT_ROWS).where(_P.payment_id == payment_id))

    async def reference(self, payment_id: str) -> StoredReference | None:
        """See `RailStore`."""
        row = await self._one(sa.select(REFERENCE_ROWS).where(_R.payment_id == payment_id))
        return None if row is None else StoredReference(**row)

    async def instructions(self, payment_id: str) -> StoredInstructions | None:
        """See `RailStore`."""
        row = await self._one(sa.select(INSTRUCTION_ROWS).where(INSTRUCTION_ROWS.c.payment_id == payment_id))
        if row is None:
            return None
        return StoredInstructions(
            shown=row["instructions"], return_url=row["return_url"], description=row["description"]
        )

    async def method_of(self, payment_id: str) -> str | None:
        """See `RailStore`."""
        row = await self._one(sa.select(CHARGE_ROWS).where(CHARGE_ROWS.c.payment_id == payment_id))
        return None if row is None else str(row["method"])

    async def find(self, rail: str, reference: str) -> PaymentId | None:
        """See `RailStore`."""
        row = await self._one(sa.select(_R.payment_id).where(_R.rail == rail, _R.reference == reference))
        return None if row is None else PaymentId(row["payment_id"])

    async def all(self, rail: str) -> Sequence[OpenReference]:
        """See `ReferenceStore`."""
        query = sa.select(_R.reference, _R.payment_id, _R.ordinal)
        rows = await self._many(query.where(_R.rail == rail, _R.reference.is_not(None)).order_by(_R.ordinal))
        return [OpenReference(**row) for row in rows]

    async def attempts(self, root_id: str) -> Sequence[Mapping[str, Any]]:
        """See `RailStore`."""
        return await self._many(
            sa.select(PAYMENT_ROWS)
            .where(_P.root_id == root_id)
            .order_by(_P.opened_at, _P.payment_id)
            .limit(100)
        )

    async def of_account(self, account_id: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """See `RailStore`."""
        accounts = await self._ownership.accounts_of(account_id)
        theirs = sa.select(PAYMENT_ROWS).where(_P.account_id.in_(accounts))
        return await self._many(theirs.order_by(_P.opened_at.desc(), _P.payment_id.desc()).limit(limit))

    async def owns(self, account_id: str, owner: str) -> bool:
        """See `RailStore`."""
        return await self._ownership.owns(account_id, owner)

    async def openings(self, account_id: str, now: datetime, *, by_link: bool = False) -> Openings:
        """See `RailStore`."""
        kept = LINK_OPENING_ROWS if by_link else OPENING_ROWS
        row = await self._one(sa.select(kept).where(kept.c.account_id == account_id))
        return Openings.of(account_id, row, now)

    async def watched(self, rail: str, now: datetime, after: str, limit: int) -> Sequence[PaymentId]:
        """See `RailStore`."""
        wanted = sa.select(_P.payment_id).where(_P.rail == rail, _P.watch_until >= now, _P.payment_id > after)
        return await self._ids(wanted.where(_not_postponed(now)).order_by(_P.payment_id), limit)

    async def unpriced(self, rail: str, now: datetime, after: str, limit: int) -> Sequence[PaymentId]:
        """See `RailStore`."""
        wanted = sa.select(_P.payment_id).where(_P.rail == rail, _P.unpriced, _P.payment_id > after)
        return await self._ids(wanted.where(_not_postponed(now)).order_by(_P.payment_id), limit)

    async def overdue(self, rail: str, now: datetime, after: str, limit: int) -> Sequence[PaymentId]:
        """See `RailStore`."""
        wanted = sa.select(_P.payment_id).where(_P.rail == rail, _P.unpaid, _P.quote_expires_at <= now)
        wanted = wanted.where(_P.payment_id > after, _not_postponed(now, RetryTask.EXPIRE))
        return await self._ids(wanted.order_by(_P.payment_id), limit)

    async def postpone(
        self,
        payment_id: PaymentId,
        task: RetryTask,
        rail: str,
        due_at: datetime,
        attempts: int,
        problem: str,
    ) -> None:
        """See `RailStore`."""
        values = {"due_at": due_at, "attempts": attempts, "last_problem": problem}
        row = insert(RETRY_ROWS).values(payment_id=payment_id, task=task.value, rail=rail, **values)
        await self._write(row.on_conflict_do_update(index_elements=[_T.payment_id, _T.task], set_=values))

    async def resume(self, payment_id: PaymentId, task: RetryTask) -> None:
        """See `RailStore`."""
        await self._write(sa.delete(RETRY_ROWS).where(_T.payment_id == payment_id, _T.task == task.value))

    async def postponed(self, task: RetryTask, payments: Sequence[PaymentId]) -> Mapping[str, int]:
        """See `RailStore`."""
        mine = sa.select(_T.payment_id, _T.attempts).where(_T.payment_id.in_(payments), _T.task == task.value)
        return {row["payment_id"]: row["attempts"] for row in await self._many(mine)}

    async def forget_retries(self, now: datetime, limit: int) -> int:
        """See `RailStore`."""
        reason = sa.select(_P.payment_id).where(
            _P.payment_id == _T.payment_id,
            sa.case(
                (_T.task == RetryTask.EXPIRE.value, _P.unpaid), else_=(_P.watch_until >= now) | _P.unpriced
            ),
        )
        ended = sa.select(_T.payment_id, _T.task).where(~reason.exists()).limit(limit)
        gone = sa.delete(RETRY_ROWS).where(sa.tuple_(_T.payment_id, _T.task).in_(ended))
        async with self._engine.begin() as connection:
            return len((await connection.execute(gone.returning(_T.payment_id))).all())

    async def cursor(self, rail: str) -> str | None:
        """See `ReferenceStore`."""
        row = await self._one(sa.select(CURSOR_ROWS.c.cursor).where(CURSOR_ROWS.c.rail == rail))
        return None if row is None else str(row["cursor"])

    async def keep_cursor(self, rail: str, cursor: str) -> None:
        """See `RailStore`."""
        fresh = insert(CURSOR_ROWS).values(rail=rail, cursor=cursor)
        await self._write(
            fresh.on_conflict_do_update(index_elements=[CURSOR_ROWS.c.rail], set_={"cursor": cursor})
        )

    async def store_notification(
        self, rail: str, notification: Notification, now: datetime, waiting_max: int | None = None
    ) -> bool:
        """See `RailStore`."""
        fresh = insert(NOTIFICATION_ROWS).values(
            rail=rail,
            notification_id=notification.notification_id,
            reference=notification.reference,
            state="waiting",
            attempts=0,
            due_at=now,
            received_at=now,
        )
        stored = fresh.on_conflict_do_nothing(index_elements=[_H.rail, _H.notification_id]).returning(_H.id)
        async with self._engine.begin() as connection:
            if waiting_max is not None:
                # A statement that comes after the lock counts what was stored by whoever held it before.
                await connection.execute(_LOCK_NOTIFICATIONS, {"rail": rail})
                if (await connection.execute(_waiting(rail))).scalar_one() >= waiting_max:
                    raise TooManyWaiting
            return (await connection.execute(stored)).first() is not None

    async def due_notifications(self, rail: str, now: datetime, limit: int) -> Sequence[StoredNotification]:
        """See `RailStore`."""
        query = sa.select(_H.id, _H.rail, _H.reference, _H.attempts, _H.received_at)
        due = query.where(_H.rail == rail, _H.state == "waiting", _H.due_at <= now)
        return [
            StoredNotification(**row) for row in await self._many(due.order_by(_H.due_at, _H.id).limit(limit))
        ]

    async def next_due_at(self, rail: str) -> datetime | None:
        """See `RailStore`."""
        query = sa.select(sa.func.min(_H.due_at).label("due_at"))
        row = await self._one(query.where(_H.rail == rail, _H.state == "waiting"))
        return None if row is None else row["due_at"]

    async def close_notification(self, notification: int, state: str) -> None:
        """See `RailStore`."""
        mine = sa.update(NOTIFICATION_ROWS).where(_H.id == notification, _H.state != "done")
        await self._write(mine.values(state=state))

    async def postpone_notification(self, notification: int, due_at: datetime, problem: str) -> None:
        """See `RailStore`."""
        later = sa.update(NOTIFICATION_ROWS).where(_H.id == notification)
        await self._write(later.values(due_at=due_at, last_problem=problem, attempts=_H.attempts + 1))

    async def forget_notifications(self, before: datetime, limit: int) -> int:
        """See `RailStore`."""
        old = sa.select(_H.id).where(_H.state == "done", _H.received_at < before).limit(limit)
        async with self._engine.begin() as connection:
            gone = await connection.execute(
                sa.delete(NOTIFICATION_ROWS).where(_H.id.in_(old)).returning(_H.id)
            )
            return len(gone.all())

    async def _one(self, query: sa.Select[Any]) -> dict[str, Any] | None:
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).mappings().first()
            return None if row is None else dict(row)

    async def _many(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def _ids(self, query: sa.Select[Any], limit: int) -> list[PaymentId]:
        return [PaymentId(row["payment_id"]) for row in await self._many(query.limit(limit))]

    async def _write(self, statement: sa.Executable) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(statement)


def _waiting(rail: str) -> sa.Select[Any]:
    return sa.select(sa.func.count()).where(_H.rail == rail, _H.state == "waiting")


def _not_postponed(now: datetime, task: RetryTask = RetryTask.OBSERVE) -> sa.ColumnElement[bool]:
    mine = sa.select(_T.payment_id).where(_T.payment_id == _P.payment_id, _T.task == task.value)
    return ~mine.where(_T.due_at > now).exists()
