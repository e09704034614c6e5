"""The files that let us talk to the node: certificate, macaroon, and our preimage key.

Protocol source: macaroon v2 binary format; LND's identifier is byte 3 and `lnrpc.MacaroonId`,
which names its permissions in the clear. The identifier is under the node's signature, so what
it says cannot be less than what the macaroon allows.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import structlog
from lndgrpc.compiled import lightning_pb2 as ln

from ledger.identifiers import PaymentId
from rails.contract import RailUnavailable
from rails.lightning.errors import CredentialRefused

INVOICE_METHODS = frozenset(
    {
        "/lnrpc.Lightning/AddInvoice",
        "/lnrpc.Lightning/LookupInvoice",
        "/lnrpc.Lightning/ListInvoices",
        "/lnrpc.Lightning/SubscribeInvoices",
        "/lnrpc.Lightning/GetInfo",
        "/invoicesrpc.Invoices/AddHoldInvoice",
        "/invoicesrpc.Invoices/SettleInvoice",
        "/invoicesrpc.Invoices/CancelInvoice",
        "/invoicesrpc.Invoices/LookupInvoiceV2",
        "/invoicesrpc.Invoices/SubscribeSingleInvoice",
    }
)
REFUND_METHODS = frozenset(
    {
        "/routerrpc.Router/SendPaymentV2",
        "/routerrpc.Router/TrackPaymentV2",
        "/routerrpc.Router/EstimateRouteFee",
        "/lnrpc.Lightning/DecodePayReq",
    }
)
CHANNEL_METHODS = frozenset({"/lnrpc.Lightning/ListChannels"})
_HARMLESS = {("info", "read"), ("invoices", "read"), ("invoices", "write")}
KEY_BYTES = 32
_PAYMENT_ID = re.compile(r"pay_[0-9a-hjkmnp-tv-z]{26}\b")


class Permission(NamedTuple):
    """What a macaroon allows: an entity and an action, such as `uri` and a method."""

    entity: str
    action: str


class Version(NamedTuple):
    """Tells whether a file has been replaced."""

    inode: int
    modified_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class CredentialFiles:
    """Where certificate and macaroon are; both may be replaced while we run."""

    certificate: Path
    macaroon: Path
    allowed: frozenset[str] = frozenset()
    """The methods that the macaroon may allow."""
    strict: bool = False
    """Whether a macaroon that allows more, or that is none, is not used at all."""

    def versions(self) -> tuple[Version, Version]:
        """Changes when either file does. Raises `RailUnavailable` if one is missing."""
        return _version(self.certificate), _version(self.macaroon)

    def read_certificate(self) -> bytes:
        """The node's certificate as PEM. Raises `RailUnavailable`."""
        return _read(self.certificate)

    def read_macaroon(self) -> bytes:
        """The macaroon as LND writes it. Raises `RailUnavailable`, and `CredentialRefused` if it may not be used.

        It is looked at whenever it is read: another one may have been put in its place while we run.
        """
        macaroon = _read(self.macaroon)
        try:
            beyond = too_broad(macaroon, self.allowed)
        except ValueError:
            beyond = []  # the node says what is wrong with it
            if self.strict:
                raise CredentialRefused(f"{self.macaroon.name} is not a macaroon of LND") from None
        if beyond and self.strict:
            raise CredentialRefused(
                f"{self.macaroon.name} allows more than it should ({', '.join(beyond[:5])} …)"
            )
        if beyond and self.allowed:
            structlog.get_logger().warning("lightning_macaroon_too_broad", file=self.macaroon.name)
        return macaroon


def permissions(macaroon: bytes) -> frozenset[Permission]:
    """What a macaroon allows, read from its identifier. Raises `ValueError` if it is not LND's."""
    try:
        identifier = _identifier(macaroon)
        if identifier[0] != 3:
            raise ValueError("unknown identifier version")
        wire = ln.MacaroonId.FromString(identifier[1:])
    except Exception as error:  # protobuf's own errors share no public base
        raise ValueError("the file is not a macaroon of LND") from error
    return frozenset(Permission(op.entity, action) for op in wire.ops for action in op.actions)


def too_broad(macaroon: bytes, methods: frozenset[str]) -> list[str]:
    """What a macaroon allows beyond these methods, for a sentence to its operator."""
    beyond = [
        f"{permission.entity}:{permission.action}"
        for permission in permissions(macaroon)
        if permission not in _HARMLESS and not (permission.entity == "uri" and permission.action in methods)
    ]
    return sorted(beyond)


class Preimages:
    """Preimages that can be computed again after a crash, by us alone.

    A preimage is HMAC-SHA256 of the payment id under a secret key. The payment id stands in the
    invoice's memo, so the node itself can tell which preimage a held invoice needs. Payment ids
    hold 80 random bits and are never reused, not even after a restore from an old backup.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError(f"the preimage key must have at least {KEY_BYTES} bytes")
        self._key = key

    def __repr__(self) -> str:
        """Says nothing of the key."""
        return "Preimages(…)"

    def of(self, payment_id: PaymentId) -> bytes:
        """The preimage of one payment. A secret until the payment is settled."""
        return hmac.new(self._key, b"llamasketch/lightning/1/" + payment_id.encode(), hashlib.sha256).digest()

    def hash_of(self, payment_id: PaymentId) -> bytes:
        """The payment hash of one payment: public."""
        return hashlib.sha256(self.of(payment_id)).digest()

    @staticmethod
    def may_be_ours(memo: str) -> bool:
        """Whether a memo names a payment as ours do. On a shared node others have invoices, too."""
        return _PAYMENT_ID.search(memo) is not None

    def found_in(self, memo: str, payment_hash: str) -> bytes | None:
        """The preimage for an invoice of ours, by the payment id in its memo."""
        for payment_id in _PAYMENT_ID.findall(memo):
            preimage = self.of(PaymentId(payment_id))
            if hashlib.sha256(preimage).hexdigest() == payment_hash:
                return preimage
        return None


def read_preimage_key(path: Path, *, create: bool) -> bytes:
    """The key from its file (hex). Raises `ValueError` with one sentence.

    Losing it loses the held invoices of that moment (they go back to their payers), no settled money.
    """
    if create and not path.exists():
        try:
            _create(path)
        except OSError:
            raise ValueError(
                f"LIGHTNING_PREIMAGE_KEY: {path} cannot be made; name a file in a folder that may be written"
            ) from None
    try:
        return bytes.fromhex(path.read_text().strip())
    except OSError:
        raise ValueError(f"LIGHTNING_PREIMAGE_KEY: {path} cannot be read") from None
    except ValueError:
        raise ValueError(f"LIGHTNING_PREIMAGE_KEY: {path} does not hold a key in hex") from None


def _create(path: Path) -> None:
    """Two processes may start at once: the first to link its file wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    uow = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(uow, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(KEY_BYTES))
    try:
        os.link(uow, path)
    except FileExistsError:
        pass
    finally:
        uow.unlink()


def _version(path: Path) -> Version:
    try:
        status = path.stat()
    except OSError:
        raise RailUnavailable(f"{path.name} of the Lightning node cannot be read") from None
    return Version(status.st_ino, status.st_mtime_ns, status.st_size)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise RailUnavailable(f"{path.name} of the Lightning node cannot be read") from None


def _identifier(data: bytes) -> bytes:
    if data[0] != 2:
        raise ValueError("not a version 2 macaroon")
    at = 1
    while True:
        kind, (length, at) = data[at], _varint(data, at + 1)
        value = data[at : at + length]
        if len(value) != length or kind not in (1, 2):
            raise ValueError("a field is cut short or unknown")
        if kind == 2:
            return value
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a length is too long")
