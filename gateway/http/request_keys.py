"""Idempotency-Keys of requests whose answer the log keeps: no row of their own, and one question before.

A client's key becomes a command key of the log, `<principal>:<keyed digest of route and key>`. What was accepted under it
is its outcome for ever; a refusal leaves nothing, so the same request may be sent again, and runs at most once. What a
guest sent is found for the person whom the guest became: a merged guest can be asked for nothing more, so nothing
comes after it is looked for.

Keys that were used before the log kept them are found in the table of `gateway.http.idempotency`, and keep the command
key that they got there.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from gateway.http.idempotency import conflict, digest_of
from ledger.identifiers import CommandKey
from ledger.log.digest import body_digest
from ledger.ownership import ACCOUNTS_MAX

_FIND = b"""
WITH RECURSIVE followed AS (
    SELECT %(principal)s::text AS account_id
    UNION SELECT m.account_id FROM merged_accounts m JOIN followed f ON m.into_account = f.account_id
), theirs AS (SELECT account_id FROM followed LIMIT %(most)s),
found AS (
    SELECT t.account_id, o.key, o.body_digest, o.refusal, o.detail, NULL AS resource_id, NULL::bytea AS sent_digest
    FROM theirs t JOIN log_outcomes o ON o.key = t.account_id || ':' || %(name)s
    UNION ALL
    SELECT k.principal, k.resource_id || ':' || k.attempt, NULL, o.refusal, o.detail, k.resource_id, k.body_digest
    FROM theirs t JOIN idempotency_keys k ON k.principal = t.account_id AND k.route = %(route)s AND k.key = %(key)s
    LEFT JOIN log_outcomes o ON o.key = k.resource_id || ':' || k.attempt
)
SELECT * FROM found ORDER BY account_id = %(principal)s DESC, key LIMIT 1
"""


class SentRequest(NamedTuple):
    """What a request is known by, and what the log says of it."""

    command_key: CommandKey
    digest: str
    """Keyed digest of what was sent; empty if the command is one that had its key before."""
    resource_id: str | None = None
    """The id that the command has already."""
    outcome: Mapping[str, Any] | None = None
    """The first answer, if it was accepted before."""


class RequestKeys:
    """Finds what clients have sent before."""

    def __init__(self, pool: AsyncConnectionPool[Any], secret: bytes) -> None:
        self._pool = pool
        self._secret = secret

    async def find(self, *, principal: str, route: str, kind: str, key: str, body: bytes) -> SentRequest:
        """The request that this key stands for. `kind` is the first word of its command's body in the log.

        Raises `Problem` 400 for a malformed key and 409 `idempotency_conflict` if the body differs.
        """
        sent = digest_of(key, body)
        digest, name = self._keyed(sent), self._keyed(f"{route}\0{key}".encode())
        known = {"principal": principal, "name": name, "route": route, "key": key, "most": ACCOUNTS_MAX}
        async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_FIND, known, prepare=True)
            row = await cursor.fetchone()
        if row is None:
            return SentRequest(CommandKey(f"{principal}:{name}"), digest)
        recorded = row["sent_digest"], row["body_digest"]
        if recorded not in ((sent, None), (None, body_digest([kind, row["key"], digest]))):
            raise conflict()
        outcome = None
        if row["detail"] is not None and row["refusal"] is None:
            outcome = msgspec.json.decode(row["detail"])
        elif row["refusal"] is not None:  # of a command from before: it is a new one now
            return SentRequest(CommandKey(f"{principal}:{name}"), digest)
        return SentRequest(
            CommandKey(row["key"]), "" if row["resource_id"] else digest, row["resource_id"], outcome
        )

    def _keyed(self, value: bytes) -> str:
        """The log keeps it for ever: without the secret it says nothing."""
        return hmac.new(self._secret, value, hashlib.sha256).hexdigest()[:32]
