"""A thousand people who sketch for an hour of simulated time: waits, fairness, waste, and honest estimates.

The queue, its order, claims, live frames, holds and the log are the product's own, on a PostgreSQL of its
own (`bench.sketchers_world` says exactly what is real). Time moves in steps: whatever falls into one step
happens at the same instant.

    llamasketch bench sketchers [--people 1000] [--workers 40] [--seconds 3600] [--seed 1] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

import generation.store.tables
from bench.sketchers_figures import Figures, ended_in_the_log, table
from bench.sketchers_people import BATCH, Sketcher, draw_person
from bench.sketchers_world import BEGIN, SKETCH, SketchWorld, open_sketch_world
from bench.surroundings import machine, note, own_postgres, print_table, run
from generation.delivery.dispatch import Assignment
from generation.domain.errors import GenerationError
from generation.domain.requests import GenerationRequest
from generation.fleet.registry import Worker
from ledger.collector import calm_garbage_collector
from ledger.errors import LedgerError, Refusal
from ledger.identifiers import CommandKey, HoldId, JobId
from sandbox.embedded.postgres import FAST_AND_FORGETFUL
from tests.tables import create_tables

SETTINGS = {
    **FAST_AND_FORGETFUL,
    # Rows come and go many times faster than they would in an hour.
    "autovacuum_naptime": "3s",
}
STEP_SECONDS = 0.4
PAINT_SECONDS = 2.2
DRAWING = 0.08
"""The share of people who draw at any time. At 40 workers for 1,000 people this about fills the workers."""
HOUSE_SECONDS = 2.0
DRAIN_SECONDS = 900.0
"""After the hour nobody asks any more; what waits is painted or expires."""
PROGRESS_SECONDS = 300.0


@dataclass
class Asked:
    """A job as its person sees it."""

    job_id: JobId
    person: Sketcher
    session: int
    at: float
    low: int | None = None
    high: int | None = None
    position: int = 0
    first_asked_at: float = 0.0
    """When the first of the frames was asked for that this one took the place of."""


@dataclass
class Painting:
    """A worker at work."""

    worker: Worker
    job: Assignment
    seconds: float


class Simulation:
    """Events in order of time; everything of one step at once."""

    def __init__(
        self,
        world: SketchWorld,
        *,
        people: int,
        workers: int,
        seconds: int,
        drawing: float,
        chance: random.Random,
    ) -> None:
        self.world = world
        self.chance = chance
        self.seconds = seconds
        self.drawing = drawing
        self.people_wanted = people
        self.workers_wanted = workers
        self.people: list[Sketcher] = []
        self.free: list[Worker] = []
        self.figures = Figures(workers=workers, seconds=seconds)
        self.waiting: dict[str, Asked] = {}
        self.painted: dict[str, Asked] = {}
        self._events: list[tuple[int, int, str, Any]] = []
        self._numbers = itertools.count()
        self._step = 0

    @property
    def now(self) -> float:
        """Simulated seconds since the beginning."""
        return self._step * STEP_SECONDS

    def after(self, seconds: float, kind: str, what: Any = None) -> None:
        """Something happens later, in the next step at the earliest."""
        step = self._step + max(1, round(seconds / STEP_SECONDS))
        heapq.heappush(self._events, (step, next(self._numbers), kind, what))

    async def prepare(self) -> None:
        """People, some of whom draw already, and workers."""
        for number in range(self.people_wanted):
            person = draw_person(number, self.chance)
            self.people.append(person)
            self.figures.people[f"{person.plan} {person.habit}"] += 1
            first = person.next_batch_in() if person.habit == "batch" else person.first_sits_at(self.drawing)
            self.after(first, "batch" if person.habit == "batch" else "sit", person)
        accounts = await asyncio.gather(*(self.world.person(person.credits) for person in self.people))
        for person, account_id in zip(self.people, accounts, strict=True):
            person.account_id = account_id
        self.free = [await self.world.worker(f"worker-{number}") for number in range(self.workers_wanted)]
        self.after(0, "house")

    async def go(self) -> None:
        """The hour, and until nothing waits any more."""
        returned = 0.0
        while self._events and self.now < self.seconds + DRAIN_SECONDS:
            before, self._step = self._step, self._events[0][0]
            idle = len(self.free) if self.waiting else 0
            self.figures.idle_while_waiting += idle * (self._step - before) * STEP_SECONDS
            self.world.clock.set(BEGIN + timedelta(seconds=self.now))
            await self._one_instant()
            if self.now >= self.seconds and not self.waiting and len(self.free) == self.workers_wanted:
                break
            if self.now >= returned + PROGRESS_SECONDS:
                returned = self.now
                note(f"{self.now:6.0f} s  {self.figures.delivered} delivered  {len(self.waiting)} waiting")
        self.figures.still_waiting = len(self.waiting)

    async def _one_instant(self) -> None:
        requests: list[tuple[Sketcher, bool]] = []
        done: list[Painting] = []
        while self._events and self._events[0][0] == self._step:
            _, _, kind, what = heapq.heappop(self._events)
            if kind == "done":
                done.append(what)
            elif kind == "house":
                await self._keep_house()
            elif kind in ("stroke", "ask"):
                person, session = what
                if session == person.session and self.now < min(person.sitting_until, self.seconds):
                    requests += self._what_they_do(kind, person)
            elif self.now < self.seconds:
                requests += self._what_they_do(kind, what)
        await asyncio.gather(
            *(self._deliver(painting) for painting in done), *(self._ask(who, live) for who, live in requests)
        )
        await self._serve()

    async def _keep_house(self) -> None:
        await self.world.keep_house()
        late = [asked for asked in self.waiting.values() if self.now - asked.at > 600]
        for asked in late:
            if await self.world.queue.entry(asked.job_id) is None:
                del self.waiting[asked.job_id]
        self.after(HOUSE_SECONDS, "house")

    def _what_they_do(self, kind: str, person: Sketcher) -> list[tuple[Sketcher, bool]]:
        """Requests at this instant; what comes next is planned."""
        match kind:
            case "sit":
                person.sits_down(self.now)
                gone = person.sitting_until - self.now + person.stays_away(self.drawing)
                self.after(gone, "sit", person)
                self.after(0, "ask" if person.habit == "single" else "stroke", (person, person.session))
                return []
            case "stroke":
                self.after(person.next_stroke_in(), "stroke", (person, person.session))
                return [(person, True)]
            case "ask":
                return [(person, False)]
            case "batch":
                self.after(person.next_batch_in(), "batch", person)
                return [(person, False)] * BATCH
            case _:
                return []

    # --- asking ---

    async def _ask(self, person: Sketcher, live: bool) -> None:
        self.figures.asked += 1
        request = self._request(person, live)
        old = self.waiting.get(person.waiting or "") if live else None
        try:
            await self.world.generations.request(request)
        except (GenerationError, Refusal, LedgerError) as refusal:
            self.figures.refused[type(refusal).__name__] += 1
            person.sitting_until = 0.0  # disappointed; they come again another time
            return
        asked = Asked(request.job_id, person, person.session, self.now, first_asked_at=self.now)
        if old is not None:
            del self.waiting[old.job_id]
            asked.first_asked_at = old.first_asked_at
            self.figures.replaced += 1
        self.waiting[request.job_id] = asked
        if live:
            person.waiting = request.job_id
        await self._show_estimate(asked)

    def _request(self, person: Sketcher, live: bool) -> GenerationRequest:
        job_id = self.world.ids.job()
        person.seq += live
        return GenerationRequest(
            key=CommandKey(f"{job_id}:request"),
            job_id=job_id,
            hold_id=HoldId("hold_" + job_id.removeprefix("job_")),
            account_id=person.account_id,
            tier=person.tier,
            prompt="a llama",
            sketch=SKETCH,
            seed=1,
            strength_permille=600,
            live=live,
            session_id=f"s{person.session}" if live else None,
            seq=person.seq if live else None,
        )

    async def _show_estimate(self, asked: Asked) -> None:
        returned = await self.world.generations.estimate(asked.job_id)
        if returned is not None:
            asked.low, asked.high, asked.position = (
                returned.low_seconds,
                returned.high_seconds,
                returned.position,
            )

    # --- painting ---

    async def _serve(self) -> None:
        """Free workers claim, as long as they get something."""
        while self.free and self.waiting:
            asking = self.free[: len(self.waiting)]
            jobs = await asyncio.gather(
                *(self.world.dispatch.claim(worker, wait_seconds=0) for worker in asking)
            )
            if not any(jobs):
                self.figures.empty_claims += len(asking)
                return
            for worker, job in zip(asking, jobs, strict=True):
                if job is not None:
                    self._begin(worker, job)

    def _begin(self, worker: Worker, job: Assignment) -> None:
        self.free.remove(worker)
        self.painted[job.claim.job_id] = self.waiting.pop(job.claim.job_id)
        lasts = max(0.8, self.chance.gauss(PAINT_SECONDS, 0.3))
        lasts = round(lasts / STEP_SECONDS) * STEP_SECONDS
        self.figures.busy_seconds += min(lasts, max(0.0, self.seconds - self.now))
        self.after(lasts, "done", Painting(worker, job, lasts))

    async def _deliver(self, painting: Painting) -> None:
        asked = self.painted.pop(painting.job.claim.job_id)
        person = asked.person
        state = await self.world.deliver(painting.worker, painting.job, painting.seconds)
        self.free.append(painting.worker)
        self.figures.reported[state] += 1
        if state == "completed":
            returned = None if asked.low is None or asked.high is None else (asked.low, asked.high)
            self.figures.note(person, self.now - asked.at, self.now - asked.first_asked_at, returned)
        if person.habit == "single":
            self.after(person.looks_for(), "ask", (person, asked.session))


async def hour(
    url: str, *, people: int, workers: int, seconds: int, drawing: float, seed: int
) -> dict[str, Any]:
    """Run on a fresh database."""
    chance = random.Random(seed)
    began = time.perf_counter()
    create_tables(url, generation.store.tables.metadata)
    async with open_sketch_world(url, chance) as world:
        simulation = Simulation(
            world, people=people, workers=workers, seconds=seconds, drawing=drawing, chance=chance
        )
        await simulation.prepare()
        await simulation.go()
        ends: Counter[str] = await ended_in_the_log(world.connection)
    figures = simulation.figures.summary(ends)
    return {**figures, "seed": seed, "wall_seconds": round(time.perf_counter() - began, 1)}


def simulate(
    *, people: int, seconds: int, seed: int, workers: int | None = None, drawing: float = DRAWING
) -> dict[str, Any]:
    """The same from anywhere, also where an event loop runs: in a thread and on a PostgreSQL of its own."""
    workers = workers or max(1, people // 25)

    def work() -> dict[str, Any]:
        calm_garbage_collector()
        with own_postgres(SETTINGS) as server:
            return run(
                hour(server.url, people=people, workers=workers, seconds=seconds, drawing=drawing, seed=seed)
            )

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def main() -> int:
    """Parse, simulate, print; 1 if something does not add up."""
    parser = argparse.ArgumentParser(
        prog="llamasketch bench sketchers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=40)
    parser.add_argument("--seconds", type=int, default=3600, help="of simulated time")
    parser.add_argument(
        "--drawing", type=float, default=DRAWING, help="the share of people who draw at any time"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="JSON on standard output, the table beside it")
    request = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    result = {"machine": machine()} | simulate(
        people=request.people,
        workers=request.workers,
        seconds=request.seconds,
        drawing=request.drawing,
        seed=request.seed,
    )
    print_table(result, table(result), as_json=request.json)
    return 0 if result["adds_up"] else 1


if __name__ == "__main__":
    sys.exit(main())
