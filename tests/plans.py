"""How PostgreSQL answers what a piece of code asks: the plans of its statements, and the rows they touch."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine


async def plans_of(engine: AsyncEngine, work: Awaitable[Any]) -> list[dict[str, Any]]:
    """Do the work, then ask for the plan of each statement that it sent; these are run again and undone."""
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        await work
    finally:
        sa.event.remove(engine.sync_engine, "before_cursor_execute", note)
    plans = []
    async with engine.connect() as connection:
        for statement, parameters in sent:
            explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
            [[[plan]]] = (await connection.exec_driver_sql(explain, parameters)).all()
            plans.append(plan["Plan"])
        await connection.rollback()
    return plans


def rows_touched(plan: dict[str, Any]) -> int:
    """Rows that the scans of a plan looked at, those that they passed over included."""
    below = sum(rows_touched(child) for child in plan.get("Plans", ()))
    if "Scan" not in plan["Node Type"]:
        return below
    passed_over = sum(count for what, count in plan.items() if what.startswith("Rows Removed by"))
    return below + round((plan["Actual Rows"] + passed_over) * plan["Actual Loops"])
