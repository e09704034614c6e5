"""What runs as long as payments are taken: one set of tasks per rail, none of which can hurt another.

    supervision = Supervision(payments, rails, rates, clock=…)
    async with supervision:
        …
    supervision.report()   # for /health

Per rail: listen (the notification is followed at once, then its cursor is kept), watch its health, work through the
inbox of stored notifications, and sweep (pending payments, quotes that ran out, money that waits for a rate).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, cast

import structlog

from ledger.cancelling import end_tasks
from ledger.clock import Clock
from ledger.errors import LogUnavailable, OutcomeUnknown, TooBusy
from ledger.followups.backoff import Backoff
from ledger.followups.rows import problem_of
from rails.contract import Follows, Health, Notification, Rail, RailError, RailUnavailable, ReceiptState
from rails.payments.health_watch import HealthWatch
from rails.payments.in_order import InOrder
from rails.payments.postponing import Place
from rails.payments.service import Payments, UnknownReference
from rails.store.port import StoredNotification
from rails.store.tables import UNMATCHED

_OUTAGES = (RailUnavailable, LogUnavailable, OutcomeUnknown, TooBusy, TimeoutError)
"""Somebody does not answer. That says nothing about the notification, however long it lasts."""
_PASSING = (*_OUTAGES, UnknownReference)
"""Faults that time heals."""


BACKOFF = Backoff(first_milliseconds=1_000, longest_milliseconds=60_000)
PRUNED_MAX = 1_000
"""Rows of each kind that a round deletes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerRules:
    """Paces and bounds of a runner."""

    sweep_seconds: int = 20
    backoff: Backoff = BACKOFF
    notification_tries_max: int = 12
    """After so many tries a notification that is itself at fault is set aside and counted in the report. One about a
    payment of ours is kept as `unmatched`: it may be about money. Any other is done with, and forgotten in time. An
    outage sets nothing aside: of paid and of expired payments, notifications are all we hear."""
    notification_page: int = 100
    overdue_page: int = 200
    pending_page: int = 200
    """How many pending payments are asked about per round, once everything has been asked about."""
    notifications_kept: timedelta = timedelta(days=30)


class _Failures:
    """How often in a row something has failed, and how long to wait now; reset by success."""

    def __init__(self, rules: RunnerRules, randomness: random.Random) -> None:
        self._backoff = rules.backoff
        self._randomness = randomness
        self._count = 0

    def reset(self) -> None:
        self._count = 0

    def next_seconds(self) -> float:
        self._count += 1
        return self._backoff.wait(self._count, self._randomness).total_seconds()


class RailRunner:
    """The tasks of one rail."""

    def __init__(
        self, payments: Payments, rail: Rail, *, clock: Clock, rules: RunnerRules, randomness: random.Random
    ) -> None:
        self.caught_up = asyncio.Event()
        """Set when what was paid while we were down has been asked about."""
        self.listening = False
        self.unmatched = 0
        self._observed, self._expired, self._priced = Place(), Place(), Place()
        """How far each kind of sweep has come."""
        self.health = HealthWatch(rail, payments.health, payments.doubted[rail.name])
        self._payments = payments
        self._rail = rail
        self._clock = clock
        self._rules = rules
        self._randomness = randomness
        self._log = structlog.get_logger("rails.payments.runner").bind(rail=rail.name)

    # --- listening -----------------------------------------------------------------------------

    async def listen(self) -> None:
        """Follow notifications for ever; reconnect with growing waits."""
        failures = _Failures(self._rules, self._randomness)
        following = InOrder(self._follow, self._keep_cursor)
        try:
            while True:
                try:
                    await self._listen_once(failures, following)
                except RailError as error:
                    self.health.note(Health(ok=False, detail=str(error)))
                    self._log.warning("rail_connection_lost", error=type(error).__name__, detail=str(error))
                finally:
                    self.listening = False
                await asyncio.sleep(failures.next_seconds())
        finally:
            await following.end()

    async def _keep_cursor(self, cursor: str) -> None:
        await self._payments.store.keep_cursor(self._rail.name, cursor)

    async def _listen_once(self, failures: _Failures, following: InOrder) -> None:
        cursor = await self._payments.store.cursor(self._rail.name)
        stream = cast("AsyncGenerator[Notification, None]", self._rail.listen(cursor))
        self.listening = True
        async with aclosing(stream) as notifications:
            async for notification in notifications:
                await following.take(notification)
                failures.reset()

    async def _follow(self, notification: Notification) -> None:
        """Deal with a notification now, or keep it for later: only then may the cursor move on."""
        if not notification.look:
            return
        try:
            name, seen = self._rail.name, notification.observation
            await self._payments.deal_with(name, notification.reference, seen)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the notification must not be lost
            log = self._log.info if isinstance(error, _PASSING) else self._log.warning
            log("notification_postponed", error=type(error).__name__)
            await self._payments.keep_notification(self._rail.name, notification)

    # --- the inbox -----------------------------------------------------------------------------

    async def work(self) -> None:
        """Work through stored notifications as they come and as their retries fall due."""
        stored = self._payments.notification_stored[self._rail.name]
        while True:
            stored.clear()
            await self.work_once()
            due_at = await self._payments.store.next_due_at(self._rail.name)
            wait = self._rules.sweep_seconds * 1000
            if due_at is not None:
                wait = min(wait, max((due_at - self._clock()) // timedelta(milliseconds=1), 10))
            # Not `wait_for`: before Python 3.12 it swallows a cancellation that comes together with a notification.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_seconds(wait)):
                    await stored.wait()

    async def work_once(self) -> int:
        """Deal with the notifications that are due; returns how many there were."""
        due = await self._payments.store.due_notifications(
            self._rail.name, self._clock(), self._rules.notification_page
        )
        for notification in due:
            await self._work_on(notification)
        return len(due)

    async def _work_on(self, notification: StoredNotification) -> None:
        store = self._payments.store
        try:
            await self._payments.deal_with(notification.rail, notification.reference)
        except Exception as error:  # noqa: BLE001 - one bad notification must not stop the others
            if notification.attempts + 1 >= self._rules.notification_tries_max and not isinstance(
                error, _OUTAGES
            ):
                self.unmatched += 1
                self._log.error(
                    "notification_set_aside", notification=notification.id, error=type(error).__name__
                )
                await store.close_notification(notification.id, await self._set_aside_as(notification, error))
                return
            due_at = self._clock() + self._rules.backoff.wait(notification.attempts + 1, self._randomness)
            await store.postpone_notification(notification.id, due_at, problem_of(error))
        else:
            await store.close_notification(notification.id, "done")

    async def _set_aside_as(self, notification: StoredNotification, error: Exception) -> str:
        """`unmatched` if it is about something of ours, or about money that fits no payment and must not be forgotten;
        what it says of all payments, the sweep asks anyway."""
        reference, find = notification.reference, self._payments.store.find
        if reference is None:
            return "done"
        # Whatever else went wrong, the rail has answered about it, or could not.
        known = not isinstance(error, UnknownReference)
        known = known or await find(notification.rail, reference) is not None
        return UNMATCHED if known or await self._is_money(reference) else "done"

    async def _is_money(self, reference: str) -> bool:
        """Whether the rail has money, or may have, under a reference that no payment has."""
        try:
            receipts = (await self._rail.observe(reference)).receipts
        except RailUnavailable:
            return True
        except Exception:  # noqa: BLE001 - it knows no such thing, or cannot say what it is
            return False
        return any(receipt.state is ReceiptState.SETTLED for receipt in receipts)

    # --- sweeping ------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """At once and then periodically: health once more, pending payments, overdue quotes, unpriced money."""
        while True:
            await self.sweep_once()
            await asyncio.sleep(self._rules.sweep_seconds)

    async def sweep_once(self) -> None:
        """One round. A part that fails does not keep the others from being done."""
        await self.health.ask()
        for part in (self._catch_up, self._expire_overdue, self._price, self._prune):
            try:
                await part()
            except Exception as error:  # noqa: BLE001 - the next round tries again
                self._log.warning("sweep_incomplete", part=part.__name__, error=type(error).__name__)

    async def _catch_up(self) -> None:
        """First everything that is pending; afterwards a page per round, in turn."""
        while await self._payments.observe_pending(
            self._rail.name,
            self._observed,
            page=self._rules.pending_page,
            pages=1 if self.caught_up.is_set() else None,
        ):
            again = self._observed.missed and not self.caught_up.is_set()
            self._observed.begin()
            if not again:
                self.caught_up.set()
                return

    async def _expire_overdue(self) -> None:
        page = self._rules.overdue_page
        if await self._payments.expire_overdue(self._rail.name, self._expired, page=page, pages=1):
            self._expired.begin()

    async def _price(self) -> None:
        if await self._payments.price_unpriced(self._rail.name, self._priced):
            self._priced.begin()

    async def _prune(self) -> None:
        now, store = self._clock(), self._payments.store
        await store.forget_notifications(now - self._rules.notifications_kept, PRUNED_MAX)
        await store.forget_retries(now, PRUNED_MAX)


class Supervision:
    """Runs all rails; what one of them does wrong stays with it."""

    def __init__(
        self,
        payments: Payments,
        rails: Mapping[str, Rail],
        *,
        clock: Clock,
        keep_rates_fresh: Callable[[], Awaitable[None]] | None = None,
        rules: RunnerRules | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        self._rules = rules or RunnerRules()
        self._randomness = randomness or random.SystemRandom()
        self._keep_rates_fresh = keep_rates_fresh
        self._tasks: list[asyncio.Task[None]] = []
        self._rails = rails
        self._payments = payments
        self._log = structlog.get_logger("rails.supervision")
        self.runners = {
            name: RailRunner(payments, rail, clock=clock, rules=self._rules, randomness=self._randomness)
            for name, rail in rails.items()
        }

    async def __aenter__(self) -> Self:
        if self._keep_rates_fresh is not None:
            self._start("rates", self._keep_rates_fresh)
        for name, runner in self.runners.items():
            self._start(f"{name}.health", runner.health.run)
            self._start(f"{name}.sweep", runner.sweep)
            self._start(f"{name}.listen", runner.listen)
            self._start(f"{name}.work", runner.work)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await end_tasks(self._tasks)
        self._tasks.clear()
        await self.close_rails()

    async def close_rails(self) -> None:
        """Let go of every rail's connections."""
        for name, rail in self._rails.items():
            try:
                await rail.close()
            except Exception as failure:  # noqa: BLE001 - the other rails must be closed too
                self._log.warning("rail_close_failed", rail=name, error=type(failure).__name__)

    def _refused(self, rail: str) -> dict[str, Any] | None:
        refused = self._payments.refused
        last = refused.last(rail)
        if last is None:
            return None
        times = {reason.value: known.times for reason, known in refused.of(rail).items()}
        return {"reason": last.reason.value, "detail": last.detail, "at": last.at, "times": times}

    def _following(self, rail: str) -> dict[str, Any] | None:
        follows = self._rails[rail]
        return asdict(follows.following()) if isinstance(follows, Follows) else None

    def report(self) -> dict[str, Any]:
        """Per rail: whether it is healthy, listening and caught up, and how many notifications were set aside."""
        shown = {}
        for name, runner in self.runners.items():
            health = self._payments.health.get(name, Health(ok=False, detail="not asked yet"))
            shown[name] = {
                "ok": health.ok,
                "detail": health.detail,
                "receivable": None if health.receivable is None else dict(health.receivable),
                "following": self._following(name),
                "listening": runner.listening,
                "caught_up": runner.caught_up.is_set(),
                "unmatched_hints": runner.unmatched,
                "refused": self._refused(name),
            }
        return shown

    def _start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(self._keep_running(name, work), name=f"rails.{name}"))

    async def _keep_running(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """A task that dies of an unforeseen fault is started again, after a growing wait."""
        failures = _Failures(self._rules, self._randomness)
        while True:
            try:
                await work()
            except Exception:  # noqa: BLE001 - supervision is the last line: log it loudly, start again
                self._log.exception("rail_task_failed", task=name)
            await asyncio.sleep(failures.next_seconds())


def _seconds(milliseconds: int) -> float:
    return timedelta(milliseconds=milliseconds).total_seconds()
