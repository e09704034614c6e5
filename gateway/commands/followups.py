"""`llamasketch followups`: what one event causes elsewhere and is not done yet, by kind."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.commands import stack
from gateway.commands.operators import show_table
from ledger.clock import system_clock
from ledger.followups.figures import figures_of, figures_query
from processes.followups import KINDS

COLUMNS = ("kind", "waiting", "failing", "oldest", "attempts", "problem")


def show_followups(*, as_json: bool) -> int:
    """Every kind, also those of which nothing waits. Failing follow-ups are tried again by themselves."""
    engine = sa.create_engine(stack.sqlalchemy_url(stack.database_url()))
    try:
        with stack.answering(), engine.connect() as connection:
            found = connection.execute(figures_query(KINDS, system_clock())).mappings().all()
    finally:
        engine.dispose()
    rows = [figures._asdict() for figures in figures_of(found)]
    if as_json:
        stack.print_json({"followups": rows})
    else:
        show_table(rows, COLUMNS, "There are no kinds of follow-ups.")
    return 0
