"""Client's Idempotency-Keys: scoped to principal and route, mapped once to an id of ours.

A request that a guest sent, sent again by the person whom the guest became, is the same request.

The answer itself is kept by the log under our own command key, `<id>:<attempt>`. An attempt that
was refused with 401, 402, 429 or a fault does not finish the key: the next request with the same
body is a new attempt at the same thing, and it runs at most once.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, NamedTuple

import sqlalchemy as sa
from fastapi import Header
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.database.tables import idempotency_keys as keys
from gateway.http.problems import Problem
from ledger.clock import Clock
from ledger.identifiers import CommandKey
from ledger.ownership import accounts_of

_SHAPE = re.compile(r"[\x21-\x7e]{1,255}")

IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=255,
        description="Printable ASCII without spaces. See Sending again.",
        json_schema_extra={"pattern": "^[!-~]{1,255}$"},
    ),
]
"""The header, as an argument of a route."""


class Mapped(NamedTuple):
    """What a client's key stands for."""

    resource_id: str
    attempt: int
    fresh: bool
    """False if the key was used before."""

    @property
    def command_key(self) -> CommandKey:
        """Our own, time-ordered key of this attempt."""
        return CommandKey(f"{self.resource_id}:{self.attempt}")


class IdempotencyKeys:
    """The map from a client's key to an id, in PostgreSQL."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def map(self, *, principal: str, route: str, key: str | None, body: bytes, new_id: str) -> Mapped:
        """The id that this key stands for: `new_id`, or the first one it was given.

        Without a key each request stands for itself. Raises `Problem` 400 for a malformed key and
        409 `idempotency_conflict` if the body differs.
        """
        if key is None:
            return Mapped(new_id, 0, fresh=True)
        digest = digest_of(key, body)
        put = (
            insert(keys)
            .values(
                principal=principal,
                route=route,
                key=key,
                body_digest=digest,
                resource_id=new_id,
                created_at=self._clock(),
            )
            .on_conflict_do_nothing()
            .returning(keys.c.resource_id)
        )
        async with self._engine.begin() as connection:
            known = await self._earlier(connection, principal, route, key)
            if known is None:
                if (await connection.execute(put)).one_or_none() is not None:
                    return Mapped(new_id, 0, fresh=True)
                mine = keys.c.principal == principal, keys.c.route == route, keys.c.key == key
                known = (await connection.execute(sa.select(keys).where(*mine))).one()
        if known.body_digest != digest:
            raise conflict()
        return Mapped(known.resource_id, known.attempt, fresh=False)

    @staticmethod
    async def _earlier(
        connection: AsyncConnection, principal: str, route: str, key: str
    ) -> sa.Row[Any] | None:
        """The key's row: the principal's own, else that of a guest who was merged into it, the oldest."""
        whose = keys.c.principal.in_(await accounts_of(connection, principal))
        query = sa.select(keys).where(whose, keys.c.route == route, keys.c.key == key)
        own_first = query.order_by((keys.c.principal == principal).desc(), keys.c.created_at)
        return (await connection.execute(own_first.limit(1))).first()


def digest_of(key: str, body: bytes) -> bytes:
    """Of what was sent. Raises `Problem` 400 for a malformed key."""
    if not _SHAPE.fullmatch(key):
        raise Problem("bad_idempotency_key", "An Idempotency-Key has 1 to 255 printable ASCII characters.")
    return hashlib.sha256(body).digest()


def conflict() -> Problem:
    """The key was used for something else."""
    return Problem("idempotency_conflict", "This Idempotency-Key was used with another body.")
