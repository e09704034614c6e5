"""The callers of `bench.http`, in a process of their own: `python -m bench.http_load` reads an `Order` as JSON from its
standard input and prints what came back.

Closed loop: each caller asks again as soon as it was answered. Open loop (`rate`): requests are due at fixed times,
however long the answers take, and the time of each counts from when it was due. Every caller has an address of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, count, cycle, repeat

import msgspec

from bench.http_client import Answer, Connection, address, connected, written
from bench.surroundings import run

BROKEN = "broken"
"""The connection ended before an answer."""
NO_TIME = "no Retry-After"
"""Added to the name of a refusal that does not say when to come again."""
JOB = "{job}"


class Ask(msgspec.Struct, frozen=True):
    """One kind of request. `{job}` in its path stands for the image that the caller asked for last, or began with."""

    name: str
    method: str
    path: str
    body: str = ""
    weight: int = 1
    signed: bool = True


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks what, how often and how long."""

    ports: Sequence[int]
    asks: Sequence[Ask]
    tokens: Sequence[str] = ()
    begun: Sequence[tuple[str, str]] = ()
    """Images that were asked for before, with the tokens of whose they are: each caller begins with one."""
    uses: int = 15
    """Requests for images with one token before the next one is taken: there are as many free ones a day, and more."""
    callers: int = 1
    seconds: float = 1.0
    rate: float = 0.0
    """Requests in a second that are due; 0 asks in a closed loop."""
    streams: int = 0
    """Event streams that are open meanwhile."""


class Found(msgspec.Struct, kw_only=True):
    """What came back."""

    seconds: float = 0.0
    answers: dict[str, dict[str, int]] = {}
    """By kind of request: how often which answer came."""
    taken_ms: dict[str, list[float]] = {}
    """By kind of request: how long answers below 400 took; in the open loop from when they were due."""
    accepted: list[tuple[str, str]] = []
    """The images that were asked for, with the tokens that they were asked for with."""
    late: int = 0
    """Requests that were due and never sent, since every caller was still waiting."""
    frames: int = 0
    """Of all streams."""
    own_cpu: float = 0.0


class _Callers:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._answers: dict[str, Counter[str]] = defaultdict(Counter)
        self._taken: dict[str, list[float]] = defaultdict(list)
        self._accepted: list[tuple[str, str]] = []
        self._frames = 0
        self._tokens = chain.from_iterable(repeat(token, order.uses) for token in cycle(order.tokens or [""]))
        self._asks = cycle(list(_spread(order.asks)))
        self._due = count()

    async def found(self) -> Found:
        order = self._order
        async with contextlib.AsyncExitStack() as stack:
            lines = [
                await stack.enter_async_context(
                    connected(order.ports[number % len(order.ports)], address(number))
                )
                for number in range(order.callers)
            ]
            streams = [asyncio.create_task(self._stream(number)) for number in range(order.streams)]
            began, spent = time.perf_counter(), time.process_time()
            one = self._on_time if order.rate else self._at_once
            first = cycle(order.begun or [("", "")])
            await asyncio.gather(*(one(line, began, *next(first)) for line in lines))
            found = Found(
                seconds=max(time.perf_counter() - began, 0.001),
                own_cpu=time.process_time() - spent,
                answers={name: dict(counted) for name, counted in self._answers.items()},
                taken_ms=dict(self._taken),
                accepted=self._accepted,
                late=max(
                    0, round(order.rate * order.seconds) - sum(map(Counter.total, self._answers.values()))
                ),
                frames=self._frames,
            )
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
        return found

    async def _at_once(self, line: Connection, began: float, token: str, job: str) -> None:
        jobs = [job]
        with contextlib.suppress(OSError, EOFError):  # counted
            while time.perf_counter() < began + self._order.seconds:
                token = await self._one(line, time.perf_counter(), token, jobs)

    async def _on_time(self, line: Connection, began: float, token: str, job: str) -> None:
        order, jobs = self._order, [job]
        with contextlib.suppress(OSError, EOFError):  # counted
            while (number := next(self._due)) < order.rate * order.seconds:
                due = began + number / order.rate
                if time.perf_counter() > began + 2 * order.seconds:
                    return
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                token = await self._one(line, due, token, jobs)

    async def _one(self, line: Connection, due: float, token: str, jobs: list[str]) -> str:
        """Ask once; `jobs` keeps the image that was asked for last. Returns the token it came with."""
        ask = next(self._asks)
        if ask.method == "POST" or not token:
            token = next(self._tokens)
        path = ask.path.replace(JOB, jobs[0])
        try:
            answer = await line.ask(written(ask.method, path, token * ask.signed, ask.body.encode()))
        except (OSError, EOFError):
            self._answers[ask.name][BROKEN] += 1
            raise
        self._note(ask.name, answer, due)
        if answer.status == 202:
            jobs[0] = str(answer.json()["id"])
            self._accepted.append((token, jobs[0]))
        return token

    def _note(self, name: str, answer: Answer, due: float) -> None:
        named = answer.named
        if answer.status in (429, 503) and not answer.says_when:
            named = f"{named}, {NO_TIME}"
        self._answers[name][named] += 1
        if answer.status < 400:
            self._taken[name].append((time.perf_counter() - due) * 1000)

    async def _stream(self, number: int) -> None:
        order = self._order
        tokens = [token for token, _ in order.begun] or order.tokens
        token = tokens[number % len(tokens)]
        port = order.ports[number % len(order.ports)]
        source = (address(number + order.callers), 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=source)
        writer.write(written("GET", "/v1/events", token))
        try:
            while line := await reader.readline():
                self._frames += line.startswith(b"event:")
        finally:
            writer.close()


def _spread(asks: Sequence[Ask]) -> Iterator[Ask]:
    """Each as often as it weighs, evenly mixed."""
    places = [((turn + 0.5) / ask.weight, ask) for ask in asks for turn in range(ask.weight)]
    for _, ask in sorted(places, key=lambda place: place[0]):
        yield ask


async def in_own_process(order: Order) -> Found:
    """Let a process of its own do it. It has ended when this returns."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.http_load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate(msgspec.json.encode(order))
    return msgspec.json.decode(printed, type=Found)


async def ask_all(order: Order) -> Found:
    """Ask in this process."""
    return await _Callers(order).found()


def main() -> None:
    """Read the order, ask, print."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    sys.stdout.buffer.write(msgspec.json.encode(run(ask_all(order))))


if __name__ == "__main__":
    main()
