"""Who may take jobs: registration by a one-time token, short-lived credentials per worker."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from generation.domain.errors import WorkerNotAllowed
from generation.fleet import quarantine
from generation.fleet.tokens import RegistrationTokens, RenewedTokens
from generation.store.batching import Batcher
from generation.store.tables import registration_tokens, workers
from ledger.clock import Clock
from ledger.identifiers import AccountId, Identifiers, JobId

TOKEN_LIFETIME = timedelta(hours=12)
PRESENT_WITHIN = timedelta(seconds=90)
"""A worker that was not heard of for longer counts as gone (three missed pings of 30 s)."""

SEEN_WITHIN = timedelta(seconds=15)
"""A worker that could take a job now is heard of at least this often: it waits for one, or sends heartbeats."""

GONE = "gone"
"""The state of a worker whose credentials were revoked: whatever it shows, it is nobody. It may register anew."""
AUTHENTIC_FOR = timedelta(seconds=1)
NOTED_EVERY = timedelta(seconds=5)
"""How exactly it is noted when a worker was last heard of."""
SEEN_MAX = 10_000
_BY_TOKEN = sa.text(
    """
    SELECT token_digest, worker_id, name, capabilities, state, seen_at, self_test_at FROM workers
    WHERE token_digest = ANY(:digests) AND token_expires_at > :now AND state <> 'gone'
    """
)
_SEEN = sa.text(
    """
    UPDATE workers w SET seen_at = s.seen_at
    FROM unnest(CAST(:workers AS text[]), CAST(:times AS timestamptz[])) AS s(worker_id, seen_at)
    WHERE w.worker_id = s.worker_id AND w.seen_at < s.seen_at
      AND set_config('synchronous_commit', 'off', true) IS NOT NULL
    """
)
"""Not worth waiting for the disk."""
_DELIVERED = sa.text(
    """
    UPDATE workers w SET jobs_done = w.jobs_done + d.jobs,
           gpu_milliseconds = w.gpu_milliseconds + d.spent
    FROM unnest(CAST(:workers AS text[]), CAST(:jobs AS bigint[]), CAST(:spent AS bigint[]))
         AS d(worker_id, jobs, spent)
    WHERE w.worker_id = d.worker_id
    """
)


class Credentials(NamedTuple):
    """What a worker gets when it registers or renews. The token is shown once and stored hashed."""

    worker_id: str
    token: str
    expires_at: datetime


class Worker(NamedTuple):
    """An authenticated worker."""

    worker_id: str
    name: str
    graphs: tuple[str, ...]
    state: str
    self_test_at: datetime | None = None
    """When a quarantined worker should test itself."""


@dataclass(slots=True)
class _Known:
    """A worker as this process knows it."""

    worker: Worker
    as_of: datetime
    reported_at: datetime


class WorkerRegistry:
    """Registers, authenticates and keeps an eye on workers."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        identifiers: Identifiers,
        *,
        registration_secret: bytes,
        new_token: Callable[[], str] = lambda: secrets.token_urlsafe(32),
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._identifiers = identifiers
        self.tokens = RegistrationTokens(registration_secret, clock)
        self._renewed = RenewedTokens(registration_secret)
        self._new_token = new_token
        self._known: dict[bytes, _Known] = {}
        self._lookups: Batcher[bytes, _Known] = Batcher(self._look_up)
        self._delivered: dict[str, tuple[int, int]] = {}
        self.quarantine = quarantine.Quarantine(engine, clock, self._forget_known)
        self._waiting: dict[str, datetime] = {}
        self._waiting_noted_at = datetime.min.replace(tzinfo=UTC)

    async def register(
        self, token: str, *, name: str, version: str, capabilities: Mapping[str, Any]
    ) -> Credentials:
        """Take in a worker. Raises `WorkerNotAllowed` for a forged, expired or used token."""
        if not self.tokens.genuine(token):
            raise WorkerNotAllowed("the registration token is not valid")
        now = self._clock()
        worker_id = self._identifiers.new("wrk")
        credentials = Credentials(worker_id, self._new_token(), now + TOKEN_LIFETIME)
        used = (
            insert(registration_tokens)
            .values(token_digest=_digest(token), worker_id=worker_id, used_at=now)
            .on_conflict_do_nothing()
            .returning(registration_tokens.c.worker_id)
        )
        async with self._engine.begin() as connection:
            if (await connection.execute(used)).one_or_none() is None:
                raise WorkerNotAllowed("the registration token was used before")
            await connection.execute(
                sa.insert(workers).values(
                    worker_id=worker_id,
                    name=name,
                    version=version,
                    capabilities=dict(capabilities),
                    token_digest=_digest(credentials.token),
                    token_expires_at=credentials.expires_at,
                    state="active",
                    registered_at=now,
                    seen_at=now,
                )
            )
        return credentials

    async def renew(self, worker: Worker) -> Credentials:
        """Fresh credentials. The old token works until they are first used: see `RenewedTokens`."""
        expires_at = (self._clock() + TOKEN_LIFETIME).replace(microsecond=0)
        query = sa.select(workers.c.token_digest).where(workers.c.worker_id == worker.worker_id)
        async with self._engine.connect() as connection:
            digest = (await connection.execute(query)).scalar_one()
        token = self._renewed.mint(worker.worker_id, digest, expires_at)
        return Credentials(worker.worker_id, token, expires_at)

    async def authenticate(self, token: str) -> Worker:
        """The worker that this token belongs to. Raises `WorkerNotAllowed`.

        An answer is good for a second in this process: a worker that reports many small jobs need not
        be looked up each time, and what another process decides about it is late by that much.
        """
        now = self._clock()
        digest = _digest(token)
        known = self._known.get(digest)
        if known is None or now - known.as_of >= AUTHENTIC_FOR:
            known = await self._lookups.get(digest)
        if known is None and await self._take_over(token, now):
            known = await self._lookups.get(digest)
        if known is None:
            raise WorkerNotAllowed("the worker token is not valid")
        known.reported_at = now
        return known.worker

    async def _look_up(self, digests: Sequence[bytes]) -> dict[bytes, _Known]:
        """These workers as they are now. Those heard of lately will ask soon too: they are looked up along."""
        now = self._clock()
        lately = {
            digest: known for digest, known in self._known.items() if now - known.reported_at < NOTED_EVERY
        }
        wanted = list({*digests, *lately})[:SEEN_MAX]
        async with self._engine.begin() as connection:
            rows = (await connection.execute(_BY_TOKEN, {"digests": wanted, "now": now})).all()
            reported_by = {row.worker_id: _reported_at(row, now, digests, lately) for row in rows}
            noted = [row for row in rows if reported_by[row.worker_id] - row.seen_at > NOTED_EVERY]
            if noted:
                await _note_seen(connection, {row.worker_id: reported_by[row.worker_id] for row in noted})
        self._known = {
            row.token_digest: _Known(_worker(row), now, max(row.seen_at, reported_by[row.worker_id]))
            for row in rows
        }
        return self._known

    async def _take_over(self, token: str, now: datetime) -> bool:
        async with self._engine.begin() as connection:
            return await self._taken_over(connection, token, now)

    async def _taken_over(self, connection: AsyncConnection, token: str, now: datetime) -> bool:
        """Whether this is a renewed token, which from now on is the worker's only one."""
        worker_id = self._renewed.worker_of(token)
        if worker_id is None:
            return False
        mine = workers.c.worker_id == worker_id
        # Locked: of two requests that come first, the second finds the token in its place.
        query = sa.select(workers.c.token_digest).where(mine, workers.c.state != GONE).with_for_update()
        old = (await connection.execute(query)).scalar_one_or_none()
        if old is None or old == _digest(token):
            return old is not None
        expires_at = self._renewed.expiry_of(token, old)
        if expires_at is None or expires_at <= now:
            return False
        change = {"token_digest": _digest(token), "token_expires_at": expires_at}
        await connection.execute(sa.update(workers).where(mine).values(**change))
        self._known.clear()
        return True

    async def drain(self, worker_id: str) -> None:
        """No more jobs for this worker; what it has, it finishes. One in quarantine gets none anyway, and stays there."""
        statement = (
            sa.update(workers)
            .where(workers.c.worker_id == worker_id, workers.c.state == "active")
            .values(state="draining")
        )
        async with self._engine.begin() as connection:
            await connection.execute(statement)
        self._known.clear()

    async def resume(self, worker_id: str) -> None:
        """The worker has started again after a drain. Quarantine is not the worker's to lift."""
        statement = (
            sa.update(workers)
            .where(workers.c.worker_id == worker_id, workers.c.state == "draining")
            .values(state="active")
        )
        async with self._engine.begin() as connection:
            await connection.execute(statement)

    async def offer(self, worker_id: str, graphs: Sequence[str]) -> None:
        """The worker can run these graphs now, and no other; none if it can run nothing."""
        graphs_now = sa.func.jsonb_set(
            workers.c.capabilities, sa.literal(["graphs"], ARRAY(sa.Text())), sa.literal(list(graphs), JSONB)
        )
        await self._update(worker_id, capabilities=graphs_now)

    async def note_waiting(self, worker_id: str) -> None:
        """A worker's claim is still open: it is there, although it asks only once in a while.

        Asked about each of them each second; written for all of them together, each `NOTED_EVERY`.
        """
        now = self._clock()
        self._waiting[worker_id] = now
        if now - self._waiting_noted_at < NOTED_EVERY:
            return
        self._waiting_noted_at = now
        waiting, self._waiting = self._waiting, {}
        async with self._engine.begin() as connection:
            await _note_seen(connection, waiting)

    def note_success(self, worker_id: str, gpu_milliseconds: int) -> None:
        """Count a delivered image; written by the next `flush`. The events are the truth."""
        jobs, spent = self._delivered.get(worker_id, (0, 0))
        self._delivered[worker_id] = (jobs + 1, spent + gpu_milliseconds)

    async def flush(self) -> None:
        """Write what `note_success` counted."""
        if not self._delivered:
            return
        delivered, self._delivered = self._delivered, {}
        parameters = {
            "workers": list(delivered),
            "jobs": [jobs for jobs, _ in delivered.values()],
            "spent": [spent for _, spent in delivered.values()],
        }
        async with self._engine.begin() as connection:
            await quarantine.clear(connection, delivered)
            await connection.execute(_DELIVERED, parameters)

    async def note_failure(self, worker_id: str, job_id: JobId, account_id: AccountId, code: str) -> None:
        """Count a failure that is this worker's, after what it delivered before."""
        await self.flush()
        await self.quarantine.note_failure(worker_id, job_id, account_id, code)

    def _forget_known(self) -> None:
        """Somebody's state has changed: everybody is looked up anew."""
        self._known.clear()

    async def _update(self, worker_id: str, **values: Any) -> None:
        self._known.clear()
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.update(workers).where(workers.c.worker_id == worker_id).values(**values)
            )

    async def present(self) -> list[Any]:
        """Workers heard of lately, with all their columns but the token."""
        since = self._clock() - PRESENT_WITHIN
        query = sa.select(workers).where(workers.c.seen_at > since).order_by(workers.c.registered_at)
        async with self._engine.connect() as connection:
            return list((await connection.execute(query)).all())


async def _note_seen(connection: AsyncConnection, seen: Mapping[str, datetime]) -> None:
    """When each of these workers was heard of."""
    await quarantine.lock(connection, workers.c.worker_id.in_(seen))
    await connection.execute(_SEEN, {"workers": list(seen), "times": list(seen.values())})


def _reported_at(
    row: Any, now: datetime, asking: Sequence[bytes], lately: Mapping[bytes, _Known]
) -> datetime:
    if row.token_digest in asking:
        return now
    known = lately.get(row.token_digest)
    return row.seen_at if known is None else known.reported_at


def _worker(row: Any) -> Worker:
    graphs = tuple(str(graph) for graph in row.capabilities.get("graphs", ()))
    return Worker(row.worker_id, row.name, graphs, row.state, row.self_test_at)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
