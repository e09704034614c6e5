"""What everything else stands on: the database, the log, Redis, HTTP, time and ids."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import redis.asyncio as redis
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.settings import Settings
from generation.domain.job import JOBS
from generation.queueing.signals import RedisSignals
from generation.store.batching import answered
from ledger.cancelling import end_tasks
from ledger.catalogue import Catalogue, load_catalogue
from ledger.clock import Clock, system_clock
from ledger.domain.account import ACCOUNTS
from ledger.domain.state import Account
from ledger.identifiers import Identifiers
from ledger.log.categories import Categories
from ledger.log.connections import ReadingPool
from ledger.log.database_clock import DatabaseClock
from ledger.log.model import Category, Event, UnitOfWork
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.recorder import STALLED_SECONDS, LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from processes import mails, overage
from processes.auto_topups import following
from rails.domain.state import PAYMENTS, Payment

CLOCK_AHEAD_MAX = timedelta(seconds=10)
"""How far this machine's clock may run ahead of the database's."""
CONNECTIONS_READY = 4
"""Opened at the start in each pool, so that the first requests need not wait for one."""
CONNECTIONS_MAX = 20
READING_CONNECTIONS_MAX = 10
CATEGORIES = (ACCOUNTS, PAYMENTS, JOBS)
"""Every kind of stream in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """Connections and clients, open for as long as the stack that opened them."""

    settings: Settings
    clock: Clock
    identifiers: Identifiers
    engine: AsyncEngine
    reserved: AsyncEngine
    """One connection that no request uses: whether the database answers must not depend on how many ask it."""
    sequencer: Sequencer
    pool: ReadingPool
    """For questions that are asked with every request."""
    reader: PostgresLogReader
    redis: redis.Redis
    signals: RedisSignals
    http: httpx.AsyncClient
    catalogue: Catalogue
    """What is for sale."""


async def open_foundation(settings: Settings, clock: Clock, stack: contextlib.AsyncExitStack) -> Foundation:
    """Open everything; `stack` closes it again, in reverse."""
    engine = _engine(settings, CONNECTIONS_MAX, stack)
    reserved = _engine(settings, 1, stack)
    await _open_some(engine)
    if clock is system_clock:  # any other is simulated time
        clock = await _database_clock(reserved, stack)
    datastore = open_datastore(settings.database_url)
    stack.callback(datastore.close)
    categories = Categories(categories_for(settings))
    sequencer = Sequencer(LogRecorder(datastore), categories, clock, clock_ahead_max=CLOCK_AHEAD_MAX)
    sequencer.start()
    stack.push_async_callback(asyncio.to_thread, sequencer.stop)
    pool = ReadingPool(
        settings.database_url,
        min_size=CONNECTIONS_READY,
        max_size=READING_CONNECTIONS_MAX,
        # While the database is away a caller is told so soon, and not after half a minute.
        timeout=3,
        open=False,
        kwargs={"autocommit": True},
    )
    await stack.enter_async_context(pool)
    client = redis.Redis.from_url(
        settings.redis_url, socket_connect_timeout=2, health_check_interval=15, retry_on_timeout=False
    )
    stack.push_async_callback(client.aclose)
    stack.push_async_callback(answered)
    return Foundation(
        settings=settings,
        catalogue=load_catalogue(settings.catalogue),
        clock=clock,
        identifiers=Identifiers(clock),
        engine=engine,
        reserved=reserved,
        sequencer=sequencer,
        pool=pool,
        reader=PostgresLogReader(pool, categories),
        redis=client,
        signals=RedisSignals(client),
        http=await stack.enter_async_context(httpx.AsyncClient(timeout=10)),
    )


def categories_for(settings: Settings) -> Sequence[Category[Any]]:
    """Every kind of stream, with what follows from its events. Without a mail server nothing is left to be mailed."""
    if not settings.sends_mail:
        accounts = replace(ACCOUNTS, on_event=overage.on_account_event)
        return (accounts, replace(PAYMENTS, on_event=following.on_payment_event), JOBS)

    def on_payment_event(uow: UnitOfWork, stream: str, version: int, event: Event, payment: Payment) -> None:
        following.on_payment_event(uow, stream, version, event, payment)
        mails.on_payment_event(uow, stream, version, event, payment)

    def on_account_event(uow: UnitOfWork, stream: str, version: int, event: Event, account: Account) -> None:
        overage.on_account_event(uow, stream, version, event, account)
        mails.on_account_event(uow, stream, version, event, account)

    return (
        replace(ACCOUNTS, on_event=on_account_event),
        replace(PAYMENTS, on_event=on_payment_event),
        JOBS,
    )


def _engine(settings: Settings, connections: int, stack: contextlib.AsyncExitStack) -> AsyncEngine:
    engine = create_async_engine(
        settings.sqlalchemy_url,
        pool_size=connections,
        # One beyond that would be opened for one question and closed behind it.
        max_overflow=0,
        pool_timeout=10,
        # Errors quote no parameters: they may be prompts, addresses or digests of secrets.
        hide_parameters=True,
        # Rows are locked in some of these transactions, and the sequencer may want one of them: a process that
        # is stopped or cut off in between must not hold up everybody.
        connect_args={
            "options": f"-c idle_in_transaction_session_timeout={STALLED_SECONDS}s",
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
        },
    )
    stack.push_async_callback(engine.dispose)
    return engine


async def _open_some(engine: AsyncEngine) -> None:
    """Connections that stay in the pool."""
    async with contextlib.AsyncExitStack() as opened:
        await asyncio.gather(
            *(opened.enter_async_context(engine.connect()) for _ in range(CONNECTIONS_READY))
        )


async def _database_clock(engine: AsyncEngine, stack: contextlib.AsyncExitStack) -> Clock:
    """The clock by which all processes go, kept right for as long as the stack is open."""
    shared = DatabaseClock(engine, system_clock)
    await shared.ask()
    asking = asyncio.create_task(shared.run(), name="database_clock")

    stack.push_async_callback(end_tasks, [asking])
    return shared.clock
