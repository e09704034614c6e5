"""The generation side on a real PostgreSQL and the real sequencer, with workers and people in one process."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from PIL import Image, ImageDraw
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import generation.store.tables
from generation.delivery.dispatch import Assignment, Dispatch, Report
from generation.domain.fairness import FREE, Tier
from generation.domain.funding import Funding
from generation.domain.job import JOBS, Job
from generation.domain.paid_apart import EVERYBODY, PaidApart
from generation.domain.requests import Accepted, GenerationRequest, Limits
from generation.domain.sketches import Sketch
from generation.domain.states import JobState
from generation.fleet.registry import Worker, WorkerRegistry
from generation.images.moderation import Moderation, TermModeration
from generation.images.object_store import DiskStore, LinkSigner, ObjectStore
from generation.jobs.funding import FundingProcess
from generation.jobs.metrics import Metrics
from generation.jobs.orphaned_uploads import OrphanedUploads, upload_key
from generation.jobs.service import Generations
from generation.queueing.queue import JobQueue
from generation.queueing.signals import LocalSignals
from generation.store.tables import job_queue, jobs_paid_apart
from ledger.clock import ManualClock
from ledger.domain import holds as holds_
from ledger.domain.account import ACCOUNTS
from ledger.domain.lots import Source
from ledger.domain.state import Account
from ledger.identifiers import AccountId, CommandKey, HoldId, Identifiers, JobId
from ledger.log.categories import Categories
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from ledger.service import Ledger

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TABLES = generation.store.tables.metadata


def forget_everything(url: str) -> None:
    """Empty all tables: cheaper than another database."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        connection.execute(("TRUNCATE " + ", ".join(f'"{name}"' for (name,) in found)).encode())


def picture(seed: int = 0, side: int = 32) -> bytes:
    """A small image that is not blank, different for every seed."""
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).ellipse((2, 2, side - 4, side - 4), fill=(seed % 200, 40, 90))
    output = io.BytesIO()
    image.save(output, "PNG")
    return output.getvalue()


SKETCH = Sketch(picture(), hashlib.sha256(picture()).hexdigest(), 1024, 1024)


@dataclass
class FakeWorker:
    """A worker that paints whatever it is told to."""

    world: World
    worker: Worker
    token: str

    async def claim(self, wait_seconds: float = 0) -> Assignment | None:
        return await self.world.dispatch.claim(await self.known(), wait_seconds=wait_seconds)

    async def known(self) -> Worker:
        """As the registry knows it now."""
        return await self.world.registry.authenticate(self.token)

    async def take(self) -> Assignment:
        assignment = await self.claim()
        assert assignment is not None, "there was no job"
        return assignment

    async def upload(self, job: Assignment, data: bytes | None = None) -> Report:
        data = picture(job.seed) if data is None else data
        claim = job.claim
        await self.world.store.put(upload_key(claim.job_id, claim.epoch), data, "image/png")
        return Report(
            epoch=claim.epoch,
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            gpu_milliseconds=1500,
        )

    async def deliver(self, job: Assignment, data: bytes | None = None) -> str:
        report = await self.upload(job, data)
        return await self.world.dispatch.complete(self.worker, job.claim.job_id, report)

    async def paint(self) -> JobId:
        job = await self.take()
        await self.deliver(job)
        return job.claim.job_id

    async def fail(
        self, job: Assignment, failure: str = "infrastructure", code: str = "broken", node: str | None = None
    ) -> str:
        claim = job.claim
        return await self.world.dispatch.fail(
            self.worker, claim.job_id, claim.epoch, failure=failure, code=code, node=node
        )


@dataclass
class World:
    """Everything that `gateway.wiring.services` wires for generations, without HTTP."""

    url: str
    clock: ManualClock
    ids: Identifiers
    engine: AsyncEngine
    pool: AsyncConnectionPool[Any]
    sequencer: Sequencer
    reader: PostgresLogReader
    ledger: Ledger
    queue: JobQueue
    store: ObjectStore
    signals: LocalSignals
    registry: WorkerRegistry
    generations: Generations
    dispatch: Dispatch
    funding_process: FundingProcess | None
    orphaned_uploads: OrphanedUploads
    numbers: dict[str, int] = field(default_factory=dict)

    # --- people ---

    async def person(self, amount: int = 0) -> AccountId:
        """Somebody new; without credits they have today's free images."""
        account_id = self.ids.account()
        if amount:
            await self.ledger.grant(account_id, amount, source=Source.PROMOTION)
        return account_id

    def request(self, account_id: AccountId, tier: Tier = FREE, **more: Any) -> GenerationRequest:
        if isinstance(self.clock, ManualClock):
            self.pass_time(milliseconds=2)  # ids made later sort later
        job_id = self.ids.job()
        return GenerationRequest(
            **{
                "key": CommandKey(f"{job_id}:request"),
                "job_id": job_id,
                "hold_id": HoldId("hold_" + job_id.removeprefix("job_")),
                "account_id": account_id,
                "tier": tier,
                "prompt": "a llama",
                "sketch": SKETCH,
                "seed": 1,
                "strength_permille": 600,
                **more,
            }
        )

    async def ask(self, account_id: AccountId, tier: Tier = FREE, **more: Any) -> JobId:
        return (await self.accepted(account_id, tier, **more)).job_id

    async def accepted(self, account_id: AccountId, tier: Tier = FREE, **more: Any) -> Accepted:
        return await self.generations.request(self.request(account_id, tier, **more))

    async def frame(self, account_id: AccountId, seq: int, **more: Any) -> JobId:
        """A frame of a live session."""
        return await self.ask(account_id, **{"live": True, "session_id": "s1", "seq": seq, **more})

    # --- workers ---

    async def worker(self, *graphs: str) -> FakeWorker:
        credentials = await self.registry.register(
            self.registry.tokens.mint(valid_for=timedelta(minutes=5)),
            name="worker",
            version="test",
            capabilities={"graphs": list(graphs or ("sketch@1",))},
        )
        worker = await self.registry.authenticate(credentials.token)
        return FakeWorker(self, worker, credentials.token)

    # --- what is so ---

    async def job(self, job_id: JobId) -> Job:
        job: Job = (await self.reader.state(job_id)).state
        return job

    async def state(self, job_id: JobId) -> JobState:
        return (await self.job(job_id)).state

    async def account(self, account_id: AccountId) -> Account:
        account: Account = (await self.reader.state(account_id)).state
        return account

    async def held(self, account_id: AccountId) -> int:
        return (await self.account(account_id)).held()

    async def open_holds(self, account_id: AccountId) -> set[str]:
        return {hold.job_id for hold in holds_.each((await self.account(account_id)).holds)}

    async def available(self, account_id: AccountId) -> int:
        return (await self.ledger.account(account_id)).available

    async def names(self, stream: str) -> list[str]:
        """The names of a stream's events, without package and version."""
        return [envelope.name.split(".")[1] for envelope in await self.reader.events(stream)]

    async def rows(self, table: sa.Table) -> list[Mapping[str, Any]]:
        async with self.engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(sa.select(table))).mappings()]

    async def ends(self) -> dict[str, int]:
        """Jobs that have ended, by their state, as the log says."""
        query = sa.text("SELECT topic, count(*) FROM stored_events WHERE topic = ANY(:ends) GROUP BY topic")
        ends = [f"generation.job_{state.value}.v1" for state in JobState if state.final]
        async with self.engine.connect() as connection:
            found = await connection.execute(query, {"ends": ends})
            return {str(topic).split(".")[1].removeprefix("job_"): count for topic, count in found}

    async def counted_apart(self) -> dict[str, int]:
        """How many jobs are paid by payments of their own, by account and in all, as the counts say it."""
        rows = await self.rows(jobs_paid_apart)
        counted = {row["counted_for"]: PaidApart.of(row["counted_for"], row, self.clock()) for row in rows}
        return {name: apart.jobs for name, apart in counted.items() if apart.jobs}

    async def queued_apart(self) -> dict[str, int]:
        """The same as the queue says it."""
        left = [r for r in await self.rows(job_queue) if not r["held"] and r["deadline"] > self.clock()]
        counted = Counter(row["account_id"] for row in left)
        return {**counted, EVERYBODY: counted.total()} if left else {}

    def counted_ends(self) -> dict[str, int]:
        """The same as `/metrics` would say it."""
        families = self.dispatch.metrics.outcomes.collect()
        samples = [sample for family in families for sample in family.samples]
        return {s.labels["state"]: int(s.value) for s in samples if s.name.endswith("_total") and s.value}

    def pass_time(self, **span: float) -> None:
        self.clock.advance(timedelta(**span))


@contextlib.asynccontextmanager
async def open_world(
    url: str,
    folder: Path,
    *,
    clock: Any = None,
    limits: Limits | None = None,
    moderation: Moderation | None = None,
    funding: Any = None,
    store: ObjectStore | None = None,
) -> AsyncIterator[World]:
    """Wire everything on one database. `funding` is a function from the world's parts to a `Funding`."""
    clock = clock or ManualClock(NOON)
    ids = Identifiers(clock)
    categories = Categories([ACCOUNTS, JOBS])
    datastore = open_datastore(url)
    sequencer = Sequencer(LogRecorder(datastore), categories, clock)
    sequencer.start()
    engine = create_async_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), pool_size=20)
    signals = LocalSignals()
    async with AsyncConnectionPool(
        url, min_size=1, max_size=4, open=False, kwargs={"autocommit": True}
    ) as pool:
        reader = PostgresLogReader(pool, categories)
        queue = JobQueue(engine, pool)
        await queue.ensure_clock()
        store = store or DiskStore(folder, LinkSigner(b"s" * 32, clock), "http://127.0.0.1")
        registry = WorkerRegistry(engine, clock, ids, registration_secret=b"r" * 32)
        metrics = Metrics()
        funding_process = None
        if funding is not None:
            port: Funding = funding(sequencer, ids)
            funding_process = FundingProcess(
                funding=port,
                log=sequencer,
                queue=queue,
                signals=signals,
                clock=clock,
                identifiers=ids,
                metrics=metrics,
            )
        shared: dict[str, Any] = {
            "log": sequencer,
            "reader": reader,
            "queue": queue,
            "store": store,
            "signals": signals,
            "moderation": moderation or TermModeration(),
            "clock": clock,
            "funding_process": funding_process,
            "metrics": metrics,
        }
        generations = Generations(**shared, digest_secret=b"d" * 32, limits=limits or Limits())
        dispatch = Dispatch(**shared, registry=registry)
        ledger = Ledger(sequencer, reader, clock=clock, identifiers=ids)
        yield World(
            url=url,
            clock=clock,
            ids=ids,
            engine=engine,
            pool=pool,
            sequencer=sequencer,
            reader=reader,
            ledger=ledger,
            queue=queue,
            store=store,
            signals=signals,
            registry=registry,
            generations=generations,
            dispatch=dispatch,
            funding_process=funding_process,
            orphaned_uploads=OrphanedUploads(engine=engine, reader=reader, store=store, clock=clock),
        )
    sequencer.stop()
    await engine.dispose()
    datastore.close()
