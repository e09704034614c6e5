"""What runs as long as payments are taken: one set of tasks per rail, none of which can hurt another.

    supervision = Supervision(payments, rails, rates, clock=…)
    async with supervision:
        …
    supervision.report()   # for /health

Per rail: listen (the hint is followed at once, then its cursor is kept), work through the inbox of
stored hints, and sweep (health, pending payments, quotes that ran out, money that waits for a rate).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, cast

import structlog

from ledger.clock import Clock
from ledger.errors import LogUnavailable, OutcomeUnknown, Refusal, TooBusy
from rails.contract import Health, Hint, Rail, RailError, RailProtocolError, RailUnavailable
from rails.service import Payments, UnknownReference
from rails.store import StoredHint

_OUTAGES = (RailUnavailable, LogUnavailable, OutcomeUnknown, TooBusy, TimeoutError)
"""Somebody does not answer. That says nothing about the hint, however long it lasts."""
_PASSING = (*_OUTAGES, UnknownReference)
"""Faults that time heals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerRules:
    """Paces and bounds of a runner."""

    sweep_seconds: int = 20
    retry_first_seconds: int = 1
    retry_most_seconds: int = 60
    hint_tries_max: int = 12
    """After so many tries a hint that is itself at fault is set aside as `unmatched` and counted in the
    report. An outage sets nothing aside: of paid and of expired payments, hints are all we hear."""
    hint_page: int = 100
    overdue_page: int = 200
    pending_page: int = 200
    """How many pending payments are asked about per round, once everything has been asked about."""
    hints_kept: timedelta = timedelta(days=30)


class Backoff:
    """Waits that double up to a bound, with jitter; reset by success."""

    def __init__(self, rules: RunnerRules, randomness: random.Random) -> None:
        self._rules = rules
        self._randomness = randomness
        self._tries = 0

    def reset(self) -> None:
        """It worked."""
        self._tries = 0

    def next_milliseconds(self) -> int:
        """How long to wait before the next try."""
        self._tries += 1
        return backoff_milliseconds(self._rules, self._tries, self._randomness)


def backoff_milliseconds(rules: RunnerRules, tries: int, randomness: random.Random) -> int:
    """Half to all of the doubled wait."""
    full = min(rules.retry_first_seconds << min(tries - 1, 16), rules.retry_most_seconds) * 1000
    return randomness.randint(full >> 1, full)


class RailRunner:
    """The tasks of one rail."""

    def __init__(
        self, payments: Payments, rail: Rail, *, clock: Clock, rules: RunnerRules, randomness: random.Random
    ) -> None:
        self.caught_up = asyncio.Event()
        """Set when what was paid while we were down has been asked about."""
        self.listening = False
        self.unmatched = 0
        self._swept_to = ""
        self._payments = payments
        self._rail = rail
        self._clock = clock
        self._rules = rules
        self._randomness = randomness
        self._log = structlog.get_logger("rails.runner").bind(rail=rail.name)

    # --- listening -----------------------------------------------------------------------------

    async def listen(self) -> None:
        """Follow hints for ever; reconnect with growing waits."""
        backoff = Backoff(self._rules, self._randomness)
        while True:
            try:
                await self._listen_once(backoff)
            except RailError as error:
                self._log.warning("rail_connection_lost", error=type(error).__name__, detail=str(error))
            finally:
                self.listening = False
            await asyncio.sleep(_seconds(backoff.next_milliseconds()))

    async def _listen_once(self, backoff: Backoff) -> None:
        cursor = await self._payments.store.cursor(self._rail.name)
        stream = cast("AsyncGenerator[Hint, None]", self._rail.listen(cursor))
        self.listening = True
        async with aclosing(stream) as hints:
            async for hint in hints:
                await self._follow(hint)
                if hint.cursor is not None:
                    await self._payments.store.keep_cursor(self._rail.name, hint.cursor)
                backoff.reset()

    async def _follow(self, hint: Hint) -> None:
        """Deal with a hint now, or keep it for later: only then may the cursor move on."""
        try:
            await self._payments.deal_with(self._rail.name, hint.reference)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the hint must not be lost
            tell = self._log.info if isinstance(error, _PASSING) else self._log.warning
            tell("hint_postponed", error=type(error).__name__)
            await self._payments.keep_hint(self._rail.name, hint)

    # --- the inbox -----------------------------------------------------------------------------

    async def work(self) -> None:
        """Work through stored hints as they come and as their retries fall due."""
        stored = self._payments.hint_stored[self._rail.name]
        while True:
            stored.clear()
            await self.work_once()
            due_at = await self._payments.store.next_due_at(self._rail.name)
            wait = self._rules.sweep_seconds * 1000
            if due_at is not None:
                wait = min(wait, max((due_at - self._clock()) // timedelta(milliseconds=1), 10))
            # Not `wait_for`: before Python 3.12 it swallows a cancellation that comes together with a hint.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_seconds(wait)):
                    await stored.wait()

    async def work_once(self) -> int:
        """Deal with the hints that are due; returns how many there were."""
        due = await self._payments.store.due_hints(self._rail.name, self._clock(), self._rules.hint_page)
        for hint in due:
            await self._work_on(hint)
        return len(due)

    async def _work_on(self, hint: StoredHint) -> None:
        store = self._payments.store
        try:
            await self._payments.deal_with(hint.rail, hint.reference)
        except Exception as error:  # noqa: BLE001 - one bad hint must not stop the others
            if hint.tries + 1 >= self._rules.hint_tries_max and not isinstance(error, _OUTAGES):
                self.unmatched += 1
                self._log.error("hint_set_aside", hint=hint.id, error=type(error).__name__)
                await store.close_hint(hint.id, "unmatched")
                return
            wait = backoff_milliseconds(self._rules, hint.tries + 1, self._randomness)
            due_at = self._clock() + timedelta(milliseconds=wait)
            await store.postpone_hint(hint.id, due_at, type(error).__name__)
        else:
            await store.close_hint(hint.id, "done")

    # --- sweeping ------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """At once and then periodically: health, pending payments, overdue quotes, unpriced money."""
        while True:
            await self.sweep_once()
            await asyncio.sleep(self._rules.sweep_seconds)

    async def sweep_once(self) -> None:
        """One round. A part that fails does not keep the others from being done."""
        name = self._rail.name
        self._payments.health[name] = await self.ask_health()
        for part in (self._catch_up, self._expire_overdue, self._price):
            try:
                await part()
            except Exception as error:  # noqa: BLE001 - the next round tries again
                self._log.warning("sweep_incomplete", part=part.__name__, error=type(error).__name__)

    async def ask_health(self) -> Health:
        """The rail's own word, or that it gave none."""
        try:
            return await self._rail.health()
        except Exception as error:  # noqa: BLE001 - any failure to answer is an answer here
            return Health(ok=False, detail=type(error).__name__)

    async def _catch_up(self) -> None:
        """First everything that is pending; afterwards a page per round, in turn."""
        if not self.caught_up.is_set():
            await self._payments.observe_pending(self._rail.name)
            self.caught_up.set()
            return
        page = self._rules.pending_page
        self._swept_to = await self._payments.observe_page(self._rail.name, self._swept_to, page)

    async def _expire_overdue(self) -> None:
        for payment_id in await self._payments.store.overdue(
            self._rail.name, self._clock(), self._rules.overdue_page
        ):
            try:
                await self._payments.expire(payment_id)
            except (Refusal, RailProtocolError) as error:
                # What is wrong with one must not keep all that fell due after it from being closed.
                self._log.error("payment_not_expired", payment_id=payment_id, error=type(error).__name__)
        await self._payments.store.forget_hints(self._clock() - self._rules.hints_kept, 1000)

    async def _price(self) -> None:
        await self._payments.price_unpriced(self._rail.name)


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
            self._start(f"{name}.sweep", runner.sweep)
            self._start(f"{name}.listen", runner.listen)
            self._start(f"{name}.work", runner.work)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for name, rail in self._rails.items():
            try:
                await rail.close()
            except Exception as failure:  # noqa: BLE001 - the other rails must be closed too
                self._log.warning("rail_close_failed", rail=name, error=type(failure).__name__)

    def report(self) -> dict[str, Any]:
        """Per rail: whether it is healthy, listening and caught up, and how many hints were set aside."""
        shown = {}
        for name, runner in self.runners.items():
            health = self._payments.health.get(name, Health(ok=False, detail="not asked yet"))
            shown[name] = {
                "ok": health.ok,
                "detail": health.detail,
                "listening": runner.listening,
                "caught_up": runner.caught_up.is_set(),
                "unmatched_hints": runner.unmatched,
            }
        return shown

    def _start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(self._keep_running(name, work), name=f"rails.{name}"))

    async def _keep_running(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """A task that dies of an unforeseen fault is started again, after a growing wait."""
        backoff = Backoff(self._rules, self._randomness)
        while True:
            try:
                await work()
            except Exception:  # noqa: BLE001 - supervision is the last line: log it loudly, start again
                self._log.exception("rail_task_failed", task=name)
            await asyncio.sleep(_seconds(backoff.next_milliseconds()))


def _seconds(milliseconds: int) -> float:
    return timedelta(milliseconds=milliseconds).total_seconds()
