"""`llamasketch bench ledger`: how many holds and captures a second the ledger answers on this machine.

A cycle is one hold and one capture, each acknowledged after COMMIT, in a closed loop, with full
semantics: lots, slices, outcomes, hash chain; fsync and synchronous_commit are on.

`slow_disk` needs no preloaded library: with `commit_siblings = 0`, PostgreSQL sleeps for
`commit_delay` before every flush of its log, which is what a disk does that takes so much longer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import psycopg

from bench.baselines import bare_recorder, naive_library
from bench.cycles import Pick, hot, measure, open_accounts, open_ledger, uniform, zipf
from bench.history import write_deep_history
from bench.loading import loading
from bench.surroundings import machine, median_case, own_postgres, postgres_settings, run
from ledger.identifiers import AccountId
from ledger.log.tables import create_log_tables

SLOW_DISK = {"commit_delay": "2000", "commit_siblings": "0"}
MEMORY_ACCOUNTS = 10_000
Case = Callable[[argparse.Namespace, str, list[AccountId]], Coroutine[Any, Any, dict[str, Any]]]


def _closed_loop(picker: Callable[[Sequence[AccountId]], Pick], callers: int) -> Case:
    async def case(request: argparse.Namespace, url: str, accounts: list[AccountId]) -> dict[str, Any]:
        rounds = [
            await measure(
                url, picker(accounts), accounts, callers=callers, seconds=request.seconds, seed=number
            )
            for number in range(request.rounds)
        ]
        return median_case(rounds)

    return case


async def _two_processes(request: argparse.Namespace, url: str, accounts: list[AccountId]) -> dict[str, Any]:
    """The same 1,000 callers, half in each of two processes; and all of them in one."""
    rounds = []
    for number in range(request.rounds):
        alone = await _children(url, accounts, request, [1000], number)
        both = await _children(url, accounts, request, [500, 500], number + 1000)
        each = [child["cycles_per_second"] for child in both]
        rounds.append(
            {
                "cycles_per_second": sum(each),
                "smaller_share": min(each) / sum(each),
                "of_one_process": sum(each) / alone[0]["cycles_per_second"],
                "one_process_cycles_per_second": alone[0]["cycles_per_second"],
                "hold_p50_ms": max(child["hold_p50_ms"] for child in both),
                "hold_p99_ms": max(child["hold_p99_ms"] for child in both),
                "errors": sum(child["errors"] for child in both),
            }
        )
    return median_case(rounds)


async def _children(
    url: str, accounts: list[AccountId], request: argparse.Namespace, callers: list[int], seed: int
) -> list[dict[str, Any]]:
    """Processes that warm up, wait for each other, and measure at the same time."""
    started = []
    for number, many in enumerate(callers):
        task = {
            "url": url,
            "accounts": accounts,
            "callers": many,
            "seconds": request.seconds,
            "seed": seed + number,
        }
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.ledger", "--child"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**26,
        )
        assert child.stdin is not None
        child.stdin.write(json.dumps(task).encode() + b"\n")
        started.append(child)
    for child in started:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"warm\n", "a measuring process did not start"
    for child in started:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
    return [json.loads((await child.communicate())[0]) for child in started]


def _child() -> None:
    task = json.loads(sys.stdin.readline())

    def gate() -> None:
        print("warm", flush=True)
        sys.stdin.readline()

    accounts = [AccountId(account) for account in task["accounts"]]
    measured = run(
        measure(
            task["url"],
            uniform(accounts),
            accounts,
            callers=task["callers"],
            seconds=task["seconds"],
            seed=task["seed"],
            gate=gate,
        )
    )
    print(json.dumps(measured))


async def _deep_history(request: argparse.Namespace, url: str, accounts: list[AccountId]) -> dict[str, Any]:
    """Much history behind, 10,000 accounts of it active; against the same accounts without."""
    async with asyncio.timeout(3600):
        old = await asyncio.to_thread(write_deep_history, url, request.deep_events, request.deep_accounts)
        await asyncio.to_thread(_settle, url)
    active = old[:: max(1, len(old) // 10_000)][:10_000]
    measured = await _closed_loop(uniform, 1000)(request, url, active)
    return {**measured, "events_behind": request.deep_events, "accounts_behind": request.deep_accounts}


def _settle(url: str) -> None:
    """What years would have done: tables are vacuumed, and the bulk is out of PostgreSQL's own log."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


CASES: dict[str, Case] = {
    "uniform_1000": _closed_loop(uniform, 1000),
    "zipf_1000": _closed_loop(zipf, 1000),
    "hot_1000": _closed_loop(hot, 1000),
    "uniform_64": _closed_loop(uniform, 64),
    "uniform_1": _closed_loop(uniform, 1),
    "two_processes": _two_processes,
    "deep_history": _deep_history,
    "slow_disk": _closed_loop(uniform, 1000),
}


def _measure_case(name: str, request: argparse.Namespace) -> dict[str, Any]:
    with own_postgres(SLOW_DISK if name == "slow_disk" else None) as server:
        create_log_tables(server.url)
        accounts = [] if name == "deep_history" else run(open_accounts(server.url, request.accounts))
        measured = run(CASES[name](request, server.url, accounts))
    return {"name": name, **measured}


def _memory(url: str) -> dict[str, Any]:
    """Resident memory that 10,000 cached accounts take, after some use."""
    accounts = run(open_accounts(url, MEMORY_ACCOUNTS))

    async def load() -> float:
        async with open_ledger(url) as ledger:
            await ledger.grant(accounts[0], 1)
            before = _resident_bytes()
            for begin in range(0, len(accounts), 1_000):
                await asyncio.gather(
                    *(ledger.grant(account, 1) for account in accounts[begin : begin + 1_000])
                )
            return (_resident_bytes() - before) / len(accounts)

    return {"bytes_per_cached_account": round(run(load())), "accounts": MEMORY_ACCOUNTS}


def _loading(request: argparse.Namespace) -> dict[str, Any]:
    with own_postgres() as server:
        create_log_tables(server.url)
        return run(loading(server.url, request.loading_events))


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


def main() -> int:
    parser = argparse.ArgumentParser(prog="llamasketch bench ledger", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="of each round, after one second to warm up"
    )
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--deep-events", type=int, default=10_000_000)
    parser.add_argument("--deep-accounts", type=int, default=1_000_000)
    parser.add_argument("--loading-events", type=int, default=1_000_000)
    parser.add_argument(
        "--no-baselines", action="store_true", help="nor memory, nor the loading of one account"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    request = parser.parse_args()
    if request.child:
        _child()
        return 0
    with own_postgres() as server:
        settings = {
            **postgres_settings(server.url),
            "event_loop": "uvloop",
            "rounds": request.rounds,
            "seconds": request.seconds,
        }
        create_log_tables(server.url)
        memory = None if request.no_baselines else _memory(server.url)
    result: dict[str, Any] = {"machine": machine(), "settings": settings, "memory": memory, "cases": []}
    result["loading"] = None if request.no_baselines else _loading(request)
    for name in request.only:
        case = _measure_case(name, request)
        result["cases"].append(case)
        _print(request, case)
    result["baselines"] = [] if request.no_baselines else _baselines(request)
    _compare(result)
    if request.json:
        print(json.dumps(result, indent=2))
    return 1 if any(case["errors"] for case in result["cases"]) else 0


def _baselines(request: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for name, baseline in (("bare_recorder", bare_recorder), ("naive_library", naive_library)):
        with own_postgres() as server:
            rounds = [baseline(server.url, request.seconds, number) for number in range(request.rounds)]
        found.append({"name": name, **median_case(rounds)})
        _print(request, found[-1])
    return found


def _compare(result: dict[str, Any]) -> None:
    """What is asked for relative to the plain case, measured in the same run."""
    cases = {case["name"]: case for case in result["cases"]}
    plain = cases.get("uniform_1000")
    for name in ("deep_history", "slow_disk"):
        if plain is not None and name in cases:
            ratio = cases[name]["cycles_per_second"] / plain["cycles_per_second"]
            cases[name]["of_uniform_1000"] = round(ratio, 3)


def _print(request: argparse.Namespace, case: dict[str, Any]) -> None:
    rest = ", ".join(
        f"{key} {value:,}" for key, value in case.items() if key not in ("name", "cycles_per_second")
    )
    line = f"{case['name']:<16}{case['cycles_per_second']:>10,.0f} cycles/s   {rest}"
    print(line, file=sys.stderr if request.json else sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
