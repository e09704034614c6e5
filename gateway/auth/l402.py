"""L402: a program pays an invoice and comes back with what it learnt by that. What a token says, and whether it is true.

    WWW-Authenticate: L402 macaroon="…", invoice="…", version="0", token="…"
    Authorization: L402 <macaroon in base64>:<preimage in hex>

The token names a prepaid balance, and is worth nothing without the preimage of its invoice. It is a macaroon whose
identifier is 66 bytes: version, payment hash, token id. Each has a root key of its own, which only this installation
can make from the identifier. Its caveats say which service, what may be done, and until when; whoever holds it may add
more, and a repeated one may only narrow. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from gateway.auth.macaroons import Macaroon, MacaroonUnreadable, read_base64

SCHEMES = ("l402", "lsat")
"""Of `Authorization`. Programs of before the protocol was renamed still say LSAT."""
SERVICE = "llamasketch"
TOKEN_LIFETIME = timedelta(days=400)
TOKEN_ID_BYTES = 32
HEADER = "Accept-Payment"
CREDITS_MAX = 1_000_000
_ID_VERSION = b"\0\0"
_HASH_BYTES = 32
_PREIMAGE = re.compile(r"[0-9a-fA-F]{64}")
_CREDITS = re.compile(r"credits=([1-9][0-9]{0,6})")

GENERATE, READ, TOPUP = "generate", "read", "topup"
CAPABILITIES = (GENERATE, READ, TOPUP)
_MAY: tuple[tuple[str, str, str], ...] = (
    ("POST", r"/v1/generations", GENERATE),
    ("DELETE", r"/v1/generations/[^/]+", GENERATE),
    ("GET", r"/v1/generations(/[^/]+(/image)?)?", READ),
    ("GET", r"/v1/(account|statement|events)", READ),
    ("POST", r"/v1/topups", TOPUP),
    ("GET", r"/v1/topups(/[^/]+)?", TOPUP),
)
"""What each capability is good for: method and path. Everything else a token may not do."""
ENDING = ("DELETE", "/v1/l402")
"""Ends the token itself. Only one to which nobody has added a caveat may: whoever was handed a narrowed one must not
take the balance from whom it came from."""
MINTED_CAVEATS = 3


class NotOurs(ValueError):
    """The credential is not genuine, not whole, not paid, or over."""


class TokenId(NamedTuple):
    """What an identifier says."""

    payment_hash: bytes
    token_id: bytes

    def encode(self) -> bytes:
        """The 66 bytes."""
        return _ID_VERSION + self.payment_hash + self.token_id


@dataclass(frozen=True, slots=True)
class Grant:
    """A genuine token, with what its caveats leave of it."""

    token_id: bytes
    payment_hash: bytes
    capabilities: frozenset[str]
    valid_until: datetime
    as_minted: bool = True
    """Whether nobody has added a caveat."""

    def allows(self, method: str, path: str) -> bool:
        """Whether it may be used for this request."""
        if (method, path) == ENDING:
            return self.as_minted
        return any(
            verb == method and capability in self.capabilities and re.fullmatch(pattern, path)
            for verb, pattern, capability in _MAY
        )


class Tokens:
    """Mints tokens, and reads credentials."""

    def __init__(self, secret: bytes, location: str, *, older: Sequence[bytes] = ()) -> None:
        """`older` secrets still prove what was minted with them: tokens last longer than secrets may."""
        self._secrets = (secret, *older)
        self._location = location.encode()

    def mint(
        self, token: TokenId, *, valid_until: datetime, capabilities: Container[str] = CAPABILITIES
    ) -> str:
        """The token in base64; the same again for the same id, time and capabilities."""
        allowed = ",".join(one for one in CAPABILITIES if one in capabilities)
        identifier = token.encode()
        macaroon = Macaroon.mint(
            _root_key(self._secrets[0], identifier),
            location=self._location,
            identifier=identifier,
            caveats=(
                f"services={SERVICE}:0".encode(),
                f"{SERVICE}_capabilities={allowed}".encode(),
                f"{SERVICE}_valid_until={int(valid_until.timestamp())}".encode(),
            ),
        )
        return base64.b64encode(macaroon.encode()).decode()

    def read(self, credential: str, now: datetime) -> Grant:
        """A credential as it is sent after the scheme. Raises `NotOurs`; whether it was revoked is not known here."""
        token, separator, preimage = credential.strip().rpartition(":")
        if not separator or _PREIMAGE.fullmatch(preimage) is None:
            raise NotOurs("a macaroon and a preimage of 64 hex digits, with a colon between them, are needed")
        try:
            macaroon = read_base64(token)
        except MacaroonUnreadable as error:
            raise NotOurs(f"the macaroon cannot be read: {error}") from error
        found = _identified(macaroon.identifier)
        roots = [_root_key(secret, macaroon.identifier) for secret in self._secrets]
        if not any(macaroon.is_genuine(root) for root in roots):
            raise NotOurs("the macaroon is not one of ours")
        paid = hashlib.sha256(bytes.fromhex(preimage)).digest()
        if not hmac.compare_digest(paid, found.payment_hash):
            raise NotOurs("the preimage is not that of the macaroon's invoice")
        capabilities, valid_until = _allowed(macaroon.caveats)
        if valid_until <= now:
            raise NotOurs("the token's time is over")
        as_minted = len(macaroon.caveats) == MINTED_CAVEATS
        return Grant(found.token_id, found.payment_hash, capabilities, valid_until, as_minted)


def _root_key(secret: bytes, identifier: bytes) -> bytes:
    """One for each token. From the secret: whoever reads our tables can mint nothing."""
    return hmac.new(secret, identifier, hashlib.sha256).digest()


def challenge(token: str, invoice: str) -> str:
    """The header, in the order and form that all known clients read."""
    return f'L402 macaroon="{token}", invoice="{invoice}", version="0", token="{token}"'


def credential_of(authorization: str) -> str | None:
    """What comes after the scheme, if it is L402."""
    scheme, _, rest = authorization.partition(" ")
    return rest.strip() if scheme.lower() in SCHEMES else None


def opted_in(headers: Mapping[str, str]) -> bool:
    """Whether a program says that it can pay, or has paid, by L402."""
    return _offer(headers) is not None or credential_of(headers.get("authorization", "")) is not None


def wanted_credits(headers: Mapping[str, str]) -> int | None:
    """How many credits a program wants to pay for at once: `Accept-Payment: L402; credits=100`."""
    found = _CREDITS.search(_offer(headers) or "")
    return None if found is None else min(int(found[1]), CREDITS_MAX)


def _offer(headers: Mapping[str, str]) -> str | None:
    for offer in headers.get(HEADER.lower(), "").split(","):
        if offer.partition(";")[0].strip().lower() in SCHEMES:
            return offer
    return None


def _identified(identifier: bytes) -> TokenId:
    if len(identifier) != len(_ID_VERSION) + _HASH_BYTES + TOKEN_ID_BYTES or identifier[:2] != _ID_VERSION:
        raise NotOurs("the macaroon is of another service")
    return TokenId(identifier[2 : 2 + _HASH_BYTES], identifier[2 + _HASH_BYTES :])


def _allowed(caveats: tuple[bytes, ...]) -> tuple[frozenset[str], datetime]:
    """What is left after all caveats. One that repeats another may only narrow it, and one that is not understood
    allows nothing. Raises `NotOurs`."""
    services: set[str] | None = None
    capabilities: set[str] | None = None
    until: int | None = None
    for caveat in caveats:
        name, _, value = caveat.decode(errors="replace").partition("=")
        match name.strip():
            case "services":
                services = _narrowed(services, value)
            case "llamasketch_capabilities":
                capabilities = _narrowed(capabilities, value)
            case "llamasketch_valid_until":
                until = _earlier(until, value)
            case _:
                raise NotOurs("the macaroon has a caveat that is not understood here")
    if services is None or f"{SERVICE}:0" not in services or capabilities is None or until is None:
        raise NotOurs("the macaroon is of another service")
    return frozenset(capabilities), datetime.fromtimestamp(until, UTC)


def _narrowed(known: set[str] | None, value: str) -> set[str]:
    named = {part.strip() for part in value.split(",")}
    if known is not None and not named <= known:
        raise NotOurs("a caveat widens one before it")
    return named


def _earlier(known: int | None, value: str) -> int:
    text = value.strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 11) or (
        known is not None and int(text) > known
    ):
        raise NotOurs("a caveat widens one before it, or is no time")
    return int(text)
