"""Reading and writing both sides of a reconciliation in PostgreSQL. Whatever is written may be written twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ledger.log.tables import log_batches, stored_events
from ledger.money import ASSETS, Asset, Money
from rails.domain.comparing import Difference, OurMoney, our_money
from rails.domain.topup import payment_of
from rails.movements import Movement, MovementKind, MovementPage
from rails.store.movements import BOOK_ROWS, DIFFERENCE_ROWS, MOVEMENT_ROWS, RECONCILIATION_ROWS
from rails.store.tables import MONEY_ROWS, PAYMENT_ROWS

_M, _D, _P, _B = MOVEMENT_ROWS.c, DIFFERENCE_ROWS.c, PAYMENT_ROWS.c, BOOK_ROWS.c
PAGE = 500
"""Moneys compared in one transaction."""
_OURS_UNCLAIMED = ("suspense", "unpriced", "underpaid", "reversed")
"""States of payments that may have money which was never credited: `rail_money` does not name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """How far a rail has been read and compared."""

    cursor: str | None = None
    position: int = 0
    opening: Mapping[str, int] | None = None
    read_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of some moneys, by subject."""

    ours: Mapping[str, OurMoney]
    theirs: Mapping[str, Sequence[Movement]]


class ReconciliationStore:
    """Rows of `rails.store.movements`, beside those of the payments."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def book(self, rail: str) -> Book:
        """How far a rail has come; nowhere if nothing is known of it."""
        query = sa.select(_B.cursor, _B.position, _B.opening, _B.read_at).where(_B.rail == rail)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return Book() if row is None else Book(**row)

    async def since(self, rail: str) -> datetime | None:
        """When the first payment of a rail was opened."""
        query = sa.select(sa.func.min(_P.opened_at)).where(_P.rail == rail)
        async with self._engine.connect() as connection:
            found: datetime | None = (await connection.execute(query)).scalar_one()
        return found

    async def keep_page(self, rail: str, page: MovementPage, now: datetime) -> None:
        """Movements with the cursor behind them, in one transaction. Those that are known stay as they are."""
        known = {"cursor": page.cursor, **({"read_at": now} if page.complete else {})}
        async with self._engine.begin() as connection:
            if page.movements:
                rows = [_row(rail, movement, now) for movement in page.movements]
                await connection.execute(insert(MOVEMENT_ROWS).on_conflict_do_nothing(), rows)
            await connection.execute(_put_book(rail, known))

    async def keep_book(self, rail: str, **known: Any) -> None:
        """Remember how far a rail has come."""
        async with self._engine.begin() as connection:
            await connection.execute(_put_book(rail, known))

    async def moved(self, rail: str) -> Mapping[Asset, int]:
        """The sum of all movements with their fees, by asset."""
        net = sa.func.sum(_M.amount_minor - _M.fee_minor)
        query = (
            sa.select(_M.asset, _M.scale, sa.cast(net, sa.BigInteger))
            .where(_M.rail == rail)
            .group_by(_M.asset, _M.scale)
        )
        async with self._engine.connect() as connection:
            return {_asset(code, scale): int(minor) for code, scale, minor in await connection.execute(query)}

    async def position(self, until: datetime) -> int:
        """The newest event that was recorded by then."""
        query = sa.select(sa.func.coalesce(sa.func.max(log_batches.c.last_position), 0)).where(
            log_batches.c.recorded_at <= until
        )
        async with self._engine.connect() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def changed(self, rail: str, after: int, up_to: int | None = None) -> Sequence[str]:
        """Payments of a rail of which something was recorded beyond an event's position, and up to another's."""
        beyond = stored_events.c.notification_id > after
        wanted = beyond if up_to is None else sa.and_(beyond, stored_events.c.notification_id <= up_to)
        streams = (
            sa.select(stored_events.c.originator_id)
            .distinct()
            .where(wanted, stored_events.c.topic.startswith("rails."))
        )
        query = sa.select(_P.payment_id).where(_P.rail == rail, _P.payment_id.in_(streams))
        async with self._engine.connect() as connection:
            return [row[0] for row in await connection.execute(query.order_by(_P.payment_id))]

    async def new_subjects(self, rail: str, after: str) -> Sequence[str]:
        """Moneys with movements that were not compared yet, in order."""
        return await self._subjects(_M.subject, _M.rail == rail, ~_M.compared, _M.subject > after)

    async def open_subjects(self, rail: str, after: str) -> Sequence[str]:
        """Moneys about which both sides differed when they were compared last, in order."""
        return await self._subjects(
            _D.subject,
            _D.rail == rail,
            _D.closed_at.is_(None),
            _D.part != "balance",
            _D.subject > after,
        )

    async def _subjects(self, column: sa.Column[str], *wanted: sa.ColumnElement[bool]) -> Sequence[str]:
        query = sa.select(column).distinct().where(*wanted).order_by(column).limit(PAGE)
        async with self._engine.connect() as connection:
            return [row[0] for row in await connection.execute(query)]

    async def sides_of_payments(self, rail: str, payments: Sequence[str]) -> Sides:
        """Both sides of all money of some payments."""
        query = sa.select(_P.payment_id, _P.payment).where(_P.payment_id.in_(payments))
        async with self._engine.connect() as connection:
            ours = await _ours(connection, query)
            return Sides(ours, await _theirs(connection, rail, list(ours)))

    async def sides_of(self, rail: str, subjects: Sequence[str]) -> Sides:
        """Both sides of some moneys."""
        async with self._engine.connect() as connection:
            theirs = await _theirs(connection, rail, subjects)
            claimed = sa.select(MONEY_ROWS.c.payment_id).where(MONEY_ROWS.c.money_ref.in_(subjects))
            named = sa.select(_D.payment_id).where(_D.rail == rail, _D.subject.in_(subjects))
            query = sa.select(_P.payment_id, _P.payment).where(
                _P.rail == rail, _P.payment_id.in_(claimed.union(named))
            )
            ours = await _ours(connection, query)
            missing = [subject for subject in subjects if subject not in ours]
            if missing:
                ours = {**ours, **await _ours(connection, _unclaimed(rail, missing))}
        return Sides({name: money for name, money in ours.items() if name in set(subjects)}, theirs)

    async def compared(
        self,
        rail: str,
        subjects: Sequence[str],
        found: Sequence[Difference],
        now: datetime,
        *,
        movements: Sequence[str],
    ) -> tuple[int, int]:
        """Write down what came of comparing these: returns how many differences were opened, and closed.

        `movements` are those that were looked at: what another run read meanwhile is still to be compared.
        """
        async with self._engine.begin() as connection:
            opened = 0
            for difference in found:
                row = (await connection.execute(_put_difference(rail, difference, now))).one()
                opened += row[0] == now and row[1] is True
            still = [(difference.subject, difference.part.value) for difference in found]
            closing = (
                sa.update(DIFFERENCE_ROWS)
                .where(_D.rail == rail, _D.subject.in_(subjects), _D.closed_at.is_(None))
                .values(closed_at=now)
            )
            if still:
                closing = closing.where(sa.tuple_(_D.subject, _D.part).not_in(still))
            closed = (await connection.execute(closing)).rowcount
            await connection.execute(
                sa.update(MOVEMENT_ROWS)
                .where(_M.rail == rail, _M.movement_ref.in_(movements), ~_M.compared)
                .values(compared=True)
            )
        return opened, closed

    async def ensure(self, rails: Sequence[str], due_at: datetime) -> None:
        """Each of these rails is compared again and again, for the first time then."""
        rows = [{"rail": rail, "due_at": due_at} for rail in rails]
        async with self._engine.begin() as connection:
            for row in rows:
                await connection.execute(insert(RECONCILIATION_ROWS).values(**row).on_conflict_do_nothing())

    async def bring_forward(self, rails: Sequence[str], now: datetime) -> None:
        """Compare these rails now."""
        async with self._engine.begin() as connection:
            for rail in rails:
                put = insert(RECONCILIATION_ROWS).values(rail=rail, due_at=now)
                await connection.execute(
                    put.on_conflict_do_update(index_elements=["rail"], set_={"due_at": now})
                )


def _row(rail: str, movement: Movement, now: datetime) -> dict[str, Any]:
    asset, parts = movement.amount.asset, movement.consists_of
    return {
        "rail": rail,
        "movement_ref": movement.movement_ref,
        "kind": movement.kind.value,
        "subject": movement.money_ref or movement.movement_ref,
        "asset": asset.code,
        "scale": asset.scale,
        "amount_minor": movement.amount.minor,
        "fee_minor": 0 if movement.fee is None else movement.fee.minor,
        "parts_minor": None if parts is None else parts.minor,
        "occurred_at": movement.occurred_at,
        "read_at": now,
        "external_ref": movement.external_ref,
        "compared": False,
    }


def _asset(code: str, scale: int) -> Asset:
    known = ASSETS.get(code)
    return known if known is not None and known.scale == scale else Asset(code, scale)


def _movement(row: sa.RowMapping) -> Movement:
    asset = _asset(row["asset"], row["scale"])
    subject = None if row["subject"] == row["movement_ref"] else row["subject"]
    return Movement(
        movement_ref=row["movement_ref"],
        kind=MovementKind(row["kind"]),
        amount=Money(row["amount_minor"], asset),
        fee=Money(row["fee_minor"], asset),
        money_ref=subject,
        occurred_at=row["occurred_at"],
        external_ref=row["external_ref"],
        consists_of=None if row["parts_minor"] is None else Money(row["parts_minor"], asset),
    )


async def _theirs(
    connection: AsyncConnection, rail: str, subjects: Sequence[str]
) -> Mapping[str, Sequence[Movement]]:
    query = sa.select(MOVEMENT_ROWS).where(_M.rail == rail, _M.subject.in_(subjects))
    found: dict[str, list[Movement]] = {}
    for row in (await connection.execute(query)).mappings():
        found.setdefault(row["subject"], []).append(_movement(row))
    return found


async def _ours(connection: AsyncConnection, query: sa.Select[Any]) -> Mapping[str, OurMoney]:
    return {
        money.money_ref: money
        for row in (await connection.execute(query)).mappings()
        for money in our_money(row["payment_id"], payment_of(row))
    }


def _unclaimed(rail: str, subjects: Sequence[str]) -> sa.Select[Any]:
    """Payments with such money in suspense: few, and asked only about what nobody else claims."""
    keys = sa.func.json_object_keys(_P.payment["receipts"]).table_valued("name")
    named = sa.select(sa.literal(1)).select_from(keys).where(keys.c.name.in_(subjects))
    waits = sa.or_(_P.suspended, _P.unpriced, _P.state.in_(_OURS_UNCLAIMED))
    return sa.select(_P.payment_id, _P.payment).where(_P.rail == rail, waits, named.exists())


def _put_book(rail: str, known: Mapping[str, Any]) -> sa.Executable:
    new = insert(BOOK_ROWS).values(**{"rail": rail, "position": 0, **known})
    return new.on_conflict_do_update(index_elements=["rail"], set_=dict(known))


def _put_difference(rail: str, found: Difference, now: datetime) -> sa.Executable:
    """Open it, or say that it still stands. Returns when it was opened, and whether that was now."""
    seen = {
        "reason": found.reason.value,
        "asset": found.asset.code,
        "ours_minor": found.ours,
        "theirs_minor": found.theirs,
        "payment_id": found.payment_id,
        "seen_at": now,
    }
    row = {"rail": rail, "subject": found.subject, "part": found.part.value, "opened_at": now, **seen}
    return (
        insert(DIFFERENCE_ROWS)
        .values(**row)
        .on_conflict_do_update(
            index_elements=["rail", "subject", "part"], index_where=_D.closed_at.is_(None), set_=seen
        )
        .returning(_D.opened_at, sa.literal_column("xmax = 0", sa.Boolean))
    )
