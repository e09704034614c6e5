"""When the period of a price ends."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta

from sandbox.stripe.store import Json

_STEPS = {"day": timedelta(days=1), "week": timedelta(weeks=1)}


def period_end(start: int, anchor: int, price: Json) -> int:
    """The end of the period that starts at `start`; months keep the anchor's day where they can."""
    rule = price["recurring"]
    moment = datetime.fromtimestamp(start, UTC)
    step = _STEPS.get(rule["interval"])
    if step is not None:
        return int((moment + step * rule["interval_count"]).timestamp())
    months = rule["interval_count"] * (12 if rule["interval"] == "year" else 1)
    carry, month = divmod(moment.month - 1 + months, 12)
    year = moment.year + carry
    wanted = datetime.fromtimestamp(anchor, UTC).day
    day = min(wanted, calendar.monthrange(year, month + 1)[1])
    return int(moment.replace(year=year, month=month + 1, day=day).timestamp())
