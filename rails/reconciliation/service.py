"""Reads what the outside says about our money and compares it with our payments: each night, and when asked.

    reconciliation = Reconciliation(store, rails, clock=…)
    report = await reconciliation.run("card")

A run may stop anywhere and be done again: movements are kept with the cursor behind them, and what was compared
stays compared. A difference is a row, a line in the log and a figure for monitoring. Nothing is ever corrected by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from ledger.clock import Clock
from ledger.followups.sweeper import SweepRules
from ledger.money import Money
from rails.contract import Rail, RailProtocolError
from rails.domain.comparing import Difference, compare, compare_balance
from rails.domain.refusals import UnknownRail
from rails.movements import Movements
from rails.store.reconciling import PAGE, ReconciliationStore, Sides

SETTLING = timedelta(hours=1)
"""What happened within this time is left for the next run: one side may not know it yet."""
NIGHTLY_HOUR = 3
"""UTC."""
READS_MAX = 100_000
"""Pages of one run: more than two hundred years of days."""
BALANCE_TRIES = 3
"""How often it is tried to look at the balance while nothing moves."""
LOGGED_MAX = 50
"""Differences of one run that get a line of their own in the log."""
RULES = SweepRules(at_once=3, work_seconds_max=3_600.0, lease=timedelta(minutes=65))


@dataclass(slots=True, kw_only=True)
class Report:
    """What came of one run."""

    rail: str
    movements: int = 0
    """Given by the rail, those that were known included."""
    compared: int = 0
    opened: int = 0
    closed: int = 0
    balance_compared: bool = False
    """Whether nothing moved while the balance was asked for."""


class Reconciliation:
    """Compares the rails that tell their own books. Safe to run in many processes."""

    def __init__(
        self,
        store: ReconciliationStore,
        rails: Mapping[str, Rail],
        *,
        clock: Clock,
        settling: timedelta = SETTLING,
    ) -> None:
        self._store = store
        self._rails = rails
        self._clock = clock
        self._settling = settling
        self._log = structlog.get_logger("rails.reconciliation")

    def rails(self) -> Sequence[str]:
        """The rails that can be compared."""
        return [name for name, rail in self._rails.items() if isinstance(rail, Movements)]

    async def ensure(self) -> int:
        """Every rail has its next night."""
        await self._store.ensure(self.rails(), next_night(self._clock()))
        return 0

    async def bring_forward(self, rail: str | None = None) -> Sequence[str]:
        """Have all rails, or one, compared soon; returns which. Raises `UnknownRail`."""
        if rail is not None and rail not in self.rails():
            raise UnknownRail(rail=rail)
        wanted = self.rails() if rail is None else [rail]
        await self._store.bring_forward(wanted, self._clock())
        return wanted

    async def visit(self, row: Mapping[str, Any]) -> datetime | None:
        """The sweep's work on one rail; None for one that is not configured any more."""
        if row["rail"] not in self.rails():
            return None
        await self.run(row["rail"])
        return next_night(self._clock())

    async def run(self, rail: str) -> Report:
        """Read and compare one rail now. May raise `RailUnavailable`, `RailProtocolError`, `UnknownRail`."""
        books = self._rails.get(rail)
        if not isinstance(books, Movements):
            raise UnknownRail(rail=rail)
        report, now = Report(rail=rail), self._clock()
        since = await self._store.since(rail) or now
        await self._read(rail, books, since, report)
        await self._compare(rail, now - self._settling, report)
        await self._compare_balance(rail, books, since, report)
        await self._store.keep_book(rail, compared_at=self._clock())
        self._log.info(
            "rail_reconciled",
            rail=rail,
            movements=report.movements,
            compared=report.compared,
            opened=report.opened,
            closed=report.closed,
            balance_compared=report.balance_compared,
        )
        return report

    async def _read(self, rail: str, books: Movements, since: datetime, report: Report) -> None:
        cursor = (await self._store.book(rail)).cursor
        for _ in range(READS_MAX):
            page = await books.movements(cursor, since)
            await self._store.keep_page(rail, page, self._clock())
            report.movements += len(page.movements)
            if page.complete:
                return
            if page.cursor == cursor:
                raise RailProtocolError("the rail's books go on without end")
            cursor = page.cursor
        raise RailProtocolError("the rail's books go on without end")

    # --- comparing -----------------------------------------------------------------------------

    async def _compare(self, rail: str, until: datetime, report: Report) -> None:
        """What changed on either side since the last run, and what differed then."""
        book = await self._store.book(rail)
        up_to = max(await self._store.position(until), book.position)
        young = frozenset(await self._store.changed(rail, up_to))
        changed = [
            name for name in await self._store.changed(rail, book.position, up_to) if name not in young
        ]
        for begins in range(0, len(changed), PAGE):
            sides = await self._store.sides_of_payments(rail, changed[begins : begins + PAGE])
            await self._compare_sides(rail, list(sides.ours), sides, until, young, report)
        for more in (self._store.new_subjects, self._store.open_subjects):
            after = ""
            while subjects := await more(rail, after):
                sides = await self._store.sides_of(rail, subjects)
                await self._compare_sides(rail, subjects, sides, until, young, report)
                after = subjects[-1]
        await self._store.keep_book(rail, position=up_to)

    async def _compare_sides(
        self,
        rail: str,
        subjects: Sequence[str],
        sides: Sides,
        until: datetime,
        young: frozenset[str],
        report: Report,
    ) -> None:
        settled: list[str] = []
        looked_at: list[str] = []
        found: list[Difference] = []
        for subject in subjects:
            ours, theirs = sides.ours.get(subject), sides.theirs.get(subject, ())
            if any(entry.occurred_at > until for entry in theirs) or (ours and ours.payment_id in young):
                continue
            settled.append(subject)
            looked_at += (entry.movement_ref for entry in theirs)
            found += compare(subject, ours, theirs)
        await self._keep(rail, settled, found, report, looked_at)
        report.compared += len(settled)

    async def _keep(
        self,
        rail: str,
        subjects: Sequence[str],
        found: Sequence[Difference],
        report: Report,
        movements: Sequence[str] = (),
    ) -> None:
        if not subjects:
            return
        opened, closed = await self._store.compared(rail, subjects, found, self._clock(), movements=movements)
        for difference in found[: max(LOGGED_MAX - report.opened, 0)] if opened else ():
            self._log.error(
                "rail_difference",
                rail=rail,
                subject=difference.subject,
                part=difference.part.value,
                reason=difference.reason.value,
                asset=difference.asset.code,
                ours=difference.ours,
                theirs=difference.theirs,
            )
        report.opened += opened
        report.closed += closed

    async def _compare_balance(self, rail: str, books: Movements, since: datetime, report: Report) -> None:
        """Whether we have read every movement: only looked at while nothing moves."""
        holdings = await books.holdings()
        for _ in range(BALANCE_TRIES):
            await self._read(rail, books, since, report)
            again = await books.holdings()
            if _same(again, holdings):
                await self._check_balance(rail, again, report)
                return
            holdings = again

    async def _check_balance(self, rail: str, holdings: Sequence[Money], report: Report) -> None:
        moved, book = await self._store.moved(rail), await self._store.book(rail)
        opening = book.opening
        if opening is None:
            opening = {amount.asset.code: amount.minor - moved.get(amount.asset, 0) for amount in holdings}
            await self._store.keep_book(rail, opening=opening)
        found = compare_balance(rail, opening, moved, holdings)
        subjects = [f"{rail}:{code}" for code in {*opening, *(asset.code for asset in moved)}]
        await self._keep(rail, [*subjects, *(each.subject for each in found)], found, report)
        report.balance_compared = True


def _same(one: Sequence[Money], other: Sequence[Money]) -> bool:
    return {money.asset: money.minor for money in one} == {money.asset: money.minor for money in other}


def next_night(now: datetime) -> datetime:
    """The next time at which rails are compared."""
    tonight = now.astimezone(UTC).replace(hour=NIGHTLY_HOUR, minute=0, second=0, microsecond=0)
    return tonight if tonight > now else tonight + timedelta(days=1)
