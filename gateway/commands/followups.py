"""`llamasketch followups`: what one event causes elsewhere and is not done yet, by kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
import typer

from gateway.commands import stack
from gateway.commands.operators import show_table
from ledger.clock import system_clock
from ledger.followups.figures import figures_of, figures_query
from processes.followups import KINDS
from rails.store.tables import NOTIFICATION_ROWS, UNMATCHED

_N = NOTIFICATION_ROWS.c
_PARKED = _N.state == UNMATCHED
COLUMNS = ("kind", "waiting", "failing", "oldest", "attempts", "problem")
PARKED_COLUMNS = ("id", "rail", "reference", "received_at", "attempts", "last_problem")
PARKED_MAX = 1_000
"""So many are listed at most, the oldest first."""


def show_followups(*, as_json: bool) -> int:
    """Every kind, also those of which nothing waits. Failing follow-ups are tried again by themselves."""
    with _connected() as connection:
        found = connection.execute(figures_query(KINDS, system_clock())).mappings().all()
    rows = [figures._asdict() for figures in figures_of(found)]
    if as_json:
        stack.print_json({"followups": rows})
    else:
        show_table(rows, COLUMNS, "There are no kinds of follow-ups.")
    return 0


def show_parked(*, as_json: bool) -> int:
    """Notifications about something of ours that could not be dealt with, whose cause time does not heal."""
    columns = [NOTIFICATION_ROWS.c[name] for name in PARKED_COLUMNS]
    with _connected() as connection:
        query = sa.select(*columns).where(_PARKED).order_by(_N.id).limit(PARKED_MAX)
        rows = [dict(row) for row in connection.execute(query).mappings()]
    if as_json:
        stack.print_json({"parked": [{**row, "received_at": row["received_at"].isoformat()} for row in rows]})
    else:
        show_table(rows, PARKED_COLUMNS, "No notification is set aside.")
    return 0


def replay_parked(notifications: Sequence[int] | None, *, as_json: bool) -> int:
    """Let these be dealt with again, or all: the truth is asked anew. 1 if one of them is not set aside."""
    wanted = _PARKED if notifications is None else _PARKED & _N.id.in_(notifications)
    again = (
        sa.update(NOTIFICATION_ROWS).where(wanted).values(state="waiting", attempts=0, due_at=system_clock())
    )
    with _connected() as connection, connection.begin():
        found = sorted(connection.execute(again.returning(_N.id)).scalars())
    if as_json:
        stack.print_json({"replayed": found})
    else:
        typer.echo(f"{len(found)} will be dealt with again." if found else "None of these is set aside.")
    return 0 if notifications is None or len(found) == len(set(notifications)) else 1


@contextmanager
def _connected() -> Iterator[sa.Connection]:
    engine = sa.create_engine(stack.sqlalchemy_url(stack.database_url()))
    try:
        with stack.answering(), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
