"""Blocks, transactions, unspent outputs and the wallet's secrets, in SQLite.

Every change of the node is one SQLite transaction, so that `kill -9` leaves a whole chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.common.database import Database
from sandbox.elementsd.blocks import Header
from sandbox.elementsd.confidential import Secret
from sandbox.elementsd.transactions import OutPoint, Output

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS block (
    hash TEXT PRIMARY KEY, height INTEGER NOT NULL, previous TEXT NOT NULL, merkle_root TEXT NOT NULL,
    time INTEGER NOT NULL, active INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS block_height ON block (height) WHERE active = 1;
CREATE TABLE IF NOT EXISTS block_tx (
    hash TEXT NOT NULL, n INTEGER NOT NULL, txid TEXT NOT NULL, PRIMARY KEY (hash, n)) STRICT;
CREATE INDEX IF NOT EXISTS block_tx_txid ON block_tx (txid);
CREATE TABLE IF NOT EXISTS tx (txid TEXT PRIMARY KEY, raw BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS utxo (
    txid TEXT NOT NULL, vout INTEGER NOT NULL, height INTEGER NOT NULL, coinbase INTEGER NOT NULL,
    script BLOB NOT NULL, asset BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (txid, vout)) STRICT;
CREATE INDEX IF NOT EXISTS utxo_script ON utxo (script);
CREATE TABLE IF NOT EXISTS mempool (
    txid TEXT PRIMARY KEY, raw BLOB NOT NULL, time INTEGER NOT NULL, height INTEGER NOT NULL,
    sequence INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS secret (
    txid TEXT NOT NULL, vout INTEGER NOT NULL, asset BLOB NOT NULL, value INTEGER NOT NULL,
    abf BLOB NOT NULL, vbf BLOB NOT NULL, key_index INTEGER NOT NULL, PRIMARY KEY (txid, vout)) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coin:
    """An unspent output of the chain."""

    outpoint: OutPoint
    height: int
    coinbase: bool
    output: Output


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSecret:
    """What one of the wallet's outputs holds, and which of its keys spends it."""

    outpoint: OutPoint
    secret: Secret
    key_index: int


class Store(Database):
    """The node's data on disk. One thread at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA)

    # --- meta ---

    def meta(self, key: str) -> bytes | None:
        """A remembered value."""
        row = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_meta(self, key: str, value: bytes) -> None:
        """Remember a value."""
        self.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # --- blocks ---

    def add_block(self, header: Header, transactions: Sequence[tuple[str, bytes]]) -> None:
        """Keep a block and make it part of the active chain."""
        row = (header.hash, header.height, header.previous, header.merkle_root, header.time)
        self.connection.execute("INSERT INTO block VALUES (?, ?, ?, ?, ?, 1)", row)
        self.connection.executemany("INSERT OR IGNORE INTO tx VALUES (?, ?)", transactions)
        numbered = [(header.hash, n, txid) for n, (txid, _) in enumerate(transactions)]
        self.connection.executemany("INSERT INTO block_tx VALUES (?, ?, ?)", numbered)

    def deactivate_block(self, block_hash: str) -> None:
        """The block is no longer part of the active chain; it stays readable by its hash."""
        self.connection.execute("UPDATE block SET active = 0 WHERE hash = ?", (block_hash,))

    def reactivate_block(self, block_hash: str) -> None:
        """The block is part of the active chain again."""
        self.connection.execute("UPDATE block SET active = 1 WHERE hash = ?", (block_hash,))

    def header(self, block_hash: str) -> tuple[Header, bool] | None:
        """A header, and whether it is in the active chain."""
        query = "SELECT previous, merkle_root, time, height, active FROM block WHERE hash = ?"
        row = self.connection.execute(query, (block_hash,)).fetchone()
        if row is None:
            return None
        return Header(previous=row[0], merkle_root=row[1], time=row[2], height=row[3]), bool(row[4])

    def hash_at(self, height: int) -> str | None:
        """The active block at a height."""
        query = "SELECT hash FROM block WHERE height = ? AND active = 1"
        row = self.connection.execute(query, (height,)).fetchone()
        return None if row is None else str(row[0])

    def tip(self) -> tuple[str, int] | None:
        """Hash and height of the newest active block."""
        query = "SELECT hash, height FROM block WHERE active = 1 ORDER BY height DESC LIMIT 1"
        row = self.connection.execute(query).fetchone()
        return None if row is None else (str(row[0]), int(row[1]))

    def block_txids(self, block_hash: str) -> list[str]:
        """Ids of a block's transactions, in order."""
        rows = self.connection.execute("SELECT txid FROM block_tx WHERE hash = ? ORDER BY n", (block_hash,))
        return [str(row[0]) for row in rows]

    def active_block_of(self, txid: str) -> str | None:
        """The active block that holds a transaction."""
        query = (
            "SELECT block.hash FROM block_tx JOIN block ON block.hash = block_tx.hash"
            " WHERE txid = ? AND active = 1"
        )
        row = self.connection.execute(query, (txid,)).fetchone()
        return None if row is None else str(row[0])

    def times_before(self, height: int) -> list[int]:
        """Times of the last 11 active blocks up to a height."""
        query = "SELECT time FROM block WHERE active = 1 AND height <= ? ORDER BY height DESC LIMIT 11"
        return [int(row[0]) for row in self.connection.execute(query, (height,))]

    def raw(self, txid: str) -> bytes | None:
        """A transaction that is or was in a block."""
        row = self.connection.execute("SELECT raw FROM tx WHERE txid = ?", (txid,)).fetchone()
        return None if row is None else bytes(row[0])

    # --- unspent outputs ---

    def coin(self, outpoint: OutPoint) -> Coin | None:
        """An unspent output of the active chain."""
        query = (
            "SELECT txid, vout, height, coinbase, script, asset, value FROM utxo WHERE txid = ? AND vout = ?"
        )
        row = self.connection.execute(query, (outpoint.txid, outpoint.vout)).fetchone()
        return None if row is None else _coin(row)

    def coins_of(self, script: bytes) -> list[Coin]:
        """Unspent outputs to a script."""
        query = "SELECT txid, vout, height, coinbase, script, asset, value FROM utxo WHERE script = ?"
        return [_coin(row) for row in self.connection.execute(query, (script,))]

    def count_coins(self) -> int:
        """How many unspent outputs there are."""
        return int(self.connection.execute("SELECT count(*) FROM utxo").fetchone()[0])

    def add_coin(self, coin: Coin) -> None:
        """An output becomes spendable."""
        row = (coin.outpoint.txid, coin.outpoint.vout, coin.height, int(coin.coinbase))
        output = (coin.output.script, coin.output.asset, coin.output.value)
        self.connection.execute("INSERT INTO utxo VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, *output))

    def remove_coin(self, outpoint: OutPoint) -> None:
        """An output is spent or its block disconnected."""
        self.connection.execute(
            "DELETE FROM utxo WHERE txid = ? AND vout = ?", (outpoint.txid, outpoint.vout)
        )

    # --- mempool ---

    def add_to_mempool(self, txid: str, raw: bytes, time: int, height: int, sequence: int) -> None:
        """Keep a transaction of the mempool."""
        self.connection.execute(
            "INSERT INTO mempool VALUES (?, ?, ?, ?, ?)", (txid, raw, time, height, sequence)
        )

    def remove_from_mempool(self, txid: str) -> None:
        """It is mined, replaced or evicted."""
        self.connection.execute("DELETE FROM mempool WHERE txid = ?", (txid,))

    def mempool(self) -> list[tuple[bytes, int, int]]:
        """Its transactions as (raw, time, height), in order of arrival."""
        return [
            (bytes(row[0]), int(row[1]), int(row[2]))
            for row in self.connection.execute("SELECT raw, time, height FROM mempool ORDER BY sequence")
        ]

    # --- the wallet's secrets ---

    def add_secret(self, own: OwnSecret) -> None:
        """Remember what one of the wallet's outputs holds."""
        secret = own.secret
        row = (own.outpoint.txid, own.outpoint.vout, secret.asset, secret.value, secret.abf, secret.vbf)
        self.connection.execute(
            "INSERT OR REPLACE INTO secret VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, own.key_index)
        )

    def secrets(self, asset: bytes | None = None) -> list[OwnSecret]:
        """The wallet's outputs ever made (spent ones too), by asset."""
        query = "SELECT txid, vout, asset, value, abf, vbf, key_index FROM secret"
        rows = (
            self.connection.execute(f"{query} WHERE asset = ?", (asset,))
            if asset
            else self.connection.execute(query)
        )
        return [_own_secret(row) for row in rows]

    def secret(self, outpoint: OutPoint) -> OwnSecret | None:
        """What one output holds, if it is the wallet's."""
        query = "SELECT txid, vout, asset, value, abf, vbf, key_index FROM secret WHERE txid = ? AND vout = ?"
        row = self.connection.execute(query, (outpoint.txid, outpoint.vout)).fetchone()
        return None if row is None else _own_secret(row)


def _coin(row: Sequence[Any]) -> Coin:
    txid, vout, height, coinbase, script, asset, value = row
    output = Output(script=script, asset=asset, value=value, nonce=b"", rangeproof=b"", surjectionproof=b"")
    return Coin(outpoint=OutPoint(txid, vout), height=height, coinbase=bool(coinbase), output=output)


def _own_secret(row: Sequence[Any]) -> OwnSecret:
    txid, vout, asset, value, abf, vbf, key_index = row
    secret = Secret(asset=asset, value=value, abf=abf, vbf=vbf)
    return OwnSecret(outpoint=OutPoint(txid, vout), secret=secret, key_index=key_index)
