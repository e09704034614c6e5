"""What attacks of strangers cost them and us, and what an honest visitor feels meanwhile.

Starts a stack of its own. For each attack: bytes that the attacker could send, the API's processor seconds and memory,
and the 95th percentile of an honest visitor's requests (her balance, and an image asked for) during it and in calm.
Attackers run behind everything else of the machine, and she before it: neither's own machine is ours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.hostile_attacks import plans
from bench.hostile_roles import attackers, visitor
from bench.surroundings import descendants, machine, percentile
from tests.e2e.stack import Stack
from tests.hostile.attacks import Target, cpu_seconds, rss_bytes

SECONDS = 4.0
RATIO_MAX = 2.0
VISITORS = 50
VISITORS_APART = 7
"""From one attack's first visitor to the next one's."""
STORED = "objects"
"""The folder of what is stored, in the stack's data."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stack has used up so far."""

    api_cpu: float
    others_cpu: float
    memory: int
    stored: int

    @classmethod
    def of(cls, stack: Stack) -> Cost:
        """Of the API, of its processes for pictures and all others of the stack."""
        api = stack.children()["api"]
        return cls(
            api_cpu=cpu_seconds(api),
            others_cpu=_cpu(descendants(stack.pid)) - cpu_seconds(api),
            memory=rss_bytes(api),
            stored=sum(file.stat().st_size for file in (stack.data / STORED).rglob("*") if file.is_file()),
        )


def _cpu(pids: Iterable[int]) -> float:
    return sum(cpu_seconds(pid) for pid in pids if Path(f"/proc/{pid}").exists())


async def _measure(name: str | None, target: Target, stack: Stack, seconds: float) -> dict[str, Any]:
    """One attack, or none, and an honest visitor meanwhile."""
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=30) as client:
        roles = [visitor(stack.url, seconds)]
        if name is not None:
            roles.append(attackers(name, target, seconds))
        try:
            for role in roles:
                await role.start()
            before, began = Cost.of(stack), time.monotonic()
            (taken, failed), *outcomes = await asyncio.gather(*(role.played() for role in roles))
            after = Cost.of(stack)
        finally:
            for role in roles:
                role.end()
        health = (await client.get("/health")).json()
    return {
        "attack": name or "calm",
        "seconds": round(time.monotonic() - began, 1),
        **(outcomes[0] if outcomes else {"bound": None, "reached": 0}),
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
    stack = Stack()
    try:
        await stack.start()
        async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
            tokens = [(await client.post("/v1/visitors")).json()["token"] for _ in range(VISITORS)]
        calms, rows = [await _measure(None, Target("127.0.0.1", stack.port), stack, seconds)], []
        for number, name in enumerate(names):
            # Each begins with other visitors: what one attack has used up is not missing in the next.
            first = number * VISITORS_APART % len(tokens)
            target = Target("127.0.0.1", stack.port, (*tokens[first:], *tokens[:first]))
            rows.append(await _measure(name, target, stack, seconds))
            # Calm changes while a stack runs: it is measured between attacks, too, and the middle one counts.
            calms.append(await _measure(None, target, stack, seconds))
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
    arguments = parser.parse_args()
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
