"""The people of `llamasketch bench hostile`, each a process of their own: strangers who attack, and one honest visitor.

All of them run on the cores of the server that is measured. A stranger's machine is not ours, and the processor time
that it takes to attack is no cost to us: attackers get what nobody else wants. The visitor's machine is not ours
either, and nobody's work but the server's should keep her waiting: she goes first, where the system lets her.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from bench.hostile_attacks import FREE_IMAGES, plans, prepare
from tests.gateway.stack import generation_request
from tests.hostile.attacks import Outcome, Target

PAUSE_SECONDS = 0.05
_FIRST = -10
_LAST = 19
_AUTOGROUP = Path("/proc/self/autogroup")


def step_back() -> None:
    """Run only when nothing else of this machine wants to. Needs a session of one's own: where sessions are
    scheduled as groups, what a process does for itself counts within its group alone."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _weigh_session(_LAST)


def step_forward() -> None:
    """Run before others, where that is allowed."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _FIRST)
    _weigh_session(_FIRST)


def _weigh_session(nice: int) -> None:
    with contextlib.suppress(OSError):  # not every kernel groups by session, and going first is a privilege
        _AUTOGROUP.write_text(str(nice))


class Role:
    """A process of somebody's: started, let begin, and asked what it was like."""

    def __init__(self, *words: str) -> None:
        self._words = words

    async def start(self) -> None:
        """Return when it is ready to begin."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.hostile_roles", *self._words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        await self._process.stdout.readline()

    async def played(self) -> Any:
        """Begin; what it writes when it has ended."""
        written, _ = await self._process.communicate(b"\n")
        if self._process.returncode:
            raise RuntimeError(f"{self._words[0]} ended with {self._process.returncode}")
        return json.loads(written)

    def end(self) -> None:
        """End it, wherever it is."""
        if self._process.returncode is None:
            self._process.kill()


def visitor(base: str, seconds: float) -> Role:
    """Somebody honest, for so long."""
    return Role("visitor", base, "", str(seconds))


def attackers(name: str, target: Target, seconds: float) -> Role:
    """Whoever makes this attack, for so long."""
    known = {"host": target.host, "port": target.port, "tokens": target.tokens}
    return Role("attackers", name, json.dumps(known), str(seconds))


async def _visit(base: str, seconds: float) -> Any:
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=30) as client:
        await _new_visitor(client)
        step_forward()
        await _beginning()
        return await _felt(client, time.monotonic() + seconds)


async def _new_visitor(client: httpx.AsyncClient) -> None:
    token = (await client.post("/v1/visitors")).json()["token"]
    client.headers["Authorization"] = f"Bearer {token}"


async def _felt(client: httpx.AsyncClient, until: float) -> tuple[list[float], int]:
    """Milliseconds of an honest visitor's requests, and how many were not answered as they should be.

    She looks at her balance and asks for an image, with a pause after both as a person makes. The image is taken back,
    which is not timed: the same requests must be compared in calm and under attack, and painting is not what is asked
    about. When her free images are used up somebody else goes on.
    """
    taken: list[float] = []
    failed = asked = 0

    async def timed(method: str, path: str, body: Any = None) -> httpx.Response | None:
        nonlocal failed
        began, answer = time.perf_counter(), None
        with contextlib.suppress(httpx.TransportError):
            answer = await client.request(method, path, json=body)
        taken.append((time.perf_counter() - began) * 1000)
        failed += answer is None or not answer.is_success
        return answer

    while time.monotonic() < until:
        await timed("GET", "/v1/account")
        answer = await timed("POST", "/v1/generations", generation_request())
        if answer is not None and answer.is_success:
            await client.delete(f"/v1/generations/{answer.json()['id']}")
        asked += 1
        if asked % FREE_IMAGES == 0:
            await _new_visitor(client)
        await asyncio.sleep(PAUSE_SECONDS)
    return taken, failed


async def _attack(name: str, target: Target, seconds: float) -> Any:
    prepare()
    plan = plans(seconds)[name]
    step_back()
    await _beginning()
    began = time.process_time()
    until = time.monotonic() + seconds
    total = Outcome()

    async def one() -> None:
        while time.monotonic() < until:
            try:
                found = await plan.attack(replace(target, source=plan.source))
            except httpx.TransportError:  # ended by the server in the middle of it
                total.closed += 1
                continue
            total.statuses += found.statuses
            total.closed += found.closed
            total.sent_bytes += found.sent_bytes
            total.codes += found.codes
            total.reached = max(total.reached, found.reached)

    await asyncio.gather(*(one() for _ in range(plan.at_once)))
    return {
        "attacker_sent_mb": round(total.sent_bytes / 1e6, 1),
        "attacker_cpu_seconds": round(time.process_time() - began, 2),
        "answers": {str(status): count for status, count in sorted(total.statuses.items())},
        "refusals": dict(sorted(total.codes.items())),
        "ended": total.closed,
        "bound": plan.bound,
        "reached": total.reached,
    }


async def _beginning() -> None:
    print(flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def main() -> None:
    """Play one of the roles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("visitor", "attackers"))
    parser.add_argument("who", help="the visitor's server, or the attack's name")
    parser.add_argument("with_what", help="the target")
    parser.add_argument("seconds", type=float)
    arguments = parser.parse_args()
    if arguments.role == "visitor":
        playing = _visit(arguments.who, arguments.seconds)
    else:
        known = json.loads(arguments.with_what)
        target = Target(known["host"], known["port"], tuple(known["tokens"]))
        playing = _attack(arguments.who, target, arguments.seconds)
    print(json.dumps(asyncio.run(playing)))


if __name__ == "__main__":
    main()
