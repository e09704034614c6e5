"""How soon card payments are heard of: `python -m bench.card [--json] [--rate 200] [--seconds 10]`.

Starts PostgreSQL, Valkey, one API process and the stand-in for Stripe. Measured: how long a webhook message waits for
its answer while such messages come at a fixed rate, each followed by the question what is so; from a payment at the
stand-in to the event that grants its credits; and the same where no message ever comes and only the event list tells,
in poll periods. Times of events are those in the log; all processes go by one machine's clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
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
from bench.http_client import Connection, connected, written
from bench.http_figures import latency, spins_per_second
from bench.surroundings import machine, print_found, run
from sandbox.embedded.ports import free_port
from sandbox.stripe.context import API_VERSION
from sandbox.stripe.webhooks import sign

KEY = "sk_test_sandbox_of_the_bench"
SECRET = "whsec_sandbox_of_the_bench"
RATE = 200
SECONDS = 10.0
PAYMENTS = 50
MISSED = 10
POLL_SECONDS = 2
CONNECTIONS = 32
WAIT_SECONDS_MAX = 120.0
_SETTLED = """
SELECT originator_id, convert_from(state, 'UTF8')::jsonb->>'recorded_at' FROM stored_events
WHERE topic = 'rails.payment_settled.v1' AND originator_id = ANY(%s)
"""
_WAITING = "SELECT count(*) FROM rail_notifications WHERE state = 'waiting'"


@dataclass
class Card:
    """A stack that takes cards, and the stand-in beside it."""

    stack: ChaosStack
    bench: Bench
    stripe: str

    async def open(self, count: int) -> dict[str, str]:
        """So many people have a page to pay on: its session by the payment."""
        opened = {}
        body = json.dumps({"rail": "card", "credits": 500}).encode()
        async with connected(self.stack.ports[0]) as connection:
            for number, token in enumerate(self.bench.visitors(count)):
                answer = await connection.ask(
                    written("POST", "/v1/topups", token, body, key=f"bench-{number}-{time.monotonic_ns()}")
                )
                topup = answer.json()
                if answer.status != 201 or topup["instructions"] is None:
                    raise SystemExit(f"no page to pay on: {answer.status} {answer.body[:300]!r}")
                opened[topup["id"]] = topup["instructions"]["url"].rpartition("/")[2]
        return opened

    async def control(self, path: str, values: Mapping[str, Any]) -> None:
        """What happens outside."""
        async with httpx.AsyncClient(base_url=self.stripe, trust_env=False, timeout=30) as client:
            (await client.post(f"/sandbox/{path}", json=dict(values))).raise_for_status()

    async def pay(self, sessions: Mapping[str, str], pause: float) -> dict[str, float]:
        """Each is paid, one after the other; when, in seconds since 1970."""
        began = {}
        for payment_id, session in sessions.items():
            began[payment_id] = time.time()
            await self.control(f"checkout/{session}/pay", {"outcome": "paid"})
            await asyncio.sleep(pause)
        return began

    async def credited(self, payments: Sequence[str]) -> dict[str, float]:
        """When each of these was credited, in seconds since 1970."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        with psycopg.connect(self.stack.database_url, autocommit=True) as connection:
            while time.monotonic() < deadline:
                rows = connection.execute(_SETTLED, (list(payments),)).fetchall()
                if len(rows) == len(payments):
                    return {name: datetime.fromisoformat(at).timestamp() for name, at in rows}
                await asyncio.sleep(0.1)
        raise SystemExit(f"{len(payments) - len(rows)} of {len(payments)} payments were never credited")

    async def drained(self) -> float:
        """Seconds until everything that was notified has been dealt with."""
        began = time.monotonic()
        with psycopg.connect(self.stack.database_url, autocommit=True) as connection:
            while (connection.execute(_WAITING).fetchone() or (0,))[0]:
                if time.monotonic() > began + WAIT_SECONDS_MAX:
                    raise SystemExit("the notifications were never dealt with")
                await asyncio.sleep(0.1)
        return time.monotonic() - began


def message(session: str, payment_id: str, number: int) -> bytes:
    """A signed webhook message about a page to pay on, as it goes over the wire."""
    value = {"id": session, "object": "checkout.session", "metadata": {"payment_id": payment_id}}
    event = {
        "id": f"evt_bench{number}x{time.monotonic_ns()}",
        "object": "event",
        "api_version": API_VERSION,
        "created": int(time.time()),
        "data": {"object": value},
        "livemode": False,
        "type": "checkout.session.completed",
    }
    body = json.dumps(event, indent=2).encode()
    lines = [
        "POST /v1/hooks/card HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {len(body)}",
        "Content-Type: application/json",
        f"Stripe-Signature: {sign(body, SECRET, int(time.time()))}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def answered(card: Card, sessions: Mapping[str, str], rate: int, seconds: float) -> dict[str, Any]:
    """Messages at a fixed rate: from when each was due until it was answered, and what was answered."""
    taken: list[float] = []
    answers: dict[str, int] = {}
    free: asyncio.Queue[Connection] = asyncio.Queue()
    pairs, count, port = list(sessions.items()), int(rate * seconds), card.stack.ports[0]

    async def one(number: int, began: float) -> None:
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        payment_id, session = pairs[number % len(pairs)]
        connection = await free.get()
        answer = await connection.ask(message(session, payment_id, number))
        free.put_nowait(connection)
        taken.append((time.perf_counter() - due) * 1000)
        answers[answer.named] = answers.get(answer.named, 0) + 1

    async with contextlib.AsyncExitStack() as opened:
        for _ in range(CONNECTIONS):
            free.put_nowait(await opened.enter_async_context(connected(port)))
        began = time.perf_counter()
        await asyncio.gather(*(one(number, began) for number in range(count)))
        took = time.perf_counter() - began
    return {
        "messages": count,
        "a_second": round(count / took, 1),
        **latency(taken),
        "answers": answers,
        "dealt_with_after_s": round(await card.drained(), 1),
    }


async def measured(
    rate: int = RATE, seconds: float = SECONDS, payments: int = PAYMENTS, missed: int = MISSED
) -> dict[str, Any]:
    """All three."""
    stripe_port = free_port()
    settings = {
        **UNLIMITED,
        "STRIPE_SECRET_KEY": KEY,
        "STRIPE_WEBHOOK_SECRET": SECRET,
        "STRIPE_API_BASE": f"http://127.0.0.1:{stripe_port}",
        "STRIPE_POLL_SECONDS": str(POLL_SECONDS),
    }
    async with stack_of(1, settings) as stack, stand_in(stripe_port, stack):
        card = Card(stack, await Bench(stack, seconds, [1]).warmed(), f"http://127.0.0.1:{stripe_port}")
        surroundings, spins = machine(), spins_per_second()
        found: dict[str, Any] = {"machine": surroundings, "spins_per_second": spins}
        found["load"] = round(os.getloadavg()[0], 2)
        found["webhooks"] = await answered(card, await card.open(20), rate, seconds)
        sessions = await card.open(payments)
        began = await card.pay(sessions, 0.1)
        ended = await card.credited(list(sessions))
        found["credited"] = latency([(ended[name] - began[name]) * 1000 for name in sessions])
        await card.control("faults", {"drop": 1_000_000})
        sessions = await card.open(missed)
        began = await card.pay(sessions, POLL_SECONDS * 0.7)
        ended = await card.credited(list(sessions))
        taken = [(ended[name] - began[name]) * 1000 for name in sessions]
        periods = max(taken) / (POLL_SECONDS * 1000)
        found["missed"] = {**latency(taken), "poll_seconds": POLL_SECONDS, "periods_max": round(periods, 2)}
    return found


@contextlib.asynccontextmanager
async def stand_in(port: int, stack: ChaosStack) -> AsyncIterator[None]:
    """The stand-in for Stripe, which tells the stack by webhooks."""
    folder = Path(stack.folder) / "stripe"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    hook = f"http://127.0.0.1:{stack.ports[0]}/v1/hooks/card"
    argv = [sys.executable, "-m", "sandbox.stripe", "--port", str(port), "--data", str(folder)]
    argv += ["--webhook-url", hook, "--webhook-secret-file", str(folder / "secret")]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=subprocess.STDOUT)
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
    """Print what was measured; exit with 1 where a message was refused."""
    parser = argparse.ArgumentParser(prog="llamasketch bench card", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--rate", type=int, default=RATE, help="webhook messages a second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of them (%(default)s)")
    parser.add_argument("--payments", type=int, default=PAYMENTS, help="that are timed (%(default)s)")
    arguments = parser.parse_args()
    found = run(measured(arguments.rate, arguments.seconds, arguments.payments))
    print_found(found, as_json=arguments.json)
    raise SystemExit(0 if set(found["webhooks"]["answers"]) == {"200"} else 1)


if __name__ == "__main__":
    main()
