"""Everything the stand-in remembers, in one SQLite file that survives `kill -9`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox.common.database import SettingsDatabase
from sandbox.stripe.errors import missing

Json = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    created INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_by_kind ON objects (kind, seq);
CREATE INDEX IF NOT EXISTS objects_by_time ON objects (kind, created);
CREATE INDEX IF NOT EXISTS objects_of_invoice ON objects (kind, json_extract(body, '$.invoice'));
CREATE INDEX IF NOT EXISTS objects_of_charge ON objects (kind, json_extract(body, '$.charge'));
CREATE INDEX IF NOT EXISTS objects_of_intent ON objects (kind, json_extract(body, '$.payment_intent'));
CREATE INDEX IF NOT EXISTS objects_of_subscription
    ON objects (kind, json_extract(body, '$.parent.subscription_details.subscription'));
CREATE INDEX IF NOT EXISTS objects_of_metered ON objects (kind, json_extract(body, '$._sandbox.customer'));
CREATE INDEX IF NOT EXISTS objects_by_identifier ON objects (kind, json_extract(body, '$.identifier'));
CREATE INDEX IF NOT EXISTS objects_by_status ON objects (kind, json_extract(body, '$.status'));
CREATE TABLE IF NOT EXISTS idempotency (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL,
    body TEXT NOT NULL, created INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, endpoint TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, due_ms INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'pending', last_status INTEGER);
CREATE INDEX IF NOT EXISTS deliveries_pending ON deliveries (state, due_ms);
"""


class Store(SettingsDatabase):
    """Objects by id and kind, newest first, plus the tables of idempotency and deliveries."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA)

    def insert(self, value: Json) -> Json:
        """Add a new object; its kind is its `object` field."""
        row = (value["id"], value["object"], value.get("created", 0), json.dumps(value))
        self.connection.execute("INSERT INTO objects (id, kind, created, body) VALUES (?, ?, ?, ?)", row)
        return value

    def save(self, value: Json) -> Json:
        """Replace an object that exists."""
        self.connection.execute("UPDATE objects SET body = ? WHERE id = ?", (json.dumps(value), value["id"]))
        return value

    def delete(self, identifier: str) -> None:
        """Remove an object."""
        self.connection.execute("DELETE FROM objects WHERE id = ?", (identifier,))

    def forget(self, *, but: str) -> None:
        """Remove all objects, messages and remembered answers, except objects of one kind."""
        self.connection.execute("DELETE FROM objects WHERE kind != ?", (but,))
        self.connection.execute("DELETE FROM deliveries")
        self.connection.execute("DELETE FROM idempotency")

    def find(self, kind: str, identifier: str) -> Json | None:
        """One object, or None."""
        query = "SELECT body FROM objects WHERE id = ? AND kind = ?"
        row = self.connection.execute(query, (identifier, kind)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def any(self, identifier: str) -> Json | None:
        """One object of whatever kind, or None."""
        row = self.connection.execute("SELECT body FROM objects WHERE id = ?", (identifier,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def get(self, kind: str, identifier: str, param: str = "id") -> Json:
        """One object. Raises the `resource_missing` fault."""
        value = self.find(kind, identifier)
        if value is None:
            raise missing(kind, identifier, param)
        return value

    def where(self, kind: str, **equal: Any) -> list[Json]:
        """Every object of a kind whose fields equal these, newest first."""
        return self.page(kind, equal, limit=10_000)[0]

    def page(
        self,
        kind: str,
        equal: Mapping[str, Any],
        *,
        limit: int,
        starting_after: str | None = None,
        ending_before: str | None = None,
        created: Mapping[str, int] | None = None,
        types: Sequence[str] = (),
    ) -> tuple[list[Json], bool]:
        """One page, newest first, and whether there is more in the direction of travel.

        As at Stripe `ending_before` gives the page that lies directly before the cursor,
        not the newest one, and is itself sorted newest first.
        """
        clauses, values = ["kind = ?"], [kind]
        for name, wanted in equal.items():
            # Written out: an index over such a field is found by its words. The names are ours.
            clauses.append(f"json_extract(body, '$.{name}') = ?")
            values.append(wanted)
        for operator, bound in (created or {}).items():
            clauses.append(f"created {_COMPARISONS[operator]} ?")
            values.append(bound)  # type: ignore[arg-type]
        if types:
            clauses.append(f"json_extract(body, '$.type') IN ({','.join('?' * len(types))})")
            values += types
        backwards = ending_before is not None
        cursor = ending_before or starting_after
        if cursor is not None:
            param = "ending_before" if backwards else "starting_after"
            clauses.append("seq > ?" if backwards else "seq < ?")
            values.append(self._sequence(kind, cursor, param))  # type: ignore[arg-type]
        order = "ASC" if backwards else "DESC"
        query = f"SELECT body FROM objects WHERE {' AND '.join(clauses)} ORDER BY seq {order} LIMIT ?"
        rows = self.connection.execute(query, (*values, limit + 1)).fetchall()
        found = [dict(json.loads(row[0])) for row in rows[:limit]]
        return (found[::-1] if backwards else found), len(rows) > limit

    def overdue(self, kind: str, status: str, field: str, now: int) -> list[Json]:
        """Objects of a kind and status whose time in `field` has come, oldest first."""
        query = (
            "SELECT body FROM objects WHERE kind = ? AND json_extract(body, '$.status') = ? "
            f"AND json_extract(body, '$.{field}') <= ? ORDER BY seq LIMIT 1000"
        )
        rows = self.connection.execute(query, (kind, status, now)).fetchall()
        return [dict(json.loads(row[0])) for row in rows]

    def _sequence(self, kind: str, identifier: str, param: str) -> int:
        query = "SELECT seq FROM objects WHERE id = ? AND kind = ?"
        row = self.connection.execute(query, (identifier, kind)).fetchone()
        if row is None:
            raise missing(kind, identifier, param)
        return int(row[0])


_COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
