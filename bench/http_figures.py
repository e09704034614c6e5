"""What `bench.http` makes of a measurement: a row for people and programs, and ratios to the bare frame."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.http_load import BROKEN, NO_TIME, Found
from bench.surroundings import percentile

SPINS = 1_000_000


class Cpu(NamedTuple):
    """Seconds of processor time."""

    api: float
    """Of the API processes with those that decode pictures for them."""
    stack: float
    """Of these, PostgreSQL and Valkey."""

    def __sub__(self, before: Cpu) -> Cpu:
        """What was spent since."""
        return Cpu(self.api - before.api, self.stack - before.stack)


def spins_per_second() -> int:
    """Rounds of a loop that does nothing, for one second of wall time on one core."""
    began = time.perf_counter()
    for _ in range(SPINS):
        pass
    return int(SPINS / (time.perf_counter() - began))


def row(found: Found, cpu: Cpu) -> dict[str, Any]:
    """Per second and per request means answers below 400."""
    good = max(1, len(taken := all_taken(found)))
    return {
        "per_second": round(len(taken) / found.seconds, 1),
        **latency(taken),
        "api_cpu_ms": round(cpu.api * 1000 / good, 2),
        "stack_cpu_ms": round(cpu.stack * 1000 / good, 2),
        "client_cpu_ms": round(found.own_cpu * 1000 / good, 2),
        "answers": answers(found),
    }


def latency(taken_ms: Sequence[float]) -> dict[str, float]:
    """The middle and the end of the distribution."""
    return {f"p{share}_ms": round(percentile(taken_ms, share / 100), 1) for share in (50, 95, 99)}


def all_taken(found: Found) -> list[float]:
    """Milliseconds of all kinds of requests."""
    return [taken for kind in found.taken_ms.values() for taken in kind]


def answers(found: Found) -> dict[str, int]:
    """How often which answer came, whatever was asked."""
    together: Counter[str] = Counter()
    for counted in found.answers.values():
        together.update(counted)
    return dict(sorted(together.items()))


def beside(bare: dict[str, Any], asked: dict[str, Any]) -> dict[str, float]:
    """The ratios that say how much a request costs, whatever the machine does beside it."""
    return {
        "rate_to_bare": round(asked["per_second"] / max(bare["per_second"], 0.1), 3),
        "api_cpu_to_bare": round(asked["api_cpu_ms"] / max(bare["api_cpu_ms"], 0.01), 1),
    }


def wrong(counted: dict[str, int]) -> dict[str, int]:
    """What a client that sends too much must not meet: it is accepted, or told when to come again."""
    return {
        name: times
        for name, times in counted.items()
        if name == BROKEN or NO_TIME in name or not name.startswith(("2", "429 "))
    }
