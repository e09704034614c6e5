"""What dispatch does on this machine: latency, throughput, fairness, estimates, and chaos.

A PostgreSQL of its own that fsyncs, the real log, queue, verification and disk store; workers and people
are tasks in this process. Prints one JSON document.

    llamasketch bench dispatch [--json] [--only latency,throughput,large,hog,sketchers] [--jobs 4000]
    llamasketch bench dispatch --only chaos --seconds 600
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import io
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
from PIL import Image

from bench import chaos, sketchers
from bench.surroundings import run
from generation.delivery.dispatch import Report
from generation.domain.fairness import Tier
from generation.images.executors import ProcessExecutor
from generation.images.object_store import DiskStore, LinkSigner
from generation.images.results import ResultProcesses
from generation.jobs.orphaned_uploads import upload_key
from ledger.clock import system_clock
from ledger.collector import calm_garbage_collector
from ledger.identifiers import JobId
from sandbox.embedded.ports import free_port
from sandbox.embedded.postgres import EmbeddedPostgres
from sandbox.embedded.running import RunningServer
from tests.generation.core.world import TABLES, FakeWorker, World, open_world, picture
from tests.tables import create_tables

PARTS = ("latency", "throughput", "large", "hog", "sketchers")
WORKERS = 64
BOUNDLESS = Tier(weight=1, bonus_slots=0, in_flight_max=1_000_000)


def quantiles(seconds: list[float]) -> dict[str, float]:
    """p50, p99 and the largest, in milliseconds."""
    ordered = sorted(seconds)
    at = [ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], ordered[-1]]
    return dict(zip(("p50_ms", "p99_ms", "max_ms"), (round(1000 * value, 2) for value in at), strict=True))


async def latency(world: World, arguments: argparse.Namespace) -> dict[str, Any]:
    """Enqueued (committed, the wake-up sent) until the idle worker has its job in hand."""
    person, worker = await world.person(10_000), await world.worker()
    enqueued, leased, asked = [], [], []
    wake = world.signals.work_arrived

    async def noticed() -> None:
        enqueued.append(time.perf_counter())
        await wake()

    world.signals.work_arrived = noticed  # type: ignore[method-assign]
    try:
        for _ in range(300):
            claiming = asyncio.create_task(worker.claim(wait_seconds=30))
            await asyncio.sleep(0.005)
            start = time.perf_counter()
            await world.ask(person, BOUNDLESS)
            job = await claiming
            leased.append(time.perf_counter())
            asked.append(leased[-1] - start)
            assert job is not None
            await worker.deliver(job)
    finally:
        world.signals.work_arrived = wake  # type: ignore[method-assign]
    waits = [after - before for before, after in zip(enqueued, leased, strict=True)]
    return {"rounds": len(waits), "enqueued_to_leased": quantiles(waits), "asked_to_leased": quantiles(asked)}


async def fill(world: World, count: int, people: int = 50) -> list[JobId]:
    """Real jobs with real holds."""
    persons = [await world.person(count) for _ in range(people)]
    gate = asyncio.Semaphore(128)

    async def one(number: int) -> JobId:
        async with gate:
            return await world.ask(persons[number % people], BOUNDLESS)

    return list(await asyncio.gather(*(one(number) for number in range(count))))


def _put(path: str, data: bytes) -> None:
    """What a worker uploads does not pass through the process that is measured: here it just appears."""
    os.makedirs(os.path.dirname(path))  # noqa: PTH103, PTH120 - the less this costs the better
    with open(path, "wb", buffering=0) as file:  # noqa: PTH123
        file.write(data)


async def drain(world: World, objects: Path, count: int, image: Callable[[int], bytes]) -> dict[str, Any]:
    """64 workers claim and complete until nothing is left."""
    workers = [await world.worker() for _ in range(WORKERS)]
    images = [image(number) for number in range(16)]
    digests = [hashlib.sha256(data).hexdigest() for data in images]
    done: list[float] = []

    async def work(worker: FakeWorker, number: int) -> None:
        data, digest = images[number % 16], digests[number % 16]
        while (job := await worker.claim()) is not None:
            _put(f"{objects}/{upload_key(job.claim.job_id, job.claim.epoch)}", data)
            report = Report(epoch=job.claim.epoch, sha256=digest, size_bytes=len(data), gpu_milliseconds=1000)
            start = time.perf_counter()
            assert await world.dispatch.complete(worker.worker, job.claim.job_id, report) == "completed"
            done.append(time.perf_counter() - start)

    calm_garbage_collector()
    start = time.perf_counter()
    processor = time.process_time()
    await asyncio.gather(*(work(worker, number) for number, worker in enumerate(workers)))
    seconds = time.perf_counter() - start
    assert len(done) == count, f"{len(done)} of {count}"
    return {
        "jobs": count,
        "workers": WORKERS,
        "image_bytes": len(images[0]),
        "seconds": round(seconds, 2),
        "jobs_per_second": round(count / seconds, 1),
        "processor_ms_per_job": round(1000 * (time.process_time() - processor) / count, 2),
        "complete": quantiles(done),
    }


async def throughput(world: World, arguments: argparse.Namespace) -> dict[str, Any]:
    """Claim and complete, results of at most 4 KB, verified and re-encoded."""
    start = time.perf_counter()
    await fill(world, arguments.jobs)
    filled = time.perf_counter() - start
    found = await drain(world, arguments.objects, arguments.jobs, lambda number: picture(number * 7, 32))
    return {**found, "requests_per_second": round(arguments.jobs / filled, 1)}


async def large(world: World, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same with images of 1024 × 1024 that do not compress well."""
    noise = random.Random(1)

    def image(number: int) -> bytes:
        small = Image.frombytes("RGB", (128, 128), noise.randbytes(128 * 128 * 3))
        output = io.BytesIO()
        small.resize((1024, 1024), Image.Resampling.BICUBIC).save(output, "PNG", compress_level=1)
        return output.getvalue()

    await fill(world, 200)
    return await drain(world, arguments.objects, 200, image)


async def hog(world: World, arguments: argparse.Namespace) -> dict[str, Any]:
    """Jobs of a hog that go before another person's first one, with 10,000 of them waiting."""
    waiting = 10_000
    start = time.perf_counter()
    await fill(world, waiting, people=1)
    filled = time.perf_counter() - start
    worker = await world.worker()
    for _ in range(20):
        await worker.paint()
    before, claims = [], []
    for _ in range(20):
        mine = await world.ask(await world.person(5), BOUNDLESS)
        ahead = 0
        while True:
            begun = time.perf_counter()
            job = await worker.take()
            claims.append(time.perf_counter() - begun)
            await worker.deliver(job)
            if job.claim.job_id == mine:
                break
            ahead += 1
        before.append(ahead)
    return {
        "hog_waiting": waiting,
        "newcomers": len(before),
        "hog_jobs_before_the_newcomers_first": {
            "first_newcomer": before[0],
            "mean": round(sum(before) / len(before), 2),
            "max": max(before),
        },
        "claim_with_a_long_queue": quantiles(claims),
        "requests_per_second_of_one_person": round(waiting / filled, 1),
    }


RUNS: dict[str, Callable[[World, argparse.Namespace], Awaitable[dict[str, Any]]]] = {
    "latency": latency,
    "throughput": throughput,
    "large": large,
    "hog": hog,
}


@contextlib.asynccontextmanager
async def fresh_world(folder: Path) -> AsyncIterator[World]:
    """A durable PostgreSQL, empty, and everything on it."""
    chaos.open_to_others(folder)
    command = EmbeddedPostgres(folder / "data", free_port()).command()
    with RunningServer(command, folder / "postgres.log") as server:
        create_tables(server.url, TABLES)
        process_executor, results = ProcessExecutor(), ResultProcesses()
        objects = folder / "objects"
        store = DiskStore(
            objects,
            LinkSigner(b"s" * 32, system_clock),
            "http://127.0.0.1",
            executor=process_executor,
            checker=results,
        )
        try:
            async with open_world(server.url, objects, clock=system_clock, store=store) as world:
                yield world
        finally:
            await process_executor.close()
            await results.close()


def machine() -> dict[str, Any]:
    """Where this was measured."""
    return {
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load_before": [round(load, 1) for load in os.getloadavg()],
    }


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the chosen parts, each on a database of its own."""
    figures: dict[str, Any] = {"machine": machine()}
    for part in arguments.only:
        print(f"{part} …", file=sys.stderr)
        if part == "sketchers":
            figures[part] = sketchers.simulate(people=1000, seconds=3600, seed=arguments.seed)
        elif part == "chaos":
            figures[part] = await chaos.run(arguments.seconds, arguments.seed)
        else:
            with tempfile.TemporaryDirectory(prefix="bench-") as name:
                arguments.objects = Path(name) / "objects"
                async with fresh_world(Path(name)) as world:
                    figures[part] = await RUNS[part](world, arguments)
    return figures


def main() -> int:
    """Parse, measure, print; 1 if chaos found anything wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--seconds", type=int, default=600, help="of chaos")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    figures = run(measure(arguments))
    print(json.dumps(figures, indent=None if arguments.json else 2))
    return 0 if figures.get("chaos", {}).get("ok", True) else 1


if __name__ == "__main__":
    sys.exit(main())
