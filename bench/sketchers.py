"""A thousand people who sketch live for an hour of simulated time: waits, waste, and honest estimates.

No database and no clock: the queue's own arithmetic (`turn_of`, ranks, the fair fourth turn) and the
estimate that people are shown, over a heap of events.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import Any

from generation.estimating import estimate
from generation.queue import FREE, PAID, PRIORITY, SLOT, Place, Tier, turn_of

PAINT_SECONDS = 2.2
PAUSE_SECONDS = 1.2


@dataclass(order=True)
class Waiting:
    """A frame in the queue."""

    rank: int
    number: int
    tag: int = field(compare=False)
    person: int = field(compare=False)
    asked: float = field(compare=False)
    low: int | None = field(compare=False, default=None)
    high: int | None = field(compare=False, default=None)
    gone: bool = field(compare=False, default=False)


@dataclass
class Queue:
    """The order of claims, in memory."""

    virtual: int = 0
    given: int = 0
    by_rank: list[Waiting] = field(default_factory=list)
    finish: dict[int, int] = field(default_factory=dict)
    weights: dict[int, int] = field(default_factory=dict)

    def add(self, frame: Waiting) -> int:
        """Insert; returns the position, 1 is next."""
        place = bisect.bisect_left(self.by_rank, frame)
        self.by_rank.insert(place, frame)
        return place + 1

    def remove(self, frame: Waiting) -> None:
        """A newer frame took its place."""
        del self.by_rank[bisect.bisect_left(self.by_rank, frame)]

    def claim(self) -> Waiting | None:
        """The next frame; every fourth by tag."""
        if not self.by_rank:
            return None
        self.given += 1
        if self.given % 4 == 0:
            chosen = min(self.by_rank, key=lambda frame: (frame.tag, frame.number))
            self.remove(chosen)
        else:
            chosen = self.by_rank.pop(0)
        active = sum(self.weights[frame.person] for frame in self.by_rank) or 1
        self.virtual = max(self.virtual + SLOT // 8 // active, chosen.tag)
        return chosen


def simulate(*, people: int, seconds: int, seed: int, boxes: int | None = None) -> dict[str, Any]:
    """Everybody draws in sessions of five minutes and thinks in between; one frame waits per person."""
    noise = random.Random(seed)
    tiers = [noise.choices((FREE, PAID, PRIORITY), (80, 15, 5))[0] for _ in range(people)]
    # A fifth of them draw at any time; a frame of each waits about a paint, the rest is superseded.
    boxes = boxes or max(1, people // 5 // 4)
    run = _Run(noise, tiers, boxes, seconds)
    run.go()
    return run.figures(people)


class _Run:
    def __init__(self, noise: random.Random, tiers: list[Tier], boxes: int, seconds: int) -> None:
        self.noise, self.tiers, self.boxes, self.seconds = noise, tiers, boxes, seconds
        self.queue = Queue(weights={who: tier.weight for who, tier in enumerate(tiers)})
        self.events: list[tuple[float, int, str, Any]] = []
        self.numbers = itertools.count()
        self.free = boxes
        self.waiting: dict[int, Waiting] = {}
        self.painted: list[int] = []
        self.waits: dict[Tier, list[float]] = {FREE: [], PAID: [], PRIORITY: []}
        self.told = self.kept = self.frames = self.superseded = self.delivered = self.busy_ms = 0

    def at(self, when: float, kind: str, what: Any) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), kind, what))

    def go(self) -> None:
        for who in range(len(self.tiers)):
            self.at(self.noise.uniform(0, 1500), "sit", who)
        while self.events:
            now, _, kind, what = heapq.heappop(self.events)
            if kind == "sit" and now < self.seconds:
                self.at(now, "stroke", (what, now + 300))
                self.at(now + 300 + self.noise.expovariate(1 / 1200), "sit", what)
            elif kind == "stroke":
                who, until = what
                if now < min(until, self.seconds):
                    self.ask(now, who)
                    self.at(now + self.noise.expovariate(1 / PAUSE_SECONDS) + 0.3, "stroke", what)
            elif kind == "done":
                self.deliver(now, what)

    def ask(self, now: float, who: int) -> None:
        self.frames += 1
        old = self.waiting.get(who)
        if old is not None:
            self.superseded += 1
            self.queue.remove(old)
            rank, tag = old.rank - 1, old.tag - 1
        else:
            turn, self.queue.finish[who] = turn_of(
                self.queue.virtual, self.queue.finish.get(who, 0), 1, self.tiers[who]
            )
            rank, tag = turn.rank, turn.tag
        frame = Waiting(rank, next(self.numbers), tag, who, now)
        position = self.queue.add(frame)
        running = self.boxes - self.free
        told = estimate(Place(position, running, self.boxes), self.painted[-100:])
        frame.low, frame.high = told.low_seconds, told.high_seconds
        self.waiting[who] = frame
        self.serve(now)

    def serve(self, now: float) -> None:
        while self.free and (frame := self.queue.claim()) is not None:
            self.waiting.pop(frame.person, None)
            self.free -= 1
            lasts = max(0.8, self.noise.gauss(PAINT_SECONDS, 0.3))
            self.busy_ms += round(lasts * 1000)
            self.painted.append(round(lasts * 1000))
            self.at(now + lasts, "done", frame)

    def deliver(self, now: float, frame: Waiting) -> None:
        self.free += 1
        self.delivered += 1
        wait = now - frame.asked
        self.waits[self.tiers[frame.person]].append(wait)
        if frame.low is not None and frame.high is not None:
            self.told += 1
            self.kept += frame.low <= wait <= frame.high
        self.serve(now)

    def figures(self, people: int) -> dict[str, Any]:
        names = {FREE: "free", PAID: "paid", PRIORITY: "pro"}
        return {
            "people": people,
            "boxes": self.boxes,
            "simulated_seconds": self.seconds,
            "frames": self.frames,
            "superseded_while_waiting": self.superseded,
            "delivered": self.delivered,
            "still_waiting": len(self.waiting),
            "gpu_busy_percent": round(self.busy_ms / 10 / self.boxes / self.seconds, 1),
            "estimates": self.told,
            "estimates_that_held_percent": round(100 * self.kept / max(1, self.told), 1),
            "stroke_to_image_seconds": {
                names[tier]: {
                    "p50": round(sorted(waits)[len(waits) // 2], 2),
                    "p95": round(sorted(waits)[len(waits) * 95 // 100], 2),
                    "max": round(max(waits), 2),
                }
                for tier, waits in self.waits.items()
                if waits
            },
        }
