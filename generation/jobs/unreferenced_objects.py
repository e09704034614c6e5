"""Objects that nothing refers to: what a crash, a late upload or a request sent again has left in storage.

Everything that is stored is deleted by whoever knows that it is not wanted any more. This finds what they
all missed, once a day: it reads what is there and asks the database which of it is known. Nothing young is
touched, since a sketch is stored before its job is recorded and an upload before it is reported.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final, TypeAlias

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from generation.images.object_store import ObjectStore
from generation.store.tables import job_funding, job_inputs, job_queue, job_results
from ledger.clock import Clock

YOUNG: Final = timedelta(days=1)
"""Longer than any job and its links can live."""
_JOB: Final = re.compile(r"job_[0-9A-Za-z]+")

_Known: TypeAlias = Callable[[AsyncConnection, Sequence[str]], Awaitable[set[str]]]
"""Which of these keys something refers to."""


class Unreferenced(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the storage found, and deleted unless it was only a look."""

    seen: int
    unreferenced: int


class UnreferencedObjects:
    """Deletes them. Safe to run in many processes."""

    def __init__(self, *, engine: AsyncEngine, store: ObjectStore, clock: Clock) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._log = structlog.get_logger("generation.unreferenced_objects")

    async def sweep(self, *, delete: bool = True) -> Unreferenced:
        """Look at all that is stored. Raises what storage and database raise: the next look finds the rest."""
        seen = found = 0
        for folder, known in _FOLDERS.items():
            async for page in self._store.listed(folder):
                old = [listed.key for listed in page if listed.written_at < self._clock() - YOUNG]
                async with self._engine.connect() as connection:
                    unwanted = set(old) - await known(connection, old) if old else set()
                for key in sorted(unwanted) if delete else ():
                    await self._store.delete(key)
                seen += len(page)
                found += len(unwanted)
        result = Unreferenced(seen=seen, unreferenced=found)
        self._log.info("unreferenced_objects", **msgspec.structs.asdict(result), deleted=delete)
        return result


async def _known_sketches(connection: AsyncConnection, keys: Sequence[str]) -> set[str]:
    query = sa.select(job_inputs.c.sketch_key).where(job_inputs.c.sketch_key.in_(keys))
    return set((await connection.execute(query)).scalars())


async def _known_uploads(connection: AsyncConnection, keys: Sequence[str]) -> set[str]:
    alive = await _alive(connection, keys)
    return {key for key in keys if _job_of(key) in alive}


async def _known_images(connection: AsyncConnection, keys: Sequence[str]) -> set[str]:
    query = sa.select(job_results.c.image_key, job_results.c.thumbnail_key).where(
        job_results.c.job_id.in_({_job_of(key) for key in keys})
    )
    shown = {key for row in await connection.execute(query) for key in row}
    alive = await _alive(connection, keys)
    return shown | {key for key in keys if _job_of(key) in alive}


async def _alive(connection: AsyncConnection, keys: Sequence[str]) -> set[str]:
    """Jobs of these keys that have not ended, or whose payment is still being settled."""
    jobs = {_job_of(key) for key in keys}
    query = sa.union(
        *(sa.select(table.c.job_id).where(table.c.job_id.in_(jobs)) for table in (job_queue, job_funding))
    )
    return set((await connection.execute(query)).scalars())


def _job_of(key: str) -> str:
    """The job in a key such as `uploads/<job>/<epoch>` or `images/<job>-<epoch>.png`; empty if there is none."""
    found = _JOB.search(key)
    return found[0] if found else ""


_FOLDERS: Final[Mapping[str, _Known]] = {
    "sketches": _known_sketches,
    "uploads": _known_uploads,
    "images": _known_images,
}
"""All that is stored, and who says what of it is known."""
