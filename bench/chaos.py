"""Everything is killed at random under load; then it is counted whether anything was lost or paid twice.

PostgreSQL (fsync on) is crashed, API processes are killed with whatever they were deciding, boxes vanish
with a job in hand, paint twice, lie, or come back as zombies; wake-ups are lost for seconds (what the
loss of Redis means to dispatch). At the end everything is left to settle.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import structlog

from generation.dispatch import Dispatch
from generation.errors import GenerationError
from generation.queue import Tier
from generation.reconcile import Reconciler
from ledger.clock import system_clock
from ledger.domain import holds as holds_
from ledger.errors import LedgerError
from ledger.identifiers import AccountId
from sandbox.embedded.postgres import EmbeddedPostgres
from sandbox.embedded.running import RunningServer, free_port
from tests.generation.core.world import Box, World, create_schema, open_world

PROCESSES = 2
BOXES_PER_PROCESS = 6
PEOPLE = 20
ENDS = ("completed", "failed", "cancelled", "superseded", "expired", "blocked")
TIER = Tier(weight=1, bonus_slots=0, in_flight_max=50)
TROUBLE = (LedgerError, GenerationError, OSError, psycopg.Error, TimeoutError)


async def run(seconds: int, seed: int) -> dict[str, Any]:
    """The whole show; returns the counts."""
    noise = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="llamasketch-chaos-") as name:
        folder = Path(name)
        open_to_others(folder)
        command = EmbeddedPostgres(folder / "data", free_port()).command()
        with RunningServer(command, folder / "postgres.log") as server:
            create_schema(server.url)
            people = await _people(server.url, folder)
            killed = await _trouble(server, folder, people, seconds, noise)
            return {"seconds": seconds, "killed": dict(killed), **await _settle(server.url, folder, people)}


def open_to_others(folder: Path) -> None:
    """PostgreSQL may run as another user than we."""
    folder.chmod(0o755)


async def _people(url: str, folder: Path) -> list[AccountId]:
    async with open_world(url, folder / "objects", clock=system_clock) as world:
        return [await world.person(1_000_000) for _ in range(PEOPLE)]


async def _trouble(
    server: RunningServer, folder: Path, people: list[AccountId], seconds: int, noise: random.Random
) -> Counter[str]:
    """Kill something every few seconds; what was killed starts again."""
    killed: Counter[str] = Counter()
    arguments = [sys.executable, "-m", "bench.chaos", server.url, str(folder / "objects"), ",".join(people)]

    async def start() -> asyncio.subprocess.Process:
        seed = str(noise.randrange(10**9))
        return await asyncio.create_subprocess_exec(*arguments, seed)

    processes = [await start() for _ in range(PROCESSES)]
    until = time.monotonic() + seconds
    try:
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, noise.uniform(2, 6)))
            if noise.random() < 0.3:
                server.kill()
                killed["postgresql"] += 1
                await asyncio.sleep(noise.uniform(0, 2))
                server.start()
            else:
                number = noise.randrange(PROCESSES)
                processes[number].kill()
                killed["api_process_with_its_boxes"] += 1
                await processes[number].wait()
                processes[number] = await start()
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            await process.wait()
    return killed


async def _settle(url: str, folder: Path, people: list[AccountId]) -> dict[str, Any]:
    """One healthy process and honest boxes finish the rest; then count."""
    async with open_world(url, folder / "objects", clock=system_clock) as world:
        boxes = [await world.box() for _ in range(4)]
        until = time.monotonic() + 120
        while time.monotonic() < until and await _waiting(url):
            await world.dispatch.sweep()
            for box in boxes:
                if (job := await box.claim()) is not None:
                    await box.deliver(job)
            await asyncio.sleep(0.01)
        reconciler = Reconciler(
            log=world.sequencer,
            reader=world.reader,
            queue=world.queue,
            clock=system_clock,
            identifiers=world.ids,
        )
        found = await reconciler.run(people)
        return {**await _count(world, people), "reconciler_had_nothing_to_do": found.clean}


async def _waiting(url: str) -> bool:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        row = await (await connection.execute("SELECT count(*) FROM job_queue")).fetchone()
        return bool(row and row[0])


async def _count(world: World, people: list[AccountId]) -> dict[str, Any]:
    ends: dict[str, list[str]] = {}
    resolved: Counter[str] = Counter()
    captured = after = 0
    while page := await world.reader.read(after=after, limit=5000):
        after = page[-1].position
        for envelope in page:
            kind = envelope.name.split(".")[1]
            if envelope.stream.startswith("job_"):
                ends.setdefault(envelope.stream, [])
                if kind.removeprefix("job_") in ENDS:
                    ends[envelope.stream].append(kind.removeprefix("job_"))
            elif kind in ("hold_captured", "hold_released", "hold_expired"):
                resolved[str(getattr(envelope.event, "job_id", ""))] += 1
                captured += getattr(envelope.event, "credits", 0) if kind == "hold_captured" else 0
    accounts = [await world.account(person) for person in people]
    images = await world.rows(_results())
    missing = 0
    for row in images:
        with contextlib.suppress(GenerationError):
            await world.store.get(row["image_key"], limit_bytes=10**7)
            continue
        missing += 1
    states = Counter(state for states in ends.values() for state in states)
    return {
        "jobs": len(ends),
        "ended": dict(states),
        "jobs_without_an_end": sum(not states for states in ends.values()),
        "jobs_with_two_ends": sum(len(states) > 1 for states in ends.values()),
        "holds_open": sum(len(list(holds_.each(account.holds))) for account in accounts),
        "holds_resolved_twice": sum(count > 1 for count in resolved.values()),
        "credits_captured": captured,
        "images_delivered": len(images),
        "images_missing_in_the_store": missing,
        "captured_equals_delivered": captured == len(images) == states["completed"],
    }


def _results() -> Any:
    from generation.tables import job_results

    return job_results


# --- one API process with its boxes and its people ---


async def _load(url: str, objects: Path, people: list[AccountId], noise: random.Random) -> None:
    async with open_world(url, objects, clock=system_clock) as world:
        boxes = [await _until_it_works(world.box) for _ in range(BOXES_PER_PROCESS)]
        async with asyncio.TaskGroup() as group:
            group.create_task(_sweep(world.dispatch))
            for box in boxes:
                group.create_task(_paint(box, noise))
            for _ in range(4):
                group.create_task(_ask(world, people, noise))


async def _until_it_works(work: Any) -> Any:
    while True:
        try:
            return await work()
        except Exception as error:
            if not _expected(error):
                raise
            await asyncio.sleep(0.2)


def _expected(error: Exception) -> bool:
    import sqlalchemy as sa

    return isinstance(error, (*TROUBLE, sa.exc.SQLAlchemyError))


async def _sweep(dispatch: Dispatch) -> None:
    while True:
        await _until_it_works(dispatch.sweep)
        await asyncio.sleep(0.5)


async def _ask(world: World, people: list[AccountId], noise: random.Random) -> None:
    while True:
        number = time.time_ns() // 1000
        person = noise.choice(people)
        wish = world.wish(person, TIER)
        if noise.random() < 0.4:
            wish = world.wish(person, TIER, live=True, session_id=f"s{noise.randrange(3)}", seq=number)
        with contextlib.suppress(Exception):
            await world.generations.request(wish)
            if noise.random() < 0.1:
                await world.generations.cancel(person, wish.job_id)
        if noise.random() < 0.2:
            with contextlib.suppress(Exception):
                await world.generations.request(wish)  # the client lost the answer
        await asyncio.sleep(noise.uniform(0, 0.08))


async def _paint(box: Box, noise: random.Random) -> None:
    old: Any = None
    while True:
        try:
            job = await box.claim(wait_seconds=1)
            if job is None:
                continue
            await asyncio.sleep(noise.uniform(0, 0.05))
            fate = noise.random()
            if fate < 0.03:
                old = job  # vanished with it: its lease lapses
            elif fate < 0.06:
                await box.fail(job, "input" if fate < 0.04 else "infrastructure", "broken")
            elif fate < 0.08:
                await box.world.dispatch.give_back(box.worker, job.claim.job_id, job.claim.epoch)
            elif fate < 0.10:
                await box.deliver(job, b"no image")
            else:
                await box.deliver(job)
                if fate > 0.95:
                    await box.deliver(job)  # reported twice
            if old is not None and fate > 0.9:
                await box.deliver(old)  # a zombie
            if fate < 0.1:
                await box.world.registry.release_from_quarantine(box.worker.worker_id)
        except Exception as error:
            if not _expected(error):
                raise
            await asyncio.sleep(0.05)


def main() -> None:
    """One process under load, until it is killed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    url, objects, people, seed = sys.argv[1:]
    accounts = [AccountId(person) for person in people.split(",")]
    asyncio.run(_load(url, Path(objects), accounts, random.Random(int(seed))))


if __name__ == "__main__":
    main()
