"""Cycles of one hold and one capture, each answered after COMMIT, through `ledger.service.Ledger`."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from psycopg_pool import AsyncConnectionPool

from bench.surroundings import percentile
from ledger.clock import system_clock
from ledger.collector import calm_garbage_collector
from ledger.domain.account import ACCOUNTS
from ledger.domain.consideration import Consideration, Worth
from ledger.domain.lots import Source
from ledger.identifiers import AccountId, Identifiers, JobId
from ledger.log.categories import Categories
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from ledger.money import BTC, USD, Asset
from ledger.service import Ledger

CATEGORIES = Categories((ACCOUNTS,))
DEADLINE_AFTER = timedelta(minutes=10)
WARM_SECONDS = 1.0
WARM_CALLERS = 500
LOT = 10_000_000
Pick = Callable[[int], Iterator[AccountId]]


@asynccontextmanager
async def open_ledger(url: str) -> AsyncIterator[Ledger]:
    """A ledger with a sequencer of its own, as one process has it."""
    with open_datastore(url) as datastore:
        sequencer = Sequencer(LogRecorder(datastore), CATEGORIES, system_clock)
        sequencer.start()
        try:
            async with AsyncConnectionPool(url, min_size=1, max_size=2, open=False) as pool:
                reader = PostgresLogReader(pool, CATEGORIES)
                yield Ledger(sequencer, reader, clock=system_clock, identifiers=Identifiers(system_clock))
        finally:
            await asyncio.to_thread(sequencer.stop)


async def open_accounts(url: str, count: int) -> list[AccountId]:
    """Accounts with three lots each: two paid, in two assets, and a gift that is used first."""
    async with open_ledger(url) as ledger:
        accounts = [ledger.open() for _ in range(count)]
        dollars, sats = _paid(USD, LOT, "card"), _paid(BTC, LOT * 10, "lightning")

        async def fund(account: AccountId) -> None:
            await ledger.grant(account, 20, source=Source.PROMOTION)
            await ledger.grant(account, LOT, consideration=dollars)
            await ledger.grant(account, LOT, consideration=sats)

        for chunk in _chunks(accounts):
            await asyncio.gather(*(fund(account) for account in chunk))
    return accounts


def _paid(asset: Asset, minor: int, rail: str) -> Consideration:
    worth = Worth(minor - minor // 30, 0, minor // 30, LOT, 0)
    return Consideration(asset=asset, worth=worth, rail=rail, payment_id=f"pay_{rail}")


def _chunks(accounts: list[AccountId]) -> Iterator[list[AccountId]]:
    for begin in range(0, len(accounts), 2_000):
        yield accounts[begin : begin + 2_000]


def uniform(accounts: Sequence[AccountId]) -> Pick:
    """Every account as often as any other."""

    def pick(seed: int) -> Iterator[AccountId]:
        chance = random.Random(seed)
        while True:
            yield accounts[chance.randrange(len(accounts))]

    return pick


def zipf(accounts: Sequence[AccountId]) -> Pick:
    """Zipf with exponent 1: the n-th account as often as 1/n."""
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(accounts) + 1)))

    def pick(seed: int) -> Iterator[AccountId]:
        chance = random.Random(seed)
        while True:
            yield from chance.choices(accounts, cum_weights=weights, k=16)

    return pick


def hot(accounts: Sequence[AccountId]) -> Pick:
    """One account alone."""
    return lambda _: itertools.repeat(accounts[0])


async def measure(
    url: str,
    pick: Pick,
    active: Sequence[AccountId],
    *,
    callers: int,
    seconds: float,
    seed: int = 0,
    gate: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Closed loop: each caller holds, captures, and begins again. Latencies in milliseconds.

    It measures a process that has been at work: each of the `active` accounts has been used before.
    `gate` is called when everything is warm; measuring begins when it returns.
    """
    async with open_ledger(url) as ledger:
        await _use_once(ledger, active)
        await _rounds(ledger, pick, callers, WARM_SECONDS, seed + 7)
        calm_garbage_collector()
        if gate is not None:
            await asyncio.to_thread(gate)
        began = time.perf_counter()
        holds, captures, errors = await _rounds(ledger, pick, callers, seconds, seed)
        taken = time.perf_counter() - began
    return {
        "cycles_per_second": len(captures) / taken,
        "hold_p50_ms": percentile(holds, 0.5) * 1000,
        "hold_p99_ms": percentile(holds, 0.99) * 1000,
        "capture_p50_ms": percentile(captures, 0.5) * 1000,
        "capture_p99_ms": percentile(captures, 0.99) * 1000,
        "cycles": len(captures),
        "errors": errors,
    }


async def _use_once(ledger: Ledger, accounts: Sequence[AccountId]) -> None:
    waiting = iter(accounts)

    async def caller() -> None:
        for account in waiting:
            deadline = system_clock() + DEADLINE_AFTER
            hold = await ledger.hold(account, 1, job_id=JobId("job_warm"), deadline=deadline)
            await ledger.capture(account, hold)

    await asyncio.gather(*(caller() for _ in range(WARM_CALLERS)))


async def _rounds(
    ledger: Ledger, pick: Pick, callers: int, seconds: float, seed: int
) -> tuple[list[float], list[float], int]:
    holds: list[float] = []
    captures: list[float] = []
    errors = 0
    clock = time.perf_counter
    until = clock() + seconds

    async def caller(number: int) -> None:
        nonlocal errors
        accounts = pick(seed * 100_003 + number)
        job = JobId(f"job_bench{seed}_{number}")
        while clock() < until:
            account = next(accounts)
            began = clock()
            try:
                hold = await ledger.hold(account, 1, job_id=job, deadline=system_clock() + DEADLINE_AFTER)
                held = clock()
                await ledger.capture(account, hold)
            except Exception:  # noqa: BLE001 - counted and shown; a bench must not hide them
                errors += 1
                continue
            holds.append(held - began)
            captures.append(clock() - held)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    return holds, captures, errors
