"""Macaroons: a token that whoever holds it may narrow, and nobody may widen.

The v2 binary form and the HMAC chain of libmacaroons (`doc/format.txt`), with first-party caveats alone: a caveat is a
sentence that must be true, and what nobody here understands is not true. Pure.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

BYTES_MAX = 4_096
"""Of a macaroon as it is sent."""
CAVEATS_MAX = 32
_KEY_GENERATOR = b"macaroons-key-generator".ljust(32, b"\0")
_VERSION, _LOCATION, _IDENTIFIER, _VERIFICATION, _SIGNATURE, _END = 2, 1, 2, 4, 6, 0
_VARINT_BYTES_MAX = 3


class MacaroonUnreadable(ValueError):
    """It is no macaroon of this form."""


@dataclass(frozen=True, slots=True)
class Macaroon:
    """A token with its caveats. `signature` proves both against a root key."""

    location: bytes
    identifier: bytes
    caveats: tuple[bytes, ...]
    signature: bytes

    @classmethod
    def mint(cls, root_key: bytes, *, location: bytes, identifier: bytes, caveats: Sequence[bytes]) -> Self:
        """A new one under a root key."""
        unsigned = cls(location, identifier, tuple(caveats), b"")
        return cls(location, identifier, tuple(caveats), unsigned.chained(root_key))

    def chained(self, root_key: bytes) -> bytes:
        """The signature that identifier and caveats have under a root key."""
        signature = _hmac(_hmac(_KEY_GENERATOR, root_key), self.identifier)
        for caveat in self.caveats:
            signature = _hmac(signature, caveat)
        return signature

    def is_genuine(self, root_key: bytes) -> bool:
        """Whether it was minted under this root key, and only narrowed since."""
        return hmac.compare_digest(self.signature, self.chained(root_key))

    def encode(self) -> bytes:
        """The v2 binary form."""
        parts = [bytes([_VERSION]), _field(_LOCATION, self.location), _field(_IDENTIFIER, self.identifier)]
        parts.append(b"\0")
        for caveat in self.caveats:
            parts.append(_field(_IDENTIFIER, caveat) + b"\0")
        parts.append(b"\0" + _field(_SIGNATURE, self.signature))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the v2 binary form. Raises `MacaroonUnreadable`."""
        if len(data) > BYTES_MAX or data[:1] != bytes([_VERSION]):
            raise MacaroonUnreadable("not a macaroon of version 2")
        fields = _fields(data[1:])
        location, identifier = _section(fields)
        if identifier is None:
            raise MacaroonUnreadable("it names nothing")
        caveats: list[bytes] = []
        while True:
            place, caveat = _section(fields)
            if caveat is None:
                break
            if place:
                raise MacaroonUnreadable("a caveat of a third party")
            caveats.append(caveat)
            if len(caveats) > CAVEATS_MAX:
                raise MacaroonUnreadable("too many caveats")
        kind, signature = next(fields, (_END, b""))
        if kind != _SIGNATURE or len(signature) != hashlib.sha256().digest_size or next(fields, None):
            raise MacaroonUnreadable("it does not end with a signature")
        return cls(location, identifier, tuple(caveats), signature)


def read_base64(text: str) -> Macaroon:
    """A macaroon as clients send it: base64, plain or URL-safe, with or without padding. Raises `MacaroonUnreadable`."""
    if len(text) > 2 * BYTES_MAX or not text.isascii():
        raise MacaroonUnreadable("too long, or not base64")
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MacaroonUnreadable("not base64") from error
    return Macaroon.decode(data)


def _section(fields: Iterator[tuple[int, bytes]]) -> tuple[bytes, bytes | None]:
    """(location, identifier) of one section; the identifier is None if the section is empty."""
    location, identifier = b"", None
    for kind, value in fields:
        match kind:
            case 0:
                return location, identifier
            case 1 if not location and identifier is None:
                location = value
            case 2 if identifier is None:
                identifier = value
            case _:
                raise MacaroonUnreadable(f"a field {kind} where none may be")
    raise MacaroonUnreadable("it breaks off")


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        kind, at = data[at], at + 1
        if kind == _END:
            yield _END, b""
            continue
        size, at = _varint(data, at)
        if at + size > len(data):
            raise MacaroonUnreadable("it breaks off")
        yield kind, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_VARINT_BYTES_MAX):
        if at + place >= len(data):
            break
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise MacaroonUnreadable("a length that is none")


def _field(kind: int, value: bytes) -> bytes:
    size, out = len(value), bytearray([kind])
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out) + value


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()
