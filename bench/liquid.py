"""How soon payments on Liquid are seen and credited: `python -m bench.liquid [--json] [--payments 200]`.

Starts PostgreSQL, Valkey, one API process and the stand-in for elementsd, which makes blocks when it is told to. As many
people open a top-up in USDT and pay it, one after the other, by confidential transactions. Measured: from the node's
taking a transaction to the event that says it was seen; and, when all of them are in one block and the one that makes
them final comes, from then until the last of them is credited. Then as many more are paid while the API process is
down, and mined: from its start until the last is credited. Times of events are those in the log; all processes go by
one machine's clock.
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

PAYMENTS = 200
OPENERS = 8
CENTS = 500
WAIT_SECONDS_MAX = 300.0
_WRITTEN = """
SELECT originator_id, convert_from(state, 'UTF8')::jsonb->>'recorded_at' FROM stored_events
WHERE topic = %s AND originator_id = ANY(%s)
"""
SEEN, SETTLED = "rails.funds_seen.v1", "rails.payment_settled.v1"


@dataclass
class Node:
    """The stand-in for elementsd."""

    port: int
    folder: Path

    async def control(self, path: str, **values: Any) -> Mapping[str, Any]:
        """What happens outside."""
        url = f"http://127.0.0.1:{self.port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=120) as client:
            answer = (await client.post(f"/sandbox/{path}", json=values)).raise_for_status()
            return dict(answer.json())

    async def settings(self) -> dict[str, str]:
        """What the API is told of it."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            info = (await client.get(f"http://127.0.0.1:{self.port}/sandbox/info")).json()
        return {
            "ELEMENTS_RPC_URL": f"http://sandbox:sandbox@127.0.0.1:{self.port}",
            "LIQUID_NETWORK": "liquidregtest",
            "LIQUID_DESCRIPTOR": str(self.folder / "descriptor.txt"),
            "LIQUID_USDT_ASSET": info["assets"]["USDT"],
            "LIQUID_LBTC_ASSET": info["assets"]["L-BTC"],
        }


@dataclass
class Liquid:
    """A stack that takes USDT, and the stand-in beside it."""

    stack: ChaosStack
    bench: Bench
    node: Node

    async def open(self, count: int) -> dict[str, str]:
        """So many people have an address to pay to: its URI by the payment."""
        opened: dict[str, str] = {}
        body = json.dumps({"rail": "liquid", "amount": {"amount_minor": CENTS, "asset": "USD"}}).encode()
        waiting = list(enumerate(self.bench.visitors(count)))

        async def some() -> None:
            async with connected(self.stack.ports[0]) as connection:
                while waiting:
                    number, token = waiting.pop()
                    key = f"bench-{number}-{time.monotonic_ns()}"
                    answer = await connection.ask(written("POST", "/v1/topups", token, body, key=key))
                    topup = answer.json()
                    if answer.status != 201 or topup["instructions"] is None:
                        raise SystemExit(f"no address: {answer.status} {answer.body[:300]!r}")
                    opened[topup["id"]] = topup["instructions"]["uri"]

        await asyncio.gather(*(some() for _ in range(OPENERS)))
        return opened

    async def pay(self, addresses: Mapping[str, str]) -> dict[str, float]:
        """Each is paid, one after the other; when, in seconds since 1970."""
        paid = {}
        for payment_id, uri in addresses.items():
            await self.node.control("pay", uri=uri)
            paid[payment_id] = time.time()
        return paid

    async def recorded(self, topic: str, payments: Sequence[str]) -> dict[str, float]:
        """When this was said of each of these, in seconds since 1970."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        rows: list[Any] = []
        with psycopg.connect(self.stack.database_url, autocommit=True) as connection:
            while time.monotonic() < deadline:
                rows = connection.execute(_WRITTEN, (topic, list(payments))).fetchall()
                if len(rows) >= len(payments):
                    return {name: datetime.fromisoformat(at).timestamp() for name, at in rows}
                await asyncio.sleep(0.2)
        raise SystemExit(f"{topic}: {len(rows)} of {len(payments)}")


async def measured(payments: int = PAYMENTS) -> dict[str, Any]:
    """All of it."""
    async with stand_in() as node, stack_of(1, UNLIMITED | await node.settings()) as stack:
        liquid = Liquid(stack, await Bench(stack, 1.0, [1]).warmed(), node)
        found: dict[str, Any] = {"machine": machine(), "spins_per_second": spins_per_second()}
        found["load"] = round(os.getloadavg()[0], 2)
        began = time.monotonic()
        addresses = await liquid.open(payments)
        found["opened"] = {"count": payments, "seconds": round(time.monotonic() - began, 1)}
        began = time.monotonic()
        paid = await liquid.pay(addresses)
        took = time.monotonic() - began
        seen = await liquid.recorded(SEEN, list(addresses))
        found["seen"] = {
            "payments_a_second": round(payments / took, 1),
            **latency([max(0.0, seen[name] - paid[name]) * 1000 for name in addresses]),
        }
        await node.control("mine")
        final_at = time.time()
        await node.control("mine")
        settled = await liquid.recorded(SETTLED, list(addresses))
        found["one_block"] = {
            "payments": payments,
            "first_credited_s": round(min(settled.values()) - final_at, 2),
            "all_credited_s": round(max(settled.values()) - final_at, 2),
        }
        found["after_a_stop"] = await missed(liquid, payments)
    return found


async def missed(liquid: Liquid, payments: int) -> dict[str, Any]:
    """Paid and mined while nobody looked."""
    addresses = await liquid.open(payments)
    (api,) = liquid.stack.apis
    await api.kill()
    await liquid.pay(addresses)
    await liquid.node.control("mine", blocks=2)
    began = time.time()
    await api.start()
    settled = await liquid.recorded(SETTLED, list(addresses))
    return {"payments": payments, "all_credited_s": round(max(settled.values()) - began, 2)}


@contextlib.asynccontextmanager
async def stand_in() -> AsyncIterator[Node]:
    """The stand-in for elementsd, on a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="llamasketch-bench-node-") as name:
        node = Node(free_port(), Path(name))
        argv = [sys.executable, "-m", "sandbox.elementsd", "--port", str(node.port), "--data", name]
        argv += ["--block-seconds", "0", "--pending-seconds", "0"]
        with (node.folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=subprocess.STDOUT)
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                while True:
                    with contextlib.suppress(httpx.HTTPError):
                        await node.settings()
                        break
                    await asyncio.sleep(0.05)
            yield node
        finally:
            process.terminate()
            await process.wait()


def main() -> None:
    """Print what was measured; exit with 1 where a payment was never credited."""
    parser = argparse.ArgumentParser(prog="llamasketch bench liquid", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--payments", type=int, default=PAYMENTS, help="in one block (%(default)s)")
    arguments = parser.parse_args()
    print_found(run(measured(arguments.payments)), as_json=arguments.json)


if __name__ == "__main__":
    main()
