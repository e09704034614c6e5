"""Macaroons as LND bakes and checks them: v2 binary, an HMAC chain, permissions in the identifier.

Protocol source: libmacaroons' v2 binary format and LND's bakery identifiers (byte 3, then the
protobuf message `lnrpc.MacaroonId`). Only first-party caveats of the kind `time-before` exist
here; any other caveat is refused, as an unknown caveat must be.
"""

from __future__ import annotations

import hashlib
import hmac
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from lndgrpc.compiled import lightning_pb2 as ln

from sandbox.lnd.errors import LndError

INVOICE_METHODS = (
    *(
        f"/lnrpc.Lightning/{method}"
        for method in "AddInvoice LookupInvoice ListInvoices SubscribeInvoices GetInfo".split()
    ),
    *(
        f"/invoicesrpc.Invoices/{method}"
        for method in "AddHoldInvoice SettleInvoice CancelInvoice LookupInvoiceV2 SubscribeSingleInvoice".split()
    ),
)
REFUND_METHODS = (
    "/routerrpc.Router/SendPaymentV2",
    "/routerrpc.Router/TrackPaymentV2",
    "/routerrpc.Router/EstimateRouteFee",
    "/lnrpc.Lightning/DecodePayReq",
)
CHANNEL_METHODS = ("/lnrpc.Lightning/ListChannels",)

_GENERATOR = b"macaroons-key-generator".ljust(32, b"\0")
_LOCATION, _IDENTIFIER, _VERIFICATION, _SIGNATURE, _END = 1, 2, 4, 6, 0


@dataclass(frozen=True, slots=True)
class Op:
    """A permission: an entity and an action, such as `uri` and a method's full name."""

    entity: str
    action: str


@dataclass(frozen=True, slots=True)
class Macaroon:
    """A decoded macaroon. `signature` proves identifier and caveats against the root key."""

    location: bytes
    identifier: bytes
    caveats: tuple[bytes, ...]
    signature: bytes

    def encode(self) -> bytes:
        """The v2 binary form."""
        out = b"\x02" + _field(_LOCATION, self.location) + _field(_IDENTIFIER, self.identifier) + b"\0"
        for caveat in self.caveats:
            out += _field(_IDENTIFIER, caveat) + b"\0"
        return out + b"\0" + _field(_SIGNATURE, self.signature)


def mint(root_key: bytes, root_key_id: str, nonce: bytes, ops: Sequence[Op]) -> Macaroon:
    """Bake a macaroon with these permissions under one root key."""
    merged: dict[str, list[str]] = {}
    for op in ops:
        merged.setdefault(op.entity, []).append(op.action)
    wire = ln.MacaroonId(
        nonce=nonce,
        storageId=root_key_id.encode(),
        ops=[ln.Op(entity=entity, actions=actions) for entity, actions in merged.items()],
    )
    unsigned = Macaroon(b"lnd", b"\x03" + bytes(wire.SerializeToString()), (), b"")
    return replace(unsigned, signature=chain(root_key, unsigned))


def decode(data: bytes) -> Macaroon:
    """Read the v2 binary form. Raises `LndError` with LND's wording."""
    if not data:
        raise LndError("empty macaroon data")
    try:
        return _decode(data)
    except (IndexError, ValueError) as error:
        text = str(error) or "varint value extends past end of buffer"
        raise LndError(f"unmarshal v2: {text}") from error


def verify(
    data: bytes, root_key: Callable[[str], bytes | None], now: Callable[[], float]
) -> tuple[frozenset[Op], str]:
    """Check signature and caveats; return what the macaroon permits and its root key id."""
    macaroon = decode(data)
    if macaroon.identifier[:1] != b"\x03":
        raise LndError("cannot get macaroon: unrecognized macaroon version")
    wire = ln.MacaroonId.FromString(macaroon.identifier[1:])
    key_id = bytes(wire.storageId).decode()
    key = root_key(key_id)
    if key is None:
        raise LndError(f"cannot get macaroon: root key with id {key_id} doesn't exist")
    if not hmac.compare_digest(chain(key, macaroon), macaroon.signature):
        raise LndError("verification failed: signature mismatch after caveat verification")
    for caveat in macaroon.caveats:
        _check_caveat(caveat, now())
    return frozenset(Op(op.entity, action) for op in wire.ops for action in op.actions), key_id


def chain(root_key: bytes, macaroon: Macaroon) -> bytes:
    """The signature that identifier and caveats have under this root key."""
    signature = _mac(_mac(_GENERATOR, root_key), macaroon.identifier)
    for caveat in macaroon.caveats:
        signature = _mac(signature, caveat)
    return signature


def _check_caveat(caveat: bytes, now: float) -> None:
    condition, _, argument = caveat.decode(errors="replace").partition(" ")
    if condition != "time-before":
        raise LndError(f'verification failed: caveat "{condition}" not satisfied: caveat not recognized')
    if datetime.fromtimestamp(now, UTC) >= datetime.fromisoformat(argument):
        raise LndError(f'verification failed: caveat "{caveat.decode()}" not satisfied: macaroon has expired')


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(kind: int, data: bytes) -> bytes:
    return bytes([kind]) + _varint(len(data)) + data


class _Reader(io.BytesIO):
    def byte(self) -> int:
        return self.read(1)[0]

    def next_is(self, kind: int) -> bool:
        return self.getbuffer()[self.tell()] == kind

    def field(self, kind: int) -> bytes:
        if self.byte() != kind:
            raise ValueError("unexpected field")
        length = shift = 0
        while (byte := self.byte()) >= 0x80:
            length |= (byte & 0x7F) << shift
            shift += 7
            if shift > 28:
                raise ValueError("field too long")
        length |= byte << shift
        value = self.read(length)
        if len(value) != length:
            raise ValueError("field data extends past end of buffer")
        return value

    def end_section(self) -> None:
        if self.byte() != _END:
            raise ValueError("section not terminated")


def _decode(data: bytes) -> Macaroon:
    reader = _Reader(data)
    if reader.byte() != 2:
        raise ValueError("unsupported macaroon version")
    location = reader.field(_LOCATION) if reader.next_is(_LOCATION) else b""
    identifier = reader.field(_IDENTIFIER)
    reader.end_section()
    caveats = []
    while not reader.next_is(_END):
        if reader.next_is(_LOCATION):
            reader.field(_LOCATION)
        caveats.append(reader.field(_IDENTIFIER))
        if reader.next_is(_VERIFICATION):
            raise ValueError("third-party caveats are not supported")
        reader.end_section()
    reader.end_section()
    signature = reader.field(_SIGNATURE)
    if reader.read(1) or len(signature) != 32:
        raise ValueError("trailing data or bad signature length")
    return Macaroon(location, identifier, tuple(caveats), signature)
