"""How soon a drawing is painted while it is drawn: `python -m bench.live [--json] [--people 10] [--rate 10]`.

Starts PostgreSQL, Valkey, one API process and four workers whose pictures take 0.2 seconds. Each person draws in bursts and
sends frames of 512 pixels at a fixed rate, on three connections at most; a frame that finds none free is left out, the
last one of a burst never. Measured: from the last stroke of a burst until its image has been fetched. At the end every
image that was asked for is looked at: a frame that was painted costs one credit, every other one nothing, and nothing
stays held.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import sys
import tempfile
import time
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import ImageDraw

from bench import pictures
from bench.chaos_stack import ChaosStack
from bench.http import UNLIMITED, Bench
from bench.http_client import Answer, Connection, address, connected, written
from bench.http_figures import latency, spins_per_second
from bench.surroundings import machine, percentile, print_found, run
from generation.domain.states import JobState
from tests.gateway.stack import generation_request

PEOPLE, WORKERS = 10, 4
PAINT_SECONDS = 0.2
RATE = 10.0
"""Frames a second of each person."""
BURSTS, BURST_SECONDS, PAUSE_SECONDS = 3, 2.5, 1.0
CONNECTIONS = 3
SIDE = 512
FREE = 20
"""Images of a visitor a day: what three bursts may cost."""
FINAL_P95_MS = 1200.0
ENDS_WITHIN_SECONDS = 60.0


def frames(count: int) -> list[str]:
    """A drawing that grows by a stroke each time, as base64."""
    chance, drawn, found = random.Random(1), pictures.drawing(SIDE), []
    for _ in range(count):
        points = [(chance.randrange(SIDE), chance.randrange(SIDE)) for _ in range(4)]
        ImageDraw.Draw(drawn).line(points, fill="black", width=5)
        found.append(b64encode(pictures.saved(drawn, "PNG")).decode())
    return found


class Person:
    """Somebody who draws with live painting on."""

    def __init__(self, port: int, number: int, token: str, drawing: Sequence[str]) -> None:
        self.answers: Counter[str] = Counter()
        self.final_ms: list[float] = []
        self.answered_ms: list[float] = []
        self.left_out = 0
        self.asked: list[str] = []
        """The images that were asked for, oldest first."""
        self._port = port
        self._source = address(number)
        self._token = token
        self._drawing = drawing
        self._session = f"bench-live-{number}"
        self._seq = 0
        self._idle: asyncio.Queue[Connection] = asyncio.Queue()
        self._connections = contextlib.AsyncExitStack()
        self._ended: dict[str, asyncio.Future[str]] = {}

    async def draw(self, rate: float, bursts: int = BURSTS, *, after: float = 0.0) -> None:
        """Bursts of frames, each followed by a look at its last image, from so many seconds from now on."""
        await asyncio.sleep(after)
        async with self._connections:
            for _ in range(CONNECTIONS):
                opened = await self._connections.enter_async_context(connected(self._port, self._source))
                self._idle.put_nowait(opened)
            following = asyncio.create_task(self._follow())
            for _ in range(bursts):
                await self._burst(rate)
                await asyncio.sleep(PAUSE_SECONDS)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _burst(self, rate: float) -> None:
        began, sending = time.perf_counter(), set[asyncio.Task[Any]]()
        count = int(rate * BURST_SECONDS)
        for number in range(count - 1):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            if self._idle.empty():
                self.left_out += 1
            else:
                sending.add(asyncio.create_task(self._frame(self._idle.get_nowait())))
        await asyncio.sleep(max(0.0, began + (count - 1) / rate - time.perf_counter()))
        stroke = time.perf_counter()
        while await self._painted() != "completed":
            pass
        self.final_ms.append((time.perf_counter() - stroke) * 1000)
        await asyncio.gather(*sending)

    async def _painted(self) -> str:
        """Send the newest drawing until it is accepted; returns how it ended, once its image has been fetched."""
        while True:
            answer = await self._frame(await self._idle.get())
            if answer.status == 202:
                break
            await asyncio.sleep(float(answer.json().get("retry_after_seconds", 0.1)))
        job = answer.json()["id"]
        async with asyncio.timeout(ENDS_WITHIN_SECONDS):
            state = await self._end_of(job)
        if state == "completed":
            await self._image(job)
        return state

    async def _frame(self, connection: Connection) -> Answer:
        self._seq += 1
        body = generation_request("a llama that is being drawn") | {
            "sketch": {"content_type": "image/png", "data": self._drawing[self._seq % len(self._drawing)]},
            "live": True,
            "session_id": self._session,
            "seq": self._seq,
        }
        request = written(
            "POST", "/v1/generations", self._token, json.dumps(body).encode(), self._session + str(self._seq)
        )
        sent = time.perf_counter()
        try:
            answer = await connection.ask(request)
        except (OSError, EOFError):  # the server ends what is idle; the key makes it the same request
            self.answers["again"] += 1
            connection = await self._connections.enter_async_context(connected(self._port, self._source))
            answer = await connection.ask(request)
        finally:
            self._idle.put_nowait(connection)
        self.answers[answer.named] += 1
        self.answered_ms.append((time.perf_counter() - sent) * 1000)
        if answer.status == 202:
            self.asked.append(answer.json()["id"])
        return answer

    def _end_of(self, job: str) -> asyncio.Future[str]:
        return self._ended.setdefault(job, asyncio.get_running_loop().create_future())

    async def _follow(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(self._source, 0))
        try:
            writer.write(written("GET", "/v1/events", self._token))
            kind = b""
            while line := await reader.readline():
                if line.startswith(b"event:"):
                    kind = line[6:].strip()
                elif line.startswith(b"data:") and kind == b"generation":
                    news = json.loads(line[5:])
                    ended = self._end_of(news["id"])
                    if JobState(news["state"]).final and not ended.done():
                        ended.set_result(news["state"])
        finally:
            writer.close()

    async def _get(self, path: str) -> Answer:
        async with connected(self._port, self._source) as connection:
            return await connection.ask(written("GET", path, self._token))

    async def _image(self, job: str) -> Answer:
        link = await self._get(f"/v1/generations/{job}/image")
        if link.status != 307:
            return link
        [place] = re.findall(rb"\r\nlocation: https?://[^/]+(\S+)", link.head)
        return await self._get(place.decode())

    async def wrong_charges(self) -> list[str]:
        """What was charged or held as it must not be, once all has ended."""
        wrong, captured = [], 0
        for job in self.asked:
            shown = await self._ended_job(job)
            captured += shown["credits"]["captured"]
            if shown["credits"]["captured"] != (shown["state"] == "completed"):
                wrong.append(f"{job} {shown['state']}: {shown['credits']}")
            self.answers[f"ended {shown['state']}"] += 1
            if shown["state"] == "completed":
                image = await self._image(job)
                wrong += [f"{job}: no image ({image.named})"] if image.status != 200 else []
        left = (await self._get("/v1/account")).json()["credits"]
        if captured and (left["posted"], left["held"]) != (FREE - captured, 0):
            wrong.append(f"{captured} captured: {left}")
        return wrong

    async def _ended_job(self, job: str) -> Mapping[str, Any]:
        async with asyncio.timeout(ENDS_WITHIN_SECONDS):
            while True:
                shown: Mapping[str, Any] = (await self._get(f"/v1/generations/{job}")).json()
                if JobState(shown["state"]).final:
                    return shown
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def painting_stack(workers: int) -> AsyncIterator[ChaosStack]:
    """A stack with so many workers that paint, on a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="llamasketch-bench-", dir=os.environ.get("BENCH_FOLDER")) as name:
        stack = ChaosStack(
            Path(name),
            apis=1,
            workers=workers,
            paint_seconds=PAINT_SECONDS,
            chance=random.Random(1),
            settings=UNLIMITED,
            plain=True,
        )
        try:
            await stack.start()
            await ready(stack.ports[0], workers)
            yield stack
        finally:
            await stack.stop()


async def ready(port: int, workers: int) -> None:
    """Return when so many workers take jobs."""
    async with asyncio.timeout(ENDS_WITHIN_SECONDS), connected(port) as connection:
        while True:
            health = (await connection.ask(written("GET", "/health"))).json()
            if (health["workers_active"] or 0) >= workers:
                return
            await asyncio.sleep(0.2)


async def measured(people: int, rate: float, workers: int = WORKERS, bursts: int = BURSTS) -> dict[str, Any]:
    """So many people draw at once."""
    async with painting_stack(workers) as stack:
        bench = Bench(stack, 1.0, [1])
        drawing, surroundings = frames(40), machine()
        # The processes that decode pictures are started by the first sketches.
        await Person(stack.ports[0], people, bench.visitors(1)[0], drawing).draw(2.0, 1)
        tokens = bench.visitors(people)
        drawers = [Person(stack.ports[0], number, token, drawing) for number, token in enumerate(tokens)]
        spins, before, began = spins_per_second(), bench.spent(), time.perf_counter()
        apart = (BURST_SECONDS + PAUSE_SECONDS) / people  # nobody lifts the pen when others do
        await asyncio.gather(
            *(one.draw(rate, bursts, after=number * apart) for number, one in enumerate(drawers))
        )
        seconds, spent = time.perf_counter() - began, bench.spent() - before
        wrong = [problem for one in drawers for problem in await one.wrong_charges()]
    answers = sum((one.answers for one in drawers), Counter())
    final = [taken for one in drawers for taken in one.final_ms]
    sent = sum(times for name, times in answers.items() if not name.startswith("ended"))
    return {
        "machine": surroundings,
        "spins_per_second": spins,
        "load": round(os.getloadavg()[0], 2),
        "people": people,
        "seconds": round(seconds, 1),
        "frames_a_second_of_each": round(sent / people / bursts / BURST_SECONDS, 1),
        "left_out": sum(one.left_out for one in drawers),
        "frame_answered": latency([taken for one in drawers for taken in one.answered_ms]),
        "final_stroke_to_image": latency(final),
        "within_bound": percentile(final, 0.95) <= FINAL_P95_MS,
        "stack_cpu_ms_a_frame": round(spent.stack * 1000 / max(sent, 1), 1),
        "answers": dict(sorted(answers.items())),
        "wrong_charges": wrong,
    }


def main() -> None:
    """Print what was measured; exit with 1 where something was charged as it must not be."""
    parser = argparse.ArgumentParser(prog="llamasketch bench live", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--people", type=int, default=PEOPLE, help="who draw (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=RATE, help="frames a second (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=WORKERS, help="that paint (default: %(default)s)")
    arguments = parser.parse_args()
    found = run(measured(arguments.people, arguments.rate, arguments.workers))
    print_found(found, as_json=arguments.json)
    for problem in found["wrong_charges"]:
        print(problem, file=sys.stderr)
    raise SystemExit(1 if found["wrong_charges"] else 0)


if __name__ == "__main__":
    main()
