"""What the node remembers, in SQLite: it survives `kill -9` at any moment.

Invoices and outgoing payments are kept as their own protobuf messages, beside the columns that
are searched. All calls are short and run on the event loop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lndgrpc.compiled import lightning_pb2 as ln

from sandbox.common.database import SettingsDatabase

OPEN, SETTLED, CANCELED, ACCEPTED = 0, 1, 2, 3

_SCHEMA = """
CREATE TABLE IF NOT EXISTS root_keys (id TEXT PRIMARY KEY, key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS invoices (
    add_index INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE,
    hold INTEGER NOT NULL,
    preimage BLOB NOT NULL,
    state INTEGER NOT NULL,
    settle_index INTEGER NOT NULL DEFAULT 0,
    expires_at INTEGER NOT NULL,
    message BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS invoices_pending ON invoices (expires_at) WHERE state IN (0, 3);
CREATE INDEX IF NOT EXISTS invoices_settled ON invoices (settle_index) WHERE settle_index > 0;
CREATE TABLE IF NOT EXISTS payments (hash BLOB PRIMARY KEY, status INTEGER NOT NULL, message BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS wallet_invoices (
    hash BLOB PRIMARY KEY, preimage BLOB NOT NULL, bolt11 TEXT NOT NULL, amount_msat INTEGER NOT NULL,
    received_msat INTEGER NOT NULL DEFAULT 0
);
"""


@dataclass(slots=True)
class Stored:
    """One invoice: LND's message, and what the message does not hold."""

    message: Any
    hold: bool
    preimage: bytes
    """Known from the start for ordinary invoices, empty for hold invoices until they settle."""
    expires_at: int

    @property
    def hash(self) -> bytes:
        """The payment hash."""
        return bytes(self.message.r_hash)


class Store(SettingsDatabase):
    """The node's database."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA)

    def root_key(self, key_id: str) -> bytes | None:
        """A macaroon root key."""
        row = self.connection.execute("SELECT key FROM root_keys WHERE id = ?", (key_id,)).fetchone()
        return bytes(row[0]) if row else None

    def set_root_key(self, key_id: str, key: bytes) -> None:
        """Set a macaroon root key; macaroons baked under an older one stop working."""
        self.connection.execute("INSERT OR REPLACE INTO root_keys VALUES (?, ?)", (key_id, key))

    # --- invoices ------------------------------------------------------------------------------

    def insert(self, invoice: Stored) -> bool:
        """Add an invoice and give it its add index; False if the payment hash is already there."""
        try:
            cursor = self.connection.execute(
                "INSERT INTO invoices (hash, hold, preimage, state, expires_at, message) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    invoice.hash,
                    invoice.hold,
                    invoice.preimage,
                    invoice.message.state,
                    invoice.expires_at,
                    b"",
                ),
            )
        except sqlite3.IntegrityError:
            return False
        invoice.message.add_index = cursor.lastrowid
        self.update(invoice)
        return True

    def update(self, invoice: Stored) -> None:
        """Write the invoice's present message."""
        message = invoice.message
        self.connection.execute(
            "UPDATE invoices SET state = ?, settle_index = ?, preimage = ?, message = ? WHERE add_index = ?",
            (
                *(message.state, message.settle_index, invoice.preimage),
                *(message.SerializeToString(), message.add_index),
            ),
        )

    def invoice(self, payment_hash: bytes) -> Stored | None:
        """The invoice with this payment hash."""
        return next(self._select("WHERE hash = ?", payment_hash), None)

    def by_payment_addr(self, payment_addr: bytes) -> Stored | None:
        """The invoice with this payment secret (a scan: only for explicit look-ups)."""
        return next((s for s in self._select("") if s.message.payment_addr == payment_addr), None)

    def added_after(self, add_index: int) -> list[Stored]:
        """Invoices with a larger add index, oldest first, as a subscription tells of them: without canceled ones."""
        return list(
            self._select(f"WHERE add_index > ? AND state != {CANCELED} ORDER BY add_index", _small(add_index))
        )

    def settled_after(self, settle_index: int) -> list[Stored]:
        """Invoices with a larger settle index, oldest first."""
        return list(self._select("WHERE settle_index > ? ORDER BY settle_index", _small(settle_index)))

    def page(self, offset: int, limit: int, *, backwards: bool, pending: bool) -> list[Stored]:
        """A page in order of add index, after (or, backwards, before) `offset`."""
        where = "add_index < ?" if backwards and offset else "add_index > ?"
        state = f" AND state IN ({OPEN}, {ACCEPTED})" if pending else ""
        direction = "DESC" if backwards else "ASC"
        rows = list(
            self._select(
                f"WHERE {where}{state} ORDER BY add_index {direction} LIMIT ?", _small(offset), limit
            )
        )
        return rows[::-1] if backwards else rows

    def open_due(self, now: int) -> list[Stored]:
        """Invoices in state OPEN whose time to pay is over."""
        return list(self._select(f"WHERE state = {OPEN} AND expires_at <= ?", now))

    def pending(self) -> list[Stored]:
        """Invoices that are OPEN or ACCEPTED."""
        return list(self._select(f"WHERE state IN ({OPEN}, {ACCEPTED})"))

    def next_expiry(self) -> int | None:
        """When the next OPEN invoice expires, in Unix seconds."""
        row = self.connection.execute(
            "SELECT min(expires_at) FROM invoices WHERE state = ?", (OPEN,)
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def _select(self, rest: str, *arguments: Any) -> Iterator[Stored]:
        # `rest` is always one of the literals above; values are bound.
        sql = f"SELECT message, hold, preimage, expires_at FROM invoices {rest}"
        for message, hold, preimage, expires_at in self.connection.execute(sql, arguments):
            yield Stored(ln.Invoice.FromString(message), bool(hold), bytes(preimage), int(expires_at))

    # --- payments we sent, and the sandbox wallet that receives them ---------------------------

    def payment(self, payment_hash: bytes) -> Any | None:
        """An outgoing payment (`lnrpc.Payment`)."""
        row = self.connection.execute(
            "SELECT message FROM payments WHERE hash = ?", (payment_hash,)
        ).fetchone()
        return ln.Payment.FromString(row[0]) if row else None

    def put_payment(self, payment_hash: bytes, payment: Any) -> None:
        """Remember an outgoing payment."""
        self.connection.execute(
            "INSERT OR REPLACE INTO payments VALUES (?, ?, ?)",
            (payment_hash, payment.status, payment.SerializeToString()),
        )

    def add_wallet_invoice(self, payment_hash: bytes, preimage: bytes, bolt11: str, amount_msat: int) -> None:
        """Remember an invoice that the sandbox wallet made."""
        self.connection.execute(
            "INSERT INTO wallet_invoices (hash, preimage, bolt11, amount_msat) VALUES (?, ?, ?, ?)",
            (payment_hash, preimage, bolt11, amount_msat),
        )

    def wallet_invoice(self, payment_hash: bytes) -> tuple[bytes, int, int] | None:
        """(preimage, amount_msat, received_msat) of an invoice of the sandbox wallet."""
        row = self.connection.execute(
            "SELECT preimage, amount_msat, received_msat FROM wallet_invoices WHERE hash = ?", (payment_hash,)
        ).fetchone()
        return (bytes(row[0]), int(row[1]), int(row[2])) if row else None

    def wallet_received(self, payment_hash: bytes, amount_msat: int) -> None:
        """The sandbox wallet was paid."""
        self.connection.execute(
            "UPDATE wallet_invoices SET received_msat = ? WHERE hash = ?", (amount_msat, payment_hash)
        )


def _small(index: int) -> int:
    """LND's indexes have 64 bits without a sign, SQLite's with one."""
    return min(index, 2**63 - 1)
