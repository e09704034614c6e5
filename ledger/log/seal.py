"""Sealed heads: a signed note, kept outside the database, of where the log stood.

A chain of hashes shows every change inside it but cannot notice that its own tail is missing,
or that somebody computed all of it anew. A seal can. Signatures are Ed25519 (RFC 8032).
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.clock import Clock
from ledger.errors import LedgerError
from ledger.log.findings import Finding, Findings

_PURPOSE = "credit log head v1"
_encode = msgspec.json.Encoder(order="deterministic").encode


class SealRejected(LedgerError):
    """This seal is not one that we can trust."""

    code = "seal_rejected"
    message = "The seal does not match the log."


class LogEmpty(LedgerError):
    """There is nothing to seal yet."""

    code = "log_empty"
    message = "The log has no events yet."


class Seal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The end of the log at a time, signed. Binary values are hexadecimal."""

    batch: int
    position: int
    hash: str
    recorded_at: datetime
    sealed_at: datetime
    public_key: str
    signature: str

    def message(self) -> bytes:
        """What is signed: everything but the signature, as deterministic JSON."""
        return _encode([_PURPOSE, msgspec.structs.replace(self, signature="")])


def load_or_make_key(path: Path) -> Ed25519PrivateKey:
    """The signing key in a PEM file (PKCS 8), made, readable by its owner only, if there is none.

    Raises `SealRejected` if the file holds another kind of key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        return _make_key(path)
    except (ValueError, TypeError) as error:
        raise SealRejected(f"{path} is not an unencrypted PEM private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SealRejected(f"{path} is not an Ed25519 key")
    return key


def _make_key(path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return key


def seal_head(connection: psycopg.Connection[Any], key: Ed25519PrivateKey, clock: Clock) -> Seal:
    """Sign where the log ends now. Raises `LogEmpty`."""
    row = connection.execute(
        "SELECT batch, last_position, hash, recorded_at FROM log_batches ORDER BY batch DESC LIMIT 1"
    ).fetchone()
    if row is None:
        raise LogEmpty
    unsigned = Seal(
        batch=row[0],
        position=row[1],
        hash=bytes(row[2]).hex(),
        recorded_at=row[3],
        sealed_at=clock(),
        public_key=key.public_key().public_bytes_raw().hex(),
        signature="",
    )
    return msgspec.structs.replace(unsigned, signature=key.sign(unsigned.message()).hex())


def read_seal(data: bytes, public_key: str | None = None) -> Seal:
    """A seal whose signature holds, made with `public_key` (hexadecimal) if one is given.

    Raises `SealRejected`. Without a key only the seal's own word says who signed it.
    """
    try:
        seal = msgspec.json.decode(data, type=Seal)
        signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(seal.public_key))
        signer.verify(bytes.fromhex(seal.signature), seal.message())
    except (ValueError, msgspec.DecodeError) as error:
        raise SealRejected("the file is not a seal") from error
    except InvalidSignature as error:
        raise SealRejected("the seal's signature does not hold") from error
    if public_key is not None and seal.public_key != public_key.lower():
        raise SealRejected("the seal was made with another key")
    return seal


def check_seal(connection: psycopg.Connection[Any], seal: Seal, findings: Findings) -> None:
    """Whether the log still contains what was sealed."""
    query = "SELECT last_position, hash FROM log_batches WHERE batch = %s"
    row = connection.execute(query, (seal.batch,)).fetchone()
    if row is None:
        end = connection.execute(
            "SELECT coalesce(max(batch), 0), coalesce(max(last_position), 0) FROM log_batches"
        )
        batch, position = end.fetchone() or (0, 0)
        why = (
            f"the log ends at batch {batch} (position {position}), but batch {seal.batch} (position "
            f"{seal.position}) was sealed on {seal.sealed_at:%Y-%m-%d %H:%M:%S} UTC: the tail was cut off"
        )
        missing = position + 1 if position < seal.position else None
        findings.add(Finding(why=why, part="seal", position=missing, batch=batch + 1))
    elif bytes(row[1]).hex() != seal.hash or row[0] != seal.position:
        why = f"batch {seal.batch} is not the one that was sealed: the log was written anew up to there"
        findings.add(Finding(why=why, part="seal", position=1, until=seal.position, batch=seal.batch))
