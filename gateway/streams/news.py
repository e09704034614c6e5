"""What the open event streams of one process would otherwise each ask for: one question for all of them.

As long as anybody watches, it is looked every `LOOK_SECONDS` where all their waiting jobs stand; where that has
changed, its streams are told. Every `LOST_SECONDS` it is also looked whether something durable moved that nobody told
of (Redis may lose it), and whether a guest was merged into one of them. With nobody watching nothing is asked, and
with nothing new in the log only where jobs stand.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import sqlalchemy as sa
import structlog

from generation.domain.states import JobState
from generation.queueing.estimating import Estimate, estimate
from generation.queueing.queue import JobInFlight, JobQueue
from generation.queueing.signals import LocalSignals
from generation.store.batching import Batcher
from ledger.clock import Clock
from ledger.ownership import Ownership
from projections.feed import Feeds

LOOK_SECONDS = 2.0
LOOK_SECONDS_MIN = 0.25
"""Between two looks, however much happens."""
LOST_SECONDS = 5.0
ACCOUNTS_MAX = 8_192
"""Accounts that are asked about in one question."""

Seen = tuple[JobInFlight, Estimate | None]
"""A job that waits or runs, and when it should be there if it waits."""


class News:
    """One per process; everything happens in its event loop."""

    def __init__(
        self,
        *,
        signals: LocalSignals,
        queue: JobQueue,
        feeds: Feeds,
        ownership: Ownership,
        position: Callable[[], int],
        clock: Clock,
    ) -> None:
        """`position` is how far the feed is."""
        self._signals = signals
        self._queue = queue
        self._feeds = feeds
        self._ownership = ownership
        self._position = position
        self._clock = clock
        self._loads: Batcher[str, Sequence[Seen]] = Batcher(self._load, ACCOUNTS_MAX)
        self._in_flight: Mapping[str, Sequence[Seen]] = {}
        self._merges: Mapping[str, int] = {}
        self._looked_until = 0
        self._wanted = asyncio.Event()
        self._log = structlog.get_logger("gateway.streams.news")

    async def in_flight(self, accounts: Sequence[str]) -> Sequence[Seen]:
        """Where the newest jobs of these accounts stand now; who asks at the same time shares one question."""
        found = await asyncio.gather(*(self._loads.get(account) for account in accounts))
        return [seen for jobs in found for seen in jobs or ()]

    def known(self, accounts: Sequence[str]) -> Sequence[Seen]:
        """The same as of the last look, which costs nothing."""
        return [seen for account in accounts for seen in self._in_flight.get(account, ())]

    def hurry(self) -> None:
        """Something has happened that may have changed where jobs stand."""
        self._wanted.set()

    async def run(self) -> None:
        """Look for ever."""
        loop = asyncio.get_running_loop()
        lost_at = loop.time()
        while True:
            await asyncio.sleep(LOOK_SECONDS_MIN)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS - LOOK_SECONDS_MIN):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.look()
                if loop.time() >= lost_at:
                    lost_at = loop.time() + LOST_SECONDS
                    await self.look_for_lost()
            except (sa.exc.SQLAlchemyError, OSError) as error:
                self._log.warning("streams_not_told", error=type(error).__name__)

    async def look(self) -> None:
        """Tell the streams whose jobs stand elsewhere than before."""
        accounts = self._signals.watched()
        before = self._in_flight
        self._in_flight = await self._load(accounts) if accounts else {}
        for account in accounts:
            if _shown(self._in_flight.get(account, ())) != _shown(before.get(account, ())):
                self._signals.deliver(account, {"event": "in_flight"})

    async def look_for_lost(self) -> None:
        """Tell the streams of what moved since the last time, and of merged guests."""
        accounts, position = self._signals.watched(), self._position()
        if not accounts or position == self._looked_until:
            return
        # The first time from the beginning: a stream may be older than the first look, and knows what it has shown.
        for account, newest in (await self._feeds.newest(accounts, after=self._looked_until)).items():
            self._signals.deliver(account, {"event": "moved", "position": newest})
        self._looked_until = position
        merges = await self._ownership.merges_into(accounts)
        for account, count in merges.items():
            if count != self._merges.get(account):  # also where it is new here: it may just have happened
                self._signals.deliver(account, {"event": "merged"})
        self._merges = merges

    async def _load(self, accounts: Sequence[str]) -> Mapping[str, Sequence[Seen]]:
        found = await self._queue.in_flight(accounts, self._clock())
        waits = any(job.place is not None for job in found)
        recent = await self._queue.recent_milliseconds() if waits else ()
        by_account: dict[str, list[Seen]] = {}
        for job in found:
            foreseen = None if job.place is None else estimate(job.place, recent)
            by_account.setdefault(job.account_id, []).append((job, foreseen))
        return by_account


def _shown(jobs: Sequence[Seen]) -> Sequence[object]:
    """What a stream would say of them: how far a running one is comes by itself."""
    return [(job.job_id, job.state == JobState.RUNNING.value, foreseen) for job, foreseen in jobs]
