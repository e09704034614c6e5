"""Everything is killed at random under load; then it is counted whether anything was lost or paid twice.

Real processes: PostgreSQL that fsyncs, Valkey, two API processes behind a balancer, and workers of a worker
and a ComfyUI each; people ask over HTTP, and one worker breaks every promise of the worker protocol.
kill -9 of each in turn by a seed, and FLUSHALL; what was killed comes back after a moment. At the end
everything is left to settle, and the log is counted. Exit status 1 if anything is not as it must be.

    llamasketch bench chaos [--seconds 600] [--seed 1] [--json] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError

from bench import chaos_count
from bench.chaos_load import Book, Person, client
from bench.chaos_rogue import Rogue
from bench.chaos_stack import AGAIN_SECONDS, ROOT, ChaosStack, Program, Server
from bench.surroundings import machine, note, print_table
from gateway.wiring.foundation import CATEGORIES
from ledger.clock import system_clock
from ledger.domain.lots import Source
from ledger.identifiers import AccountId, Identifiers
from ledger.log.categories import Categories
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from ledger.service import Ledger

DECK = {"worker": 5, "comfyui": 4, "api": 4, "valkey": 2, "valkey_flushall": 2, "postgres": 2}
"""What is killed how often in a round; the order is the seed's."""
PAUSE_SECONDS = (1.0, 4.0)
PROGRESS_SECONDS = 10.0
FIRST_IMAGE_SECONDS_MAX = 60
CREDITS = 100_000
POOR_EVERY = 6
"""Every so manieth person has today's free images only, and runs out of them."""
VERIFY_SECONDS_MAX = 600


def open_to_others(folder: Path) -> None:
    """PostgreSQL may run as another user than we."""
    folder.chmod(0o755)


async def run(
    seconds: int,
    seed: int,
    *,
    apis: int = 2,
    workers: int = 3,
    people: int = 16,
    paint_seconds: float = 0.2,
    settle_seconds: int = 300,
    keep: Path | None = None,
) -> dict[str, Any]:
    """The whole show; returns the counts. `ok` says whether all is as it must be."""
    chance = random.Random(seed)
    folder = keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    stack = ChaosStack(folder, apis=apis, workers=workers, paint_seconds=paint_seconds, chance=chance)
    try:
        note("starting")
        await stack.start()
        async with client(stack.balancer.url) as http:
            show = _Show(stack, http, chance, people)
            await show.prepare()
            await show.storm(seconds)
            await show.settle(settle_seconds)
            counted = await show.count()
        return {"seconds": seconds, "seed": seed, "processes": _sizes(stack), **counted}
    finally:
        await stack.stop()
        if keep:
            note(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _sizes(stack: ChaosStack) -> dict[str, int]:
    kinds = Counter(mortal.kind for mortal in stack.mortals)
    return {**kinds, "rogue_boxes": 1}


class _Show:
    """Load, killing, settling and counting."""

    def __init__(
        self, stack: ChaosStack, http: httpx.AsyncClient, chance: random.Random, people: int
    ) -> None:
        self.stack = stack
        self.chance = chance
        self.http = http
        self.book = Book()
        self.people = [
            Person(http, self.book, random.Random(chance.random()), number) for number in range(people)
        ]
        self.rogue = Rogue(
            stack.balancer.url, stack.registration_token(), http, random.Random(chance.random())
        )
        self.killed: Counter[str] = Counter()
        self.settled_after = 0.0
        self.down: set[str] = set()
        self.burials: set[asyncio.Task[None]] = set()
        self.quiet = asyncio.Event()
        """People and the rogue have had enough."""
        self.finished = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def prepare(self) -> None:
        """Visitors, most of them with credits, and the first image: then the load is on."""
        for person in self.people:
            await person.begin()
        rich = [AccountId(p.account_id) for number, p in enumerate(self.people) if number % POOR_EVERY]
        await _grant(self.stack.database_url, rich)
        work = [*(person.go_on(self.quiet) for person in self.people), self.rogue.go_on(self.quiet)]
        self.tasks = [asyncio.create_task(w) for w in (*work, self._report_progress())]
        async with asyncio.timeout(FIRST_IMAGE_SECONDS_MAX):
            while "completed" not in self.book.ended.values():
                self._require_life()
                await asyncio.sleep(0.2)

    def _require_life(self) -> None:
        for task in self.tasks:
            if task.done() and task.exception() is not None:
                task.result()

    # --- killing ---

    async def storm(self, seconds: int) -> None:
        """Kill something every few seconds."""
        note(f"killing for {seconds} s")
        until = time.monotonic() + seconds
        deck: list[str] = []
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self.chance.uniform(*PAUSE_SECONDS)))
            if not deck:
                deck = [kind for kind, count in DECK.items() for _ in range(count)]
                self.chance.shuffle(deck)
            await self._strike(deck.pop())
            self._require_life()
        await asyncio.gather(*self.burials)

    async def _strike(self, kind: str) -> None:
        if kind == "valkey_flushall":
            self.killed[kind] += await _flush(self.stack.redis_url)
            return
        alive = [m for m in self.stack.mortals if m.kind == kind and m.name not in self.down]
        pause = self.chance.uniform(*AGAIN_SECONDS)
        victim = self.chance.choice(alive) if alive else None
        if victim is not None:
            self.killed[kind] += 1
            self.down.add(victim.name)
            burial = asyncio.create_task(self._bury(victim, pause))
            self.burials.add(burial)
            burial.add_done_callback(self.burials.discard)

    async def _bury(self, victim: Server | Program, pause: float) -> None:
        await victim.kill()
        await asyncio.sleep(pause)
        await victim.start()
        self.down.discard(victim.name)

    # --- beside it ---

    async def _report_progress(self) -> None:
        began = time.monotonic()
        while not self.finished.is_set():
            await _either(self.finished, PROGRESS_SECONDS)
            ends = Counter(self.book.ended.values())
            note(
                f"{time.monotonic() - began:5.0f} s  {self.killed.total():3} kills  "
                f"{len(self.book.accepted):5} accepted  {ends['completed']:5} seen delivered  "
                f"down: {' '.join(sorted(self.down)) or '-'}"
            )

    # --- afterwards ---

    async def settle(self, seconds_max: int) -> None:
        """Nothing is killed any more, nobody asks any more: wait until nothing is left to do."""
        note("settling")
        began = time.monotonic()
        self.quiet.set()
        await asyncio.gather(*self.tasks[: len(self.people) + 1])
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_until_nothing_waits(self.stack.database_url), seconds_max)
        self.settled_after = time.monotonic() - began
        self.finished.set()
        await asyncio.gather(*self.tasks)

    async def count(self) -> dict[str, Any]:
        """Look at everything once more over HTTP, stop all but PostgreSQL, and count the log."""
        note("counting")
        url = self.stack.database_url
        found, holds_open = await chaos_count.tally(url)
        fetched = await self._fetch(found)
        held = sum([await person.held() for person in self.people])
        by_itself = self.stack.ended_by_itself()
        for programs in (self.stack.workers, self.stack.comfyuis, self.stack.apis):
            await asyncio.gather(*(program.stop() for program in programs))
        beside = chaos_count.rows(url)
        verified = await _verify(self.stack.environment)
        checks = [
            *chaos_count.checks(self.book, found, holds_open, beside, fetched, held),
            chaos_count.Check("llamasketch verify", verified["ok"], True),
        ]
        return {
            "ok": all(check.ok for check in checks) and bool(found.digests),
            "killed": dict(sorted(self.killed.items())),
            "kills": self.killed.total(),
            "ended_by_itself": by_itself,
            "rogue": {**self.rogue.did, "refused": self.rogue.refused},
            "requests": {
                "accepted": len(self.book.accepted),
                "unanswered": self.book.unanswered,
                "answers": dict(self.book.answers.most_common()),
            },
            "jobs": len(found.ends),
            "ended": dict(found.states.most_common()),
            "failed_because": dict(found.failed),
            "painted_again_because": dict(found.requeued),
            "leases": found.starts,
            "holds": dict(found.holds),
            "images_delivered": len(found.digests),
            "credits_captured": sum(found.captured_by_job.values()),
            "image_files_nobody_names": chaos_count.files_left_over(
                self.stack.folder / "data" / "objects", beside
            ),
            "settled_after_seconds": round(self.settled_after, 1),
            "verify": verified,
            "checks": [{**check._asdict(), "ok": check.ok} for check in checks],
            "contradictions": self.book.contradictions[:20],
        }

    async def _fetch(self, found: chaos_count.Tally) -> dict[str, str | None]:
        """Every delivered image, over HTTP, by whoever it belongs to."""
        owners = {person.account_id: person for person in self.people}
        gate = asyncio.Semaphore(6)

        async def one(job_id: str) -> tuple[str, str | None]:
            async with gate:
                return job_id, await owners[found.owners[job_id]].digest_of_image(job_id)

        return dict(await asyncio.gather(*(one(job_id) for job_id in found.digests)))


async def _grant(url: str, accounts: Sequence[AccountId]) -> None:
    """Credits by our own promotion: no payment rail takes part."""
    with open_datastore(url) as datastore:
        sequencer = Sequencer(LogRecorder(datastore), Categories(CATEGORIES), system_clock)
        sequencer.start()
        try:
            ids = Identifiers(system_clock)
            ledger = Ledger(sequencer, _no_reader(), clock=system_clock, identifiers=ids)
            for account in accounts:
                await ledger.grant(account, CREDITS, source=Source.PROMOTION)
        finally:
            await asyncio.to_thread(sequencer.stop)


def _no_reader() -> Any:
    """Granting reads nothing."""
    return None


async def _flush(url: str) -> int:
    """FLUSHALL; 0 if Valkey is away at the moment."""
    connection = redis.Redis.from_url(url, socket_connect_timeout=1)
    try:
        await connection.flushall()
    except (RedisError, OSError):
        return 0
    finally:
        await connection.aclose()
    return 1


async def _until_nothing_waits(url: str) -> None:
    while await asyncio.to_thread(_unfinished, url):  # noqa: ASYNC110 - it happens in PostgreSQL
        await asyncio.sleep(0.5)


def _unfinished(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            row = connection.execute("SELECT count(*) FROM job_queue").fetchone()
    except psycopg.OperationalError:
        return True
    return bool(row and row[0])


async def _verify(environment: dict[str, str]) -> dict[str, Any]:
    """`llamasketch verify`, as an operator runs it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "verify", "--json"),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), VERIFY_SECONDS_MAX)
    if process.returncode not in (0, 1) or not output:
        return {"ok": False, "errors": errors.decode(errors="replace")[-500:]}
    report = json.loads(output)
    known = ("ok", "events", "batches", "wrong", "seconds", "first")
    return {name: report.get(name) for name in known if report.get(name) is not None}


async def _either(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def table(result: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [
        f"{result['seconds']} s of chaos, seed {result['seed']}: {result['kills']} kills "
        + " ".join(f"{kind} {count}" for kind, count in result["killed"].items()),
        f"{result['jobs']} jobs: "
        + ", ".join(f"{count} {state}" for state, count in result["ended"].items()),
        f"{result['images_delivered']} images delivered, {result['credits_captured']} credits captured",
        f"settled after {result['settled_after_seconds']} s",
        "",
    ]
    for check in result["checks"]:
        mark = "ok   " if check["ok"] else "WRONG"
        lines.append(f"  {mark} {check['what']:<48} {check['found']!s:>8}  (must be {check['wanted']})")
    lines += ["", "All is as it must be." if result["ok"] else "SOMETHING IS WRONG."]
    return "\n".join(lines)


def main() -> int:
    """Parse, run, print; 1 if anything is not as it must be."""
    parser = argparse.ArgumentParser(
        prog="llamasketch bench chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seconds", type=int, default=600, help="of killing; settling and counting come on top"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--apis", type=int, default=2)
    parser.add_argument("--workers", type=int, default=3, help="a worker and a ComfyUI each")
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--paint-seconds", type=float, default=0.2)
    parser.add_argument("--settle-seconds", type=int, default=300, help="at most")
    parser.add_argument("--json", action="store_true", help="JSON on standard output, the table beside it")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="a new folder for data and logs, not deleted"
    )
    request = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    result: dict[str, Any] = {"machine": machine()}
    result |= asyncio.run(
        run(
            request.seconds,
            request.seed,
            apis=request.apis,
            workers=request.workers,
            people=request.people,
            paint_seconds=request.paint_seconds,
            settle_seconds=request.settle_seconds,
            keep=request.keep,
        )
    )
    print_table(result, table(result), as_json=request.json)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
