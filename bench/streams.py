"""How many event streams one API process bears: `python -m bench.streams [--json] [--streams 2000]`.

Starts PostgreSQL, Valkey and one API process. Every stream is of an account and an address of its own. Measured: memory
of the API for each stream, its processor time while nothing happens, and how long after a request for an image was
answered its account's stream tells of it, while such requests come at a fixed rate. The streams are held open, and the
requests sent, by a process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.http import UNLIMITED, Bench, accepted, stack_of
from bench.http_client import address, connected, written
from bench.http_figures import answers, latency, row, spins_per_second
from bench.http_load import Found
from bench.surroundings import machine, print_found, run

STREAMS = 2000
SECONDS = 6.0
RATE = 10.0
OPENING_AT_ONCE = 64
ANSWER_SECONDS_MAX = 60.0
SETTINGS = {
    **UNLIMITED,
    "LLAMASKETCH_STREAMS": "10000",
    "LLAMASKETCH_CONNECTIONS": "10000",
}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Whose streams are opened, and how many requests are sent in how many seconds."""

    port: int
    tokens: Sequence[str]
    seconds: float
    rate: float
    body: str


class Streams:
    """Open streams, and when each last told of an image."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._opened = 0
        self._all_open = asyncio.Event()
        self._seen_at: dict[str, asyncio.Future[float]] = {}
        self._opening = asyncio.Semaphore(OPENING_AT_ONCE)

    async def follow(self, number: int) -> None:
        """Open one and read it for ever."""
        token, frame_of = self._order.tokens[number], b""
        async with self._opening:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._order.port, local_addr=(address(number), 0)
            )
            writer.write(written("GET", "/v1/events", token))
            await reader.readuntil(b"event: account")
        self._opened += 1
        if self._opened == len(self._order.tokens):
            self._all_open.set()
        while line := await reader.readline():
            if line.startswith(b"event:"):
                frame_of = line
            elif line.startswith(b"data:") and b"generation" in frame_of:
                job_id = json.loads(line[5:])["id"]
                seen = self._seen_at.setdefault(job_id, asyncio.get_running_loop().create_future())
                if not seen.done():
                    seen.set_result(time.perf_counter())

    async def opened(self) -> None:
        """Return when each has shown its account."""
        await self._all_open.wait()

    async def ask(self) -> Found:
        """Ask for images of some of these accounts, evenly spread over the time."""
        order, found = self._order, Found(answers={"accepted": {}}, taken_ms={"delay": []})
        began = time.perf_counter()
        count = int(order.rate * order.seconds)
        await asyncio.gather(*(self._one(number, began, found) for number in range(count)))
        return msgspec.structs.replace(found, seconds=time.perf_counter() - began)

    async def _one(self, number: int, began: float, found: Found) -> None:
        order = self._order
        await asyncio.sleep(max(0.0, began + number / order.rate - time.perf_counter()))
        which = number * (len(order.tokens) // int(order.rate * order.seconds)) % len(order.tokens)
        async with connected(order.port, address(which)) as connection:
            answer = await connection.ask(
                written("POST", "/v1/generations", order.tokens[which], order.body.encode())
            )
        at, counted = time.perf_counter(), found.answers["accepted"]
        counted[answer.named] = counted.get(answer.named, 0) + 1
        if answer.status == 202:
            seen = self._seen_at.setdefault(answer.json()["id"], asyncio.get_running_loop().create_future())
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                found.taken_ms["delay"].append(max(0.0, (await seen - at) * 1000))


async def follow_all(order: Order) -> None:
    """In the process of the callers: open, say so, wait for a line, ask, and print what was found."""
    streams = Streams(order)
    tasks = [asyncio.create_task(streams.follow(number)) for number in range(len(order.tokens))]
    await streams.opened()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(msgspec.json.encode(await streams.ask()).decode(), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def resident_kb(pid: int) -> int:
    """Memory of a process, in kilobytes."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


async def measured(streams: int, seconds: float) -> dict[str, Any]:
    """One process, so many streams."""
    async with stack_of(1, SETTINGS) as stack:
        bench = await Bench(stack, seconds, [1]).warmed()
        pid, surroundings = stack.apis[0].pid, machine()
        alone, spins = resident_kb(pid), spins_per_second()
        before = bench.spent()
        await asyncio.sleep(seconds)
        without = bench.spent() - before
        order = Order(
            port=stack.ports[0],
            tokens=bench.visitors(streams),
            seconds=seconds,
            rate=RATE,
            body=accepted().body,
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.streams", "--follow"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        began, before = time.perf_counter(), bench.spent()
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        await process.stdout.readline()
        opened, opening = time.perf_counter() - began, bench.spent() - before
        before = bench.spent()
        await asyncio.sleep(seconds)
        idle, resident = bench.spent() - before, resident_kb(pid)
        before = bench.spent()
        process.stdin.write(b"\n")
        found = msgspec.json.decode(await process.stdout.readline(), type=Found)
        asked = bench.spent() - before
        process.stdin.write(b"\n")
        await process.wait()
    return {
        "machine": surroundings,
        "spins_per_second": spins,
        "load": round(os.getloadavg()[0], 2),
        "streams": streams,
        "opened_per_second": round(streams / opened, 1),
        "opening_api_cpu_ms": round(opening.api * 1000 / streams, 2),
        "kb_a_stream": round((resident - alone) / streams, 1),
        "idle_api_cpu_ms_a_second": round(idle.api * 1000 / seconds, 1),
        "idle_stack_cpu_ms_a_second": round(idle.stack * 1000 / seconds, 1),
        "without_streams_api_cpu_ms_a_second": round(without.api * 1000 / seconds, 1),
        "delay": latency(found.taken_ms["delay"]),
        "requests": row(found, asked) | {"answers": answers(found)},
    }


def main() -> None:
    """Print what was measured; exit with 1 where a request was refused."""
    parser = argparse.ArgumentParser(prog="llamasketch bench streams", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--streams", type=int, default=STREAMS, help="that are open (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each step (default: %(default)s)")
    parser.add_argument("--follow", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.follow:
        run(follow_all(msgspec.json.decode(sys.stdin.readline(), type=Order)))
        return
    found = run(measured(arguments.streams, arguments.seconds))
    print_found(found, as_json=arguments.json)
    raise SystemExit(0 if set(found["requests"]["answers"]) == {"202"} else 1)


if __name__ == "__main__":
    main()
