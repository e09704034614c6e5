"""What attacks of strangers cost them and us, and what an honest visitor feels meanwhile.

Starts a stack of its own. For each attack: bytes that the attacker could send, the API's processor seconds and memory,
and the 95th percentile of an honest visitor's requests (her balance, and an image asked for) during it and in calm.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from bench.hostile_attacks import Attack, Plan, plans, prepare
from bench.surroundings import descendants, machine, percentile
from tests.e2e.stack import Stack
from tests.gateway.stack import generation_request
from tests.hostile.attacks import Outcome, Target, cpu_seconds, rss_bytes

SECONDS = 4.0
RATIO_MAX = 2.0
STORED = "objects"
"""The folder of what is stored, in the stack's data."""


async def _probe(base: str, token: str, seconds: float) -> None:
    """Somebody honest: says when she begins, and then what she felt."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False, timeout=30) as client:
        await client.get("/v1/account")
        print(flush=True)
        print(json.dumps(await _felt(client, time.monotonic() + seconds)))


async def _felt(client: httpx.AsyncClient, until: float) -> tuple[list[float], int]:
    """Milliseconds of an honest visitor's requests, and how many failed."""
    taken, failed = [], 0
    while time.monotonic() < until:
        for method, path, body in (
            ("GET", "/v1/account", None),
            ("POST", "/v1/generations", generation_request()),
        ):
            began = time.perf_counter()
            try:
                failed += (await client.request(method, path, json=body)).status_code >= 500
            except httpx.TransportError:
                failed += 1
            taken.append((time.perf_counter() - began) * 1000)
    return taken, failed


async def _again(attack: Attack, target: Target, until: float, at_once: int) -> Outcome:
    """Several at a time, each of them again as soon as it has ended."""
    total = Outcome()

    async def one() -> None:
        while time.monotonic() < until:
            found = await attack(target)
            total.statuses += found.statuses
            total.closed += found.closed
            total.sent_bytes += found.sent_bytes
            total.codes += found.codes
            total.reached = max(total.reached, found.reached)

    await asyncio.gather(*(one() for _ in range(at_once)))
    return total


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stack has used up so far."""

    api_cpu: float
    others_cpu: float
    attacker_cpu: float
    memory: int
    stored: int

    @classmethod
    def of(cls, stack: Stack) -> Cost:
        """Of the API, of its processes for pictures and all others of the stack, and of us who attack."""
        api = stack.children()["api"]
        return cls(
            api_cpu=cpu_seconds(api),
            others_cpu=_cpu(descendants(stack.pid)) - cpu_seconds(api),
            attacker_cpu=time.process_time(),
            memory=rss_bytes(api),
            stored=sum(file.stat().st_size for file in (stack.data / STORED).rglob("*") if file.is_file()),
        )


def _cpu(pids: Iterable[int]) -> float:
    return sum(cpu_seconds(pid) for pid in pids if Path(f"/proc/{pid}").exists())


async def _measure(
    name: str, plan: Plan | None, target: Target, stack: Stack, seconds: float
) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=30) as client:
        token = (await client.post("/v1/visitors")).json()["token"]
        # In a process of its own: the attacker's is busy with attacking.
        probe = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.hostile", "--probe", stack.url, token, str(seconds)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert probe.stdout is not None
        await probe.stdout.readline()
        from_there = target if plan is None else replace(target, source=plan.source)
        before, began = Cost.of(stack), time.monotonic()
        outcome = (
            Outcome()
            if plan is None
            else await _again(plan.attack, from_there, began + seconds, plan.at_once)
        )
        taken, failed = json.loads((await probe.communicate())[0])
        after = Cost.of(stack)
        health = (await client.get("/health")).json()
    return {
        "attack": name,
        "seconds": round(time.monotonic() - began, 1),
        "attacker_sent_mb": round(outcome.sent_bytes / 1e6, 1),
        "attacker_cpu_seconds": round(after.attacker_cpu - before.attacker_cpu, 2),
        "answers": {str(status): count for status, count in sorted(outcome.statuses.items())},
        "refusals": dict(sorted(outcome.codes.items())),
        "ended": outcome.closed,
        "bound": plan.bound if plan else None,
        "reached": outcome.reached,
        "api_cpu_seconds": round(after.api_cpu - before.api_cpu, 2),
        "others_cpu_seconds": round(after.others_cpu - before.others_cpu, 2),
        "api_memory_mb": round((after.memory - before.memory) / 1e6, 1),
        "stored_mb": round((after.stored - before.stored) / 1e6, 1),
        "workers_active": health["workers_active"],
        "honest_requests": len(taken),
        "honest_failed": failed,
        "honest_p95_ms": round(percentile(taken, 0.95), 1),
        "load": round(os.getloadavg()[0], 2),
    }


async def measured(names: Sequence[str], seconds: float) -> dict[str, Any]:
    """All of it, on a stack of its own."""
    prepare()
    stack, every = Stack(), plans(seconds)
    try:
        await stack.start()
        async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
            tokens = [(await client.post("/v1/visitors")).json()["token"] for _ in range(50)]
        target = Target("127.0.0.1", stack.port, tuple(tokens))
        calms, rows = [await _measure("calm", None, target, stack, seconds)], []
        for name in names:
            rows.append(await _measure(name, every[name], target, stack, seconds))
            # Calm changes while a stack runs: it is measured between attacks, too, and the middle one counts.
            calms.append(await _measure("calm", None, target, stack, seconds))
    finally:
        await stack.dispose()
    calm = sorted(calms, key=lambda row: float(row["honest_p95_ms"]))[len(calms) // 2]
    for row in rows:
        row["p95_to_calm"] = round(row["honest_p95_ms"] / max(calm["honest_p95_ms"], 0.1), 2)
    return {"machine": machine(), "ratio_max": RATIO_MAX, "calm": calm, "calms": calms, "attacks": rows}


def main() -> None:
    """Print what was measured; exit with 1 where an honest visitor felt it, or a bound did not hold."""
    parser = argparse.ArgumentParser(prog="llamasketch bench hostile", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument(
        "--only", action="append", choices=sorted(plans(SECONDS)), help="one attack; may be repeated"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="of each attack (default: %(default)s)"
    )
    parser.add_argument("--probe", nargs=3, metavar=("URL", "TOKEN", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        asyncio.run(_probe(arguments.probe[0], arguments.probe[1], float(arguments.probe[2])))
        return
    found = asyncio.run(measured(arguments.only or list(plans(SECONDS)), arguments.seconds))
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        for row in [found["calm"], *found["attacks"]]:
            print(row)
    raise SystemExit(1 if any(map(_is_bad, found["attacks"])) else 0)


def _is_bad(row: Mapping[str, Any]) -> bool:
    """An honest visitor felt more than twice the calm value, a request of hers failed, or a bound was passed."""
    passed = row["bound"] is not None and row["reached"] > row["bound"]
    return bool(row["p95_to_calm"] > RATIO_MAX or row["honest_failed"] or passed)


if __name__ == "__main__":
    main()
