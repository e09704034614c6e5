"""The generation side for `bench.sketchers`: the product's own code, on a clock that is told the time.

Real: `Generations`, `Dispatch`, `ClaimBatcher` and `Completion` with their SQL and their decisions, accounts
with holds, the log with its sequencer, and PostgreSQL (without fsync: nothing is pulled out here).
Not real, because an hour must pass in minutes: pictures (one, verified once, kept in memory), HTTP,
heartbeats and wake-ups; and what all who ask at the same instant want to read is read once for all.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
from PIL import Image, ImageDraw
from psycopg.rows import namedtuple_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import generation.delivery.completion
from generation.delivery.dispatch import Assignment, Dispatch, Report
from generation.domain.errors import ObjectMissing
from generation.domain.job import JOBS
from generation.domain.sessions import LiveSession
from generation.domain.sketches import Sketch
from generation.fleet.registry import PRESENT_WITHIN, Worker, WorkerRegistry
from generation.images.checking import Result, verify_upload
from generation.images.moderation import TermModeration
from generation.images.object_store import SameObject, StoredObject, UploadTarget
from generation.jobs.orphaned_uploads import upload_key
from generation.jobs.service import Generations
from generation.queueing.estimating import Place
from generation.queueing.queue import JobQueue
from generation.queueing.signals import LocalSignals
from generation.store.batching import Batcher
from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.domain.lots import Source
from ledger.identifiers import AccountId, Identifiers, JobId
from ledger.log.categories import Categories
from ledger.log.postgres_reader import PostgresLogReader
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.log.sequencer import Sequencer
from ledger.service import Ledger

BEGIN = datetime(2026, 11, 23, 9, tzinfo=UTC)
RECENT_FOR = timedelta(seconds=1)
_PLACES = """
    SELECT job_id, rank, before, (SELECT virtual_time FROM queue_clock) AS virtual_time,
           (SELECT count(*) FROM job_queue WHERE state = 'running') AS running,
           (SELECT count(*) FROM workers WHERE state = 'active' AND seen_at > %s
            AND capabilities->'graphs' @> '["sketch@1"]') AS workers
    FROM (
        SELECT job_id, rank, row_number() OVER (ORDER BY rank, job_id) - 1 AS before
        FROM job_queue WHERE state = 'queued'
    ) AS waiting WHERE job_id = ANY(%s)
    """
_SESSIONS = "SELECT * FROM live_sessions WHERE session_id = ANY(%s)"


def picture(side: int = 32) -> bytes:
    """A small image that is not blank."""
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).ellipse((2, 2, side - 4, side - 4), fill=(20, 40, 90))
    output = io.BytesIO()
    image.save(output, "PNG")
    return output.getvalue()


PICTURE = picture()
DIGEST = hashlib.sha256(PICTURE).hexdigest()
SKETCH = Sketch(PICTURE, DIGEST, 1024, 1024)


T = TypeVar("T")


class MemoryStore:
    """An `ObjectStore` without a disk."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """See `ObjectStore.put`."""
        self._objects[key] = data

    async def put_new(self, objects: Sequence[StoredObject | SameObject]) -> None:
        """See `ObjectStore.put_new`."""
        for stored in objects:
            is_new = isinstance(stored, StoredObject)
            self._objects[stored.key] = stored.data if is_new else self._objects[stored.source]

    async def use(self, key: str, work: Callable[[bytes], T], *, limit_bytes: int) -> T:
        """See `ObjectStore.use`."""
        return work(await self.get(key, limit_bytes=limit_bytes))

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        """See `ObjectStore.get`."""
        try:
            return self._objects[key]
        except KeyError:
            raise ObjectMissing from None

    async def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        self._objects.pop(key, None)

    async def upload_target(self, key: str, *, expires_in: timedelta, max_bytes: int) -> UploadTarget:
        """See `ObjectStore.upload_target`."""
        return UploadTarget(f"memory:{key}")

    async def download_url(self, key: str, *, expires_in: timedelta, public: bool) -> str:
        """See `ObjectStore.download_url`."""
        return f"memory:{key}"


class SameInstantQueue(JobQueue):
    """The queue, with the questions of one instant answered together, and workers that are always there.

    `tests/bench/test_sketchers.py` holds its answers against those of `JobQueue`.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        pool: AsyncConnectionPool[Any],
        connection: psycopg.AsyncConnection[Any],
    ) -> None:
        super().__init__(engine, pool)
        self._connection = connection
        self._now = BEGIN
        self._sessions: Batcher[str, LiveSession] = Batcher(self._load_sessions)
        self._places: Batcher[str, Place] = Batcher(self._load_places)
        self._recent: Sequence[int] = ()
        self._recent_at = BEGIN - RECENT_FOR

    async def session(self, session_key: str) -> LiveSession | None:
        """See `JobQueue.session`."""
        return await self._sessions.get(session_key)

    async def place(self, job_id: JobId, now: datetime) -> Place | None:
        """See `JobQueue.place`."""
        self._now = now
        return await self._places.get(job_id)

    async def place_and_recent(self, job_id: JobId, now: datetime) -> tuple[Place, Sequence[int]] | None:
        """See `JobQueue.place_and_recent`."""
        place = await self.place(job_id, now)
        return None if place is None else (place, await self.recent_milliseconds())

    async def recent_milliseconds(self, limit: int = 100) -> Sequence[int]:
        """See `JobQueue.recent_milliseconds`; as of a simulated second ago at most."""
        if self._now - self._recent_at >= RECENT_FOR:
            self._recent_at = self._now
            self._recent = await super().recent_milliseconds(limit)
        return self._recent

    async def _load_sessions(self, keys: Sequence[str]) -> Mapping[str, LiveSession]:
        rows = await self._ask(_SESSIONS, list(keys))
        return {row.session_id: LiveSession.from_row(row._asdict()) for row in rows}

    async def _load_places(self, jobs: Sequence[str]) -> Mapping[str, Place]:
        rows = await self._ask(_PLACES, self._now - PRESENT_WITHIN, list(jobs))
        return {row.job_id: self._placed(row, self._now) for row in rows}

    async def _ask(self, query: str, *parameters: Any) -> Sequence[Any]:
        cursor = await self._connection.execute(query.encode(), parameters)
        return await cursor.fetchall()


@dataclass(kw_only=True)
class SketchWorld:
    """What a simulation drives."""

    clock: ManualClock
    ids: Identifiers
    engine: AsyncEngine
    pool: AsyncConnectionPool[Any]
    sequencer: Sequencer
    ledger: Ledger
    queue: JobQueue
    generations: Generations
    dispatch: Dispatch
    registry: WorkerRegistry
    store: MemoryStore
    connection: psycopg.AsyncConnection[Any]

    async def person(self, amount: int) -> AccountId:
        """Somebody new; without credits they have today's free images."""
        account_id = self.ids.account()
        if amount:
            await self.ledger.grant(account_id, amount, source=Source.PROMOTION)
        return account_id

    async def worker(self, name: str) -> Worker:
        """A registered worker that can paint sketches."""
        credentials = await self.registry.register(
            self.registry.tokens.mint(valid_for=timedelta(hours=1)),
            name=name,
            version="simulated",
            capabilities={"graphs": ["sketch@1"]},
        )
        return Worker(credentials.worker_id, name, ("sketch@1",), "active")

    async def deliver(self, worker: Worker, job: Assignment, seconds: float) -> str:
        """A worker uploads its picture and reports it; the job's state then."""
        claim = job.claim
        await self.store.put(upload_key(claim.job_id, claim.epoch), PICTURE, "image/png")
        report = Report(
            epoch=claim.epoch,
            sha256=DIGEST,
            size_bytes=len(PICTURE),
            gpu_milliseconds=round(seconds * 1000),
        )
        return await self.dispatch.complete(worker, claim.job_id, report)

    async def keep_house(self) -> None:
        """What runs every second or so: sweeping, and workers as they are now."""
        await self.connection.execute("UPDATE workers SET seen_at = %s", (self.clock(),))
        await self.dispatch.sweep()


@contextlib.contextmanager
def pictures_verified_once() -> Iterator[None]:
    """All pictures are the same: what verifying it gave is remembered."""
    known: dict[str, Result] = {}

    def verify(data: bytes, *, sha256: str) -> Result:
        if sha256 not in known:
            known[sha256] = verify_upload(data, sha256=sha256)
        return known[sha256]

    generation.delivery.completion.verify_upload = verify
    try:
        yield
    finally:
        generation.delivery.completion.verify_upload = verify_upload


@contextlib.asynccontextmanager
async def open_sketch_world(url: str, chance: random.Random) -> AsyncIterator[SketchWorld]:
    """Wire everything on one database that has its schema."""
    clock = ManualClock(BEGIN)
    ids = Identifiers(clock, chance.randbytes)
    categories = Categories([ACCOUNTS, JOBS])
    async with contextlib.AsyncExitStack() as stack:
        datastore = stack.enter_context(open_datastore(url))
        sequencer = Sequencer(LogRecorder(datastore), categories, clock)
        sequencer.start()
        stack.callback(sequencer.stop)
        engine = create_async_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), pool_size=8)
        stack.push_async_callback(engine.dispose)
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            url, min_size=1, max_size=4, open=False, kwargs={"autocommit": True}
        )
        await stack.enter_async_context(pool)
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True, row_factory=namedtuple_row)
        stack.push_async_callback(connection.close)
        reader = PostgresLogReader(pool, categories)
        queue = SameInstantQueue(engine, pool, connection)
        await queue.ensure_clock()
        registry = WorkerRegistry(engine, clock, ids, registration_secret=b"r" * 32)
        store = MemoryStore()
        shared: dict[str, Any] = {
            "log": sequencer,
            "reader": reader,
            "queue": queue,
            "store": store,
            "signals": LocalSignals(),
            "moderation": TermModeration(),
            "clock": clock,
        }
        with pictures_verified_once():
            yield SketchWorld(
                clock=clock,
                ids=ids,
                engine=engine,
                pool=pool,
                sequencer=sequencer,
                ledger=Ledger(sequencer, reader, clock=clock, identifiers=ids),
                queue=queue,
                generations=Generations(**shared, digest_secret=b"d" * 32),
                dispatch=Dispatch(**shared, registry=registry),
                registry=registry,
                store=store,
                connection=connection,
            )
