"""How soon Lightning payments count: `python -m bench.lightning [--json] [--open 1000] [--rate 200] [--seconds 5]`.

Starts PostgreSQL, Valkey, one API process, the stand-ins for LND and for the price feeds. Measured: from the wallet's
payment to the event that grants its credits, one at a time; the same at a fixed rate while many invoices are open, and
how long after the last one everything is credited; and from a payment that is only held to the event that queues its
image. Times of events are those in the log; all processes go by one machine's clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg

from bench.chaos_stack import ChaosStack
from bench.http import UNLIMITED, Bench, stack_of
from bench.http_client import connected, written
from bench.http_figures import latency, spins_per_second
from bench.surroundings import machine, print_found, run
from sandbox.embedded.ports import free_port
from tests.gateway.stack import generation_request

OPEN = 1_000
RATE = 200
SECONDS = 5.0
PAYMENTS = 100
HELD = 30
PAUSE_SECONDS = 0.05
OPENED_AT_ONCE = 8
WAIT_SECONDS_MAX = 180.0
_RECORDED = """
SELECT originator_id, convert_from(state, 'UTF8')::jsonb->>'recorded_at' FROM stored_events
WHERE topic = %s AND originator_id = ANY(%s)
"""
SETTLED = "rails.payment_settled.v1"
QUEUED = "generation.job_funded.v1"


@dataclass
class Lightning:
    """A stack that takes Lightning, and the node's wallet beside it."""

    stack: ChaosStack
    bench: Bench
    wallet: httpx.AsyncClient

    async def _asked(self, path: str, bodies: Sequence[bytes]) -> list[dict[str, Any]]:
        """Each by a visitor of its own."""
        people = list(zip(self.bench.visitors(len(bodies)), bodies, strict=True))
        found: list[dict[str, Any]] = []

        async def some() -> None:
            async with connected(self.stack.ports[0]) as connection:
                while people:
                    token, body = people.pop()
                    key = f"bench-{len(people)}-{time.monotonic_ns()}"
                    answer = await connection.ask(written("POST", path, token, body, key=key))
                    if answer.status not in (201, 202):
                        raise SystemExit(f"{path}: {answer.status} {answer.body[:300]!r}")
                    found.append(answer.json())

        await asyncio.gather(*(some() for _ in range(OPENED_AT_ONCE)))
        return found

    async def topups(self, count: int) -> dict[str, str]:
        """Open invoices by their payment."""
        body = json.dumps({"rail": "lightning", "credits": 100}).encode()
        opened = await self._asked("/v1/topups", [body] * count)
        return {topup["id"]: topup["instructions"]["text"] for topup in opened}

    async def images(self, count: int) -> dict[str, str]:
        """Invoices that only hold what an image costs, by the image."""
        funding = {"funding": {"rail": "lightning", "pay_asset": "BTC"}}
        body = json.dumps(generation_request() | funding).encode()
        wanted = await self._asked("/v1/generations", [body] * count)
        return {image["id"]: image["topup"]["instructions"]["text"] for image in wanted}

    async def pay(self, invoices: Mapping[str, str], rate: float, *, at_once: bool) -> dict[str, float]:
        """At this rate, whether or not those before are through; when each was sent, in seconds since 1970."""
        sent: dict[str, float] = {}
        began = time.perf_counter()

        async def one(number: int, name: str, text: str) -> None:
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            sent[name] = time.time()
            (await self.wallet.post("/sandbox/pay", json={"bolt11": text})).raise_for_status()

        work = [one(number, name, text) for number, (name, text) in enumerate(invoices.items())]
        if at_once:
            await asyncio.gather(*work)
        else:
            for each in work:
                await each
        return sent

    async def recorded(self, topic: str, names: Sequence[str]) -> dict[str, float]:
        """When the event of each was recorded, in seconds since 1970."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        with psycopg.connect(self.stack.database_url, autocommit=True) as connection:
            while time.monotonic() < deadline:
                rows = connection.execute(_RECORDED, (topic, list(names))).fetchall()
                if len(rows) == len(names):
                    return {name: datetime.fromisoformat(at).timestamp() for name, at in rows}
                await asyncio.sleep(0.1)
        raise SystemExit(f"{len(names) - len(rows)} of {len(names)} were never recorded")


def _between(sent: Mapping[str, float], ended: Mapping[str, float]) -> dict[str, float]:
    return latency([(ended[name] - sent[name]) * 1000 for name in sent])


async def measured(
    opened: int = OPEN, rate: int = RATE, seconds: float = SECONDS, payments: int = PAYMENTS, held: int = HELD
) -> dict[str, Any]:
    """All three."""
    async with outside() as (settings, control), stack_of(1, {**UNLIMITED, **settings}) as stack:
        async with httpx.AsyncClient(
            base_url=control, trust_env=False, timeout=httpx.Timeout(60, pool=None)
        ) as wallet:
            lightning = Lightning(stack, await Bench(stack, seconds, [1]).warmed(), wallet)
            found: dict[str, Any] = {"machine": machine(), "spins_per_second": spins_per_second()}
            found["load"] = round(os.getloadavg()[0], 2)
            invoices = await lightning.topups(payments)
            sent = await lightning.pay(invoices, 1 / PAUSE_SECONDS, at_once=False)
            found["credited"] = _between(sent, await lightning.recorded(SETTLED, list(invoices)))
            images = await lightning.images(held)
            sent = await lightning.pay(images, 1 / PAUSE_SECONDS, at_once=False)
            found["queued"] = _between(sent, await lightning.recorded(QUEUED, list(images)))
            found["busy"] = await _busy(lightning, opened, rate, seconds)
        return found


async def _busy(lightning: Lightning, opened: int, rate: int, seconds: float) -> dict[str, Any]:
    invoices = await lightning.topups(opened)
    paid = dict(list(invoices.items())[: int(rate * seconds)])
    sent = await lightning.pay(paid, rate, at_once=True)
    last = time.time()
    ended = await lightning.recorded(SETTLED, list(paid))
    took = last - min(sent.values())
    return {
        "open": len(invoices),
        "settled": len(paid),
        "settled_a_second": round(len(paid) / took, 1),
        "credited_a_second": round(len(paid) / (max(ended.values()) - min(sent.values())), 1),
        "last_credited_after_s": round(max(ended.values()) - last, 2),
        **_between(sent, ended),
    }


@contextlib.asynccontextmanager
async def outside() -> AsyncIterator[tuple[dict[str, str], str]]:
    """The node and the feeds: the settings that name them, and where the wallet is."""
    port, control, feeds = free_port(), free_port(), free_port()
    async with contextlib.AsyncExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-lightning-")))
        node = ["sandbox.lnd", "--port", str(port), "--control-port", str(control), "--data", str(folder)]
        await running.enter_async_context(_program(node, control, folder))
        await running.enter_async_context(_program(["sandbox.rates", "--port", str(feeds)], feeds, folder))
        url = f"http://127.0.0.1:{feeds}"
        settings = {
            "LND_GRPC_ADDRESS": f"127.0.0.1:{port}",
            "LND_TLS_CERT": str(folder / "tls.cert"),
            "LND_MACAROON": str(folder / "invoices.macaroon"),
            "LIGHTNING_PREIMAGE_KEY": str(folder / "preimage.key"),
            "LIGHTNING_NETWORK": "regtest",
            "RATE_FEEDS": ",".join(f"{name}={url}" for name in ("coinbase", "kraken", "bitstamp")),
        }
        yield settings, f"http://127.0.0.1:{control}"


@contextlib.asynccontextmanager
async def _program(argv: Sequence[str], port: int, folder: Path) -> AsyncIterator[None]:
    """A stand-in in its own process, once it answers."""
    with (folder / f"{argv[0]}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *argv, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield
    finally:
        process.terminate()
        await process.wait()


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(prog="llamasketch bench lightning", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--open", type=int, default=OPEN, help="invoices open at once (%(default)s)")
    parser.add_argument("--rate", type=int, default=RATE, help="of them paid a second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for so long (%(default)s)")
    parser.add_argument("--payments", type=int, default=PAYMENTS, help="timed one by one (%(default)s)")
    parser.add_argument("--held", type=int, default=HELD, help="images paid for alone (%(default)s)")
    given = parser.parse_args()
    found = run(measured(given.open, given.rate, given.seconds, given.payments, given.held))
    print_found(found, as_json=given.json)


if __name__ == "__main__":
    main()
