"""What requests cost over HTTP, beside one that does next to nothing.

Starts PostgreSQL, Valkey and one or two API processes; nobody paints, but for `delivered`. Callers are a process of
their own, each with an address of its own. CPU time is that of the API with its processes for pictures, and of
everything in the stack together; the callers' is given apart. The bare frame (`POST /v1/visitors`: it reads and writes
no row) and a loop that does nothing are measured in the same run: their ratios can be compared between machines, the
figures alone cannot. The cases:

    delivered   CPU of all processes for an image that is asked for, painted elsewhere, and delivered
    closed      requests for images; 1, 16, 64 and 256 callers ask again as soon as they were answered
    sizes       sketches of three sizes
    reads       an account, a statement, an image's state, and who one is
    mix         requests for images among polls, while event streams are open
    open        requests that are due at fixed times: half of what the closed loop of 64 did, and four times as many
    two         the closed loop of 64 on two API processes
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench import pictures
from bench.chaos_stack import ChaosStack
from bench.http_client import connected, written
from bench.http_figures import Cpu, answers, beside, latency, row, spins_per_second, wrong
from bench.http_load import JOB, Ask, Found, Order, in_own_process
from bench.surroundings import descendants, machine, percentile, print_found, run
from gateway.auth.identity import VisitorTokens
from gateway.derived_secrets import derive_secret
from ledger.clock import system_clock
from ledger.identifiers import Identifiers
from tests.gateway.stack import generation_request, picture, registration, sketch
from tests.hostile.attacks import cpu_seconds

SECONDS = 4.0
CALLERS = (1, 16, 64, 256)
CAPACITY_CALLERS = 64
OVERLOAD_CALLERS = 1024
SIDES = (64, 512, 1024)
"""Of sketches, in pixels."""
READERS = 16
STREAMS = 200
IMAGES = 40
TOKENS = 2000
UNLIMITED = {
    "LLAMASKETCH_UPLOAD_MEGABYTES_PER_HOUR": "1000000",
    "LLAMASKETCH_UPLOAD_MEGABYTES_PER_HOUR_NETWORK": "1000000",
}
BARE = Ask("bare", "POST", "/v1/visitors", signed=False)
READS = (
    Ask("session", "GET", "/v1/session"),
    Ask("account", "GET", "/v1/account"),
    Ask("statement", "GET", "/v1/statement"),
    Ask("generation", "GET", f"/v1/generations/{JOB}"),
)


def accepted(side: int = SIDES[0], weight: int = 1) -> Ask:
    """A request for an image of a sketch."""
    drawn = picture() if side == SIDES[0] else pictures.saved(pictures.drawing(side), "PNG")
    body = json.dumps(generation_request() | {"sketch": sketch(drawn)})
    return Ask("accepted", "POST", "/v1/generations", body, weight)


class Bench:
    """A stack that runs, and what is asked of it."""

    def __init__(self, stack: ChaosStack, seconds: float, callers: Sequence[int]) -> None:
        self._stack = stack
        self._seconds = seconds
        self._callers = callers
        secret = derive_secret(stack.environment["LLAMASKETCH_SECRET_KEY"], "visitor-tokens")
        self._tokens = VisitorTokens(secret, system_clock)
        self._identifiers = Identifiers(system_clock)

    def visitors(self, many: int = TOKENS) -> list[str]:
        """Tokens of new visitors. None of them has asked for anything."""
        return [self._tokens.issue(self._identifiers.account()) for _ in range(many)]

    async def measured(self, asks: Sequence[Ask], **order: Any) -> tuple[Found, Cpu]:
        """Let callers ask; what came back, and what the stack spent meanwhile."""
        before = self.spent()
        usual = {"ports": self._stack.ports, "tokens": self.visitors(), "seconds": self._seconds}
        found = await in_own_process(Order(asks=asks, **(usual | order)))
        return found, self.spent() - before

    def spent(self) -> Cpu:
        """By the stack until now."""
        apis = [api.pid for api in self._stack.apis]
        with_children = [pid for api in apis for pid in (api, *descendants(api))]
        return Cpu(_cpu(with_children), _cpu(descendants(os.getpid())))

    async def beside_bare(self, asks: Sequence[Ask], callers: int, **order: Any) -> dict[str, Any]:
        """A row of these requests in the closed loop, its bare frame, and the ratios."""
        spins = spins_per_second()
        bare = row(*await self.measured([BARE], callers=callers))
        asked = row(*await self.measured(asks, callers=callers, **order))
        load = round(os.getloadavg()[0], 2)
        ratios = beside(bare, asked)
        return {"callers": callers, "spins_per_second": spins, "load": load, **ratios} | {
            "bare": bare,
            "asked": asked,
        }

    async def delivered(self) -> dict[str, Any]:
        """CPU milliseconds of each image, over all processes of the stack, sketch and image of 1024 pixels."""
        people, workers = self.visitors(pictures.LANES), [await self._worker() for _ in range(pictures.LANES)]
        url, counts = f"http://127.0.0.1:{self._stack.ports[0]}", (pictures.LANES, IMAGES)
        spins, frame = spins_per_second(), row(*await self.measured([BARE], callers=1))
        spent, seconds = self.spent(), 0.0
        for images in counts:  # the first ones warm up
            before = self.spent()
            order = pictures.Order(url, people, workers, "drawing", "painting", images)
            seconds = await pictures.people_and_workers(order)
            spent = self.spent() - before
        return {
            "spins_per_second": spins,
            "bare_api_cpu_ms": frame["api_cpu_ms"],
            "images_per_second": round(IMAGES / seconds, 1),
            "api_cpu_ms": round(spent.api * 1000 / IMAGES, 1),
            "stack_cpu_ms": round(spent.stack * 1000 / IMAGES, 1),
        }

    async def _worker(self) -> str:
        body = json.dumps(registration(self._stack.registration_token())).encode()
        async with connected(self._stack.ports[0]) as connection:
            answer = await connection.ask(written("POST", "/v1/worker/register", "", body))
        return str(answer.json()["token"])

    async def closed(self) -> list[dict[str, Any]]:
        """Requests for images, with more and more callers."""
        return [await self.beside_bare([accepted()], callers) for callers in self._callers]

    async def sizes(self) -> list[dict[str, Any]]:
        """The same with sketches of three sizes."""
        return [{"side": side} | await self.beside_bare([accepted(side)], READERS) for side in SIDES]

    async def reads(self) -> list[dict[str, Any]]:
        """Each read alone, of accounts that wait for an image."""
        begun = await self._begun()
        return [{"read": read.name} | await self.beside_bare([read], READERS, begun=begun) for read in READS]

    async def _begun(self) -> list[tuple[str, str]]:
        """Images that were asked for, each by a visitor of its own."""
        found, _ = await self.measured([accepted()], callers=READERS, uses=1)
        return found.accepted[:STREAMS]

    async def warmed(self) -> Bench:
        """The processes that decode pictures are started by the first sketches."""
        for port in self._stack.ports:
            await self.measured([accepted()], callers=8, ports=[port], seconds=0.5)
        return self

    async def mix(self) -> dict[str, Any]:
        """One request for an image, six polls of it, two of the account, one of the statement."""
        weights = {"session": 0, "account": 2, "statement": 1, "generation": 6}
        polls = [
            Ask(read.name, read.method, read.path, weight=weight)
            for read in READS
            if (weight := weights[read.name])
        ]
        found, cpu = await self.measured(
            [accepted(), *polls], callers=READERS, streams=STREAMS, begun=await self._begun()
        )
        return row(found, cpu) | {
            "streams": STREAMS,
            "frames": found.frames,
            "by_kind": {name: latency(taken) for name, taken in found.taken_ms.items()},
        }

    async def open(self) -> dict[str, Any]:
        """Half of what was done in the closed loop, then four times as much."""
        callers = min(CAPACITY_CALLERS, max(self._callers))
        first, _ = await self.measured([accepted()], callers=callers)
        capacity = len(first.accepted) / first.seconds
        half, _ = await self.measured([accepted()], callers=callers, rate=capacity / 2)
        taken = half.taken_ms.get("accepted", [])
        many = OVERLOAD_CALLERS if callers == CAPACITY_CALLERS else 16 * callers
        over, cpu = await self.measured([accepted()], callers=many, rate=4 * capacity)
        return {
            "capacity_per_second": round(capacity, 1),
            "half": latency(taken)
            | {"p99_to_p50": round(percentile(taken, 0.99) / max(percentile(taken, 0.5), 0.1), 1)}
            | {"answers": answers(half), "late": half.late},
            "four_times": row(over, cpu)
            | {"late": over.late, "wrong": wrong(answers(over)), "lost": self._lost(over.accepted)},
        }

    def _lost(self, accepted: Sequence[tuple[str, str]]) -> int:
        """Accepted requests that no row of the queue stands for: nobody paints here, so each must have one."""
        jobs = [job for _, job in accepted]
        with psycopg.connect(self._stack.database_url) as connection:
            query = "SELECT count(*) FROM job_queue WHERE job_id = ANY(%s)"
            kept = connection.execute(query, (jobs,)).fetchone()
        return len(jobs) - (kept[0] if kept else 0)

    async def two(self) -> dict[str, Any]:
        """Both processes."""
        return await self.beside_bare([accepted()], min(CAPACITY_CALLERS, max(self._callers)))


Case = Callable[[Bench], Awaitable[Any]]
CASES: Mapping[str, Case] = {
    name: getattr(Bench, name) for name in ("delivered", "closed", "sizes", "reads", "mix", "open", "two")
}


def _cpu(pids: Iterable[int]) -> float:
    return sum(cpu_seconds(pid) for pid in pids if Path(f"/proc/{pid}").exists())


@asynccontextmanager
async def stack_of(apis: int, settings: Mapping[str, str] = UNLIMITED) -> AsyncIterator[ChaosStack]:
    """A stack with so many API processes and no workers, on a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="llamasketch-bench-", dir=os.environ.get("BENCH_FOLDER")) as name:
        stack = ChaosStack(
            Path(name), apis=apis, workers=0, paint_seconds=0, chance=random.Random(1), settings=settings
        )
        try:
            await stack.start()
            yield stack
        finally:
            await stack.stop()


async def measured(cases: Sequence[str], callers: Sequence[int], seconds: float) -> dict[str, Any]:
    """These cases, one after the other; those for two processes on a stack of their own."""
    found: dict[str, Any] = {"machine": machine(), "seconds": seconds}
    for apis in (1, 2):
        chosen = [name for name in CASES if name in cases and (name == "two") == (apis == 2)]
        if chosen:
            async with stack_of(apis) as stack:
                bench = await Bench(stack, seconds, callers).warmed()
                for name in chosen:
                    found[name] = await CASES[name](bench)
    return found


def bad(found: Mapping[str, Any]) -> list[str]:
    """What must not be: a request that was accepted and lost, or any refusal where nobody asks too much."""
    rows = [*found.get("closed", ()), *found.get("sizes", ()), *found.get("reads", ())]
    rows += [found["two"]] if "two" in found else []
    refused = [row["asked"] for row in rows] + ([found["mix"]] if "mix" in found else [])
    refused += [found["open"]["half"]] if "open" in found else []
    wrongs = [f"refused: {row['answers']}" for row in refused if set(row["answers"]) - {"200", "202"}]
    lost = found["open"]["four_times"]["lost"] if "open" in found else 0
    return wrongs + ([f"lost: {lost}"] if lost else [])


def main() -> None:
    """Print what was measured; exit with 1 where something is as it must not be."""
    parser = argparse.ArgumentParser(
        prog="llamasketch bench http",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="these cases")
    parser.add_argument("--callers", type=int, nargs="+", default=CALLERS, help="of the closed loop")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each step (default: %(default)s)")
    arguments = parser.parse_args()
    found = run(measured(arguments.only, arguments.callers, arguments.seconds))
    print_found(found, as_json=arguments.json)
    for problem in (problems := bad(found)):
        print(problem, file=sys.stderr)
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
