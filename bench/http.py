"""What an accepted request for an image costs over HTTP, beside a request that does next to nothing.

Starts a stack of its own. Closed loop: each caller asks again as soon as it was answered. CPU time is that of the API
with its processes for uploads, and of everything in the stack together; this program's own is given apart.
The bare frame (`POST /v1/visitors`: it reads and writes no row) and a loop that does nothing are measured in the same
run, before each case: their ratios can be compared between machines, the figures alone cannot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.http_client import Answer, Connection, connected, written
from bench.surroundings import descendants, machine, percentile, run
from tests.e2e.stack import QUICK_AND_GENEROUS, Stack
from tests.gateway.stack import generation_request
from tests.hostile.attacks import cpu_seconds

SECONDS = 4.0
CALLERS = (1, 16, 64)
REQUESTS_OF_ONE = 15
"""Of one visitor: the free images of a day are more."""
SPINS = 1_000_000
GENEROUS = {
    **QUICK_AND_GENEROUS,
    "LLAMASKETCH_REQUESTS_AT_ONCE_ADDRESS": "1000",
    "LLAMASKETCH_UPLOADS_WAITING_NETWORK": "1000",
    "LLAMASKETCH_UPLOADS_WAITING": "1000",
}
"""Every caller comes from one address."""

Work = Callable[[Connection], Awaitable[Answer]]


class Figures(NamedTuple):
    """Of one case: answers by status, their milliseconds, and CPU seconds spent meanwhile."""

    seconds: float
    statuses: Counter[int]
    taken_ms: Sequence[float]
    api_cpu: float
    stack_cpu: float
    own_cpu: float

    def row(self, wanted: int) -> dict[str, Any]:
        """For people and programs; per second and per request means answers with the `wanted` status."""
        good = self.statuses[wanted]
        return {
            "per_second": round(good / self.seconds, 1),
            "p50_ms": round(percentile(self.taken_ms, 0.5), 1),
            "p99_ms": round(percentile(self.taken_ms, 0.99), 1),
            "api_cpu_ms": round(self.api_cpu * 1000 / max(1, good), 2),
            "stack_cpu_ms": round(self.stack_cpu * 1000 / max(1, good), 2),
            "client_cpu_ms": round(self.own_cpu * 1000 / max(1, good), 2),
            "answers": {str(status): count for status, count in sorted(self.statuses.items())},
        }


def beside(bare: dict[str, Any], accepted: dict[str, Any]) -> dict[str, float]:
    """The ratios that say how much a request costs, whatever the machine does beside it."""
    return {
        "rate_to_bare": round(accepted["per_second"] / max(bare["per_second"], 0.1), 3),
        "api_cpu_to_bare": round(accepted["api_cpu_ms"] / max(bare["api_cpu_ms"], 0.01), 1),
    }


def spins_per_second() -> int:
    """Rounds of a loop that does nothing, for one second of wall time on one core."""
    began = time.perf_counter()
    for _ in range(SPINS):
        pass
    return int(SPINS / (time.perf_counter() - began))


async def closed_loop(
    port: int, callers: int, seconds: float, work: Work
) -> tuple[Counter[int], list[float]]:
    """So many callers at the same time, each asking again when it was answered."""
    statuses: Counter[int] = Counter()
    taken: list[float] = []
    until = time.monotonic() + seconds

    async def one() -> None:
        async with connected(port) as connection:
            while time.monotonic() < until:
                began = time.perf_counter()
                statuses[(await work(connection)).status] += 1
                taken.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(one() for _ in range(callers)))
    return statuses, taken


async def _measured(stack: Stack, callers: int, seconds: float, work: Work) -> Figures:
    before, began = _spent(stack), time.monotonic()
    statuses, taken = await closed_loop(stack.port, callers, seconds, work)
    after = _spent(stack)
    api, everything, own = (late - early for late, early in zip(after, before, strict=True))
    return Figures(time.monotonic() - began, statuses, taken, api, everything, own)


def _spent(stack: Stack) -> tuple[float, float, float]:
    """CPU seconds of the API with its processes, of the whole stack, and of this program."""
    api = stack.children()["api"]
    return _cpu([api, *descendants(api)]), _cpu(descendants(stack.pid)), time.process_time()


def _cpu(pids: Iterable[int]) -> float:
    return sum(cpu_seconds(pid) for pid in pids if Path(f"/proc/{pid}").exists())


async def measured(callers: Sequence[int], seconds: float) -> dict[str, Any]:
    """All cases, one after the other, on one stack."""
    stack = Stack(GENEROUS)
    body = json.dumps(generation_request()).encode()
    new_visitor = written("POST", "/v1/visitors")
    tokens: list[str] = []

    async def bare(connection: Connection) -> Answer:
        answer = await connection.ask(new_visitor)
        tokens.append(answer.json()["token"])
        return answer

    rows = []
    try:
        await stack.start()
        for count in callers:
            spins = spins_per_second()
            frame = await _measured(stack, count, seconds, bare)
            slots = iter([token for token in tokens for _ in range(REQUESTS_OF_ONE)])
            tokens.clear()

            async def accepted(connection: Connection, slots: Iterable[str] = slots) -> Answer:
                token = next(iter(slots))
                return await connection.ask(written("POST", "/v1/generations", token, body))

            found = await _measured(stack, count, seconds, accepted)
            case = {"bare": frame.row(201), "accepted": found.row(202)}
            ratios = beside(case["bare"], case["accepted"])
            load = round(os.getloadavg()[0], 2)
            rows.append({"callers": count, "spins_per_second": spins, "load": load, **ratios, **case})
    finally:
        await stack.dispose()
    return {"machine": machine(), "seconds": seconds, "closed_loop": rows}


def main() -> None:
    """Print what was measured; exit with 1 where anything but an acceptance was answered."""
    parser = argparse.ArgumentParser(prog="llamasketch bench http", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--callers", type=int, action="append", help="at the same time; may be repeated")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each case (default: %(default)s)")
    arguments = parser.parse_args()
    found = run(measured(arguments.callers or CALLERS, arguments.seconds))
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        for row in found["closed_loop"]:
            print(row)
    bad = [row for row in found["closed_loop"] if set(row["accepted"]["answers"]) != {"202"}]
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
