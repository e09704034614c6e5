"""Who is asking. Visitors carry a signed token (cookie or bearer), people a JWT.

A visitor's token names a credit account that may not exist yet: its stream starts with the first
accepted job. Nothing is stored for somebody who only looks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from ledger.clock import Clock
from ledger.identifiers import AccountId, is_identifier

VISITOR_COOKIE = "ls_visitor"
SESSION_COOKIE = "ls_session"
HOST_ONLY = "__Host-"
"""Browsers keep such a cookie only over TLS, for all of this host and no other: a neighbour cannot plant one."""
VISITOR_LIFETIME = timedelta(days=400)
_VISITOR_PREFIX = "lsv1"


def cookie_name(name: str, *, secure: bool) -> str:
    """What a cookie is called where cookies travel by TLS, and where not."""
    return f"{HOST_ONLY}{name}" if secure else name


class Role(StrEnum):
    """As what somebody is known."""

    VISITOR = "visitor"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Credential:
    """The token that somebody came with: enough to end it, useless to come with."""

    digest: bytes
    issued_at: datetime
    expires_at: datetime


def token_digest(token: str) -> bytes:
    """Of what is signed: the signature itself may be written in several ways."""
    return hashlib.sha256(token.rpartition(".")[0].encode()).digest()[:16]


class Narrowed(NamedTuple):
    """What the holder of an L402 token left of it: another one of the same balance is no wider."""

    capabilities: frozenset[str]
    until: datetime | None
    """None: its time is that which it was given."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller and the account that its requests act on."""

    role: Role
    account_id: AccountId
    by_cookie: bool
    """Whether the browser sent it by itself: then writes need an Origin and a JSON content type."""
    credential: Credential | None = field(default=None, compare=False)
    """What it came with, if that can be ended before its time."""
    token_id: bytes | None = field(default=None, compare=False)
    """Of the L402 token that it came with: it spends what was paid for it, and nothing that is free."""
    narrowed: Narrowed | None = field(default=None, compare=False)
    """Of the L402 token that it came with."""
    nobody: bool = False
    """A program that brought nothing but the word that it can pay: the account is nobody's yet."""

    @property
    def prepays(self) -> bool:
        """Whether each call is paid for ahead, by L402."""
        return self.nobody or self.token_id is not None

    @property
    def actor(self) -> str:
        """Who, in the log's words."""
        return self.account_id


class VisitorTokens:
    """Signed tokens for visitors and guests: `lsv1.<account>.<issued>.<HMAC-SHA256>`."""

    def __init__(self, secret: bytes, clock: Clock, *, older: Sequence[bytes] = ()) -> None:
        """Tokens that were signed with an `older` secret go on until they are too old."""
        self._secrets = (secret, *older)
        self._clock = clock

    def issue(self, account_id: AccountId, *, after: datetime | None = None) -> str:
        """A token that speaks for this account, counted as issued later than `after`."""
        issued = max(int(self._clock().timestamp()), 0 if after is None else int(after.timestamp()) + 1)
        return f"{_VISITOR_PREFIX}.{account_id}.{issued}.{_signed(self._secrets[0], account_id, issued)}"

    def read(self, token: str) -> AccountId | None:
        """The account of a genuine token that is not too old, else None."""
        parts = token.split(".")
        if len(parts) != 4 or parts[0] != _VISITOR_PREFIX or not is_identifier(parts[1], "acct"):
            return None
        if not parts[2].isascii() or not parts[2].isdecimal() or len(parts[2]) > 12:
            return None
        account_id, issued = AccountId(parts[1]), int(parts[2])
        genuine = [
            hmac.compare_digest(parts[3].encode(), _signed(secret, account_id, issued).encode())
            for secret in self._secrets
        ]
        if not any(genuine):
            return None
        age = self._clock().timestamp() - issued
        return account_id if -300 <= age <= VISITOR_LIFETIME.total_seconds() else None

    def credential(self, token: str) -> Credential:
        """What ends with a token that `read` has found genuine."""
        issued_at = datetime.fromtimestamp(int(token.split(".")[2]), UTC)
        return Credential(token_digest(token), issued_at, issued_at + VISITOR_LIFETIME)


def _signed(secret: bytes, account_id: AccountId, issued: int) -> str:
    message = f"{_VISITOR_PREFIX}.{account_id}.{issued}".encode()
    digest = hmac.new(secret, message, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class NetworkKeys:
    """Keyed digests of address prefixes: enough to count by, useless to find somebody with."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def key(self, prefix: str, day: datetime) -> str:
        """The row key of a prefix on a UTC day."""
        digest = hmac.new(self._secret, prefix.encode(), hashlib.sha256).hexdigest()[:32]
        return f"{day:%Y-%m-%d}:{digest}"
