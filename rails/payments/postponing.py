"""Works through many payments of a rail, so that what is wrong with one holds up no other.

A payment that fails is postponed with growing waits, in `rail_retries`, where operators see it. Only
what fails for all of them ends a round: the log does not answer, or the rail does not. The next round
goes on behind the payment that was tried last, so that whatever stands first holds up nothing for ever.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from ledger.clock import Clock
from ledger.errors import LogUnavailable, OutcomeUnknown, TooBusy
from ledger.followups.backoff import Backoff
from ledger.followups.rows import problem_of
from ledger.identifiers import PaymentId
from rails.contract import Health, RailUnavailable
from rails.store.port import RailStore, RetryTask

BACKOFF = Backoff(first_milliseconds=15_000, longest_milliseconds=600_000)
UNANSWERED_IN_A_ROW_MAX = 3
"""So many payments in a row about which the rail does not answer are an outage of the rail."""
UNANSWERED_MAX = 12
"""Of one round: each costs a time-out, and what comes after it waits."""
PAGE = 200
_OURS = (LogUnavailable, OutcomeUnknown, TooBusy)


@dataclass(slots=True)
class Place:
    """How far a pass over the payments has come. It is kept from round to round."""

    after: str = ""
    """The payment tried last; empty at the beginning."""
    missed: bool = False
    """Whether this pass left a payment out about which nothing is written down."""

    def begin(self) -> None:
        """Start again with the first payment."""
        self.after, self.missed = "", False


@dataclass(slots=True)
class _Round:
    """What came of one round so far."""

    answered: bool = False
    in_a_row: int = 0
    unanswered: list[tuple[PaymentId, int, RailUnavailable]] = field(default_factory=list)
    """Payments, how often they had failed before, and why."""

    @property
    def over(self) -> bool:
        return self.in_a_row >= UNANSWERED_IN_A_ROW_MAX or len(self.unanswered) >= UNANSWERED_MAX


class Postponing:
    """Does something to each of many payments. Any number of processes may."""

    def __init__(
        self, store: RailStore, health: Mapping[str, Health], clock: Clock, randomness: random.Random
    ) -> None:
        self._store = store
        self._health = health
        self._clock = clock
        self._randomness = randomness
        self._log = structlog.get_logger("rails.payments.postponing")

    async def work_through(
        self,
        rail: str,
        task: RetryTask,
        place: Place,
        page_after: Callable[[str], Awaitable[Sequence[PaymentId]]],
        work: Callable[[PaymentId], Awaitable[object]],
        *,
        page: int = PAGE,
        pages: int | None = None,
    ) -> bool:
        """Do the work to the payments from `place` on, for at most so many pages; whether the last was reached.

        `page_after` gives the next payments, `page` of them unless they are the last. Raises what is wrong
        with the log, and `RailUnavailable` if the rail as a whole seems away; `place` has moved on all the same.
        """
        this = _Round()
        try:
            finished = await self._pages(rail, task, place, page_after, work, page, pages, this)
        except _OURS:
            place.missed = True
            raise
        if not this.unanswered:
            return finished
        if this.answered or self._health.get(rail, Health(ok=True)).ok:
            # It does answer about others: what it leaves unanswered is the fault of those payments.
            for payment_id, attempts, error in this.unanswered:
                await self._postpone(rail, payment_id, task, attempts + 1, error)
            if not this.over:
                return finished
        else:
            place.missed = True
        raise this.unanswered[-1][2]

    async def _pages(
        self,
        rail: str,
        task: RetryTask,
        place: Place,
        page_after: Callable[[str], Awaitable[Sequence[PaymentId]]],
        work: Callable[[PaymentId], Awaitable[object]],
        page: int,
        pages: int | None,
        this: _Round,
    ) -> bool:
        done = 0
        while pages is None or done < pages:
            found = await page_after(place.after)
            attempts = await self._store.postponed(task, found) if found else {}
            for payment_id in found:
                place.after = payment_id
                await self._one(rail, task, payment_id, attempts.get(payment_id, 0), work, this)
                if this.over:
                    return False
            if len(found) < page:
                return True
            done += 1
        return False

    async def _one(
        self,
        rail: str,
        task: RetryTask,
        payment_id: PaymentId,
        attempts: int,
        work: Callable[[PaymentId], Awaitable[object]],
        this: _Round,
    ) -> None:
        try:
            await work(payment_id)
        except _OURS:
            raise
        except RailUnavailable as error:
            this.in_a_row += 1
            this.unanswered.append((payment_id, attempts, error))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one must stay with it
            this.in_a_row = 0  # the rail did answer, or was not asked
            await self._postpone(rail, payment_id, task, attempts + 1, error)
        else:
            this.in_a_row, this.answered = 0, True
            if attempts:
                await self._store.resume(payment_id, task)

    async def _postpone(
        self, rail: str, payment_id: PaymentId, task: RetryTask, attempts: int, error: Exception
    ) -> None:
        problem = problem_of(error)
        self._log.error(
            "payment_postponed", payment_id=payment_id, task=task.value, attempts=attempts, problem=problem
        )
        due_at = self._clock() + BACKOFF.wait(attempts, self._randomness)
        await self._store.postpone(payment_id, task, rail, due_at, attempts, f"{task.value}: {problem}")
