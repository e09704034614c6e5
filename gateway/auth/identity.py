"""Who is asking. Visitors carry a signed token (cookie or bearer), people a JWT, programs an API key.

A visitor's token names a credit account that may not exist yet: its stream starts with the first
accepted job. Nothing is stored for somebody who only looks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from ledger.clock import Clock
from ledger.identifiers import AccountId, is_identifier

VISITOR_COOKIE = "ls_visitor"
SESSION_COOKIE = "ls_session"
VISITOR_LIFETIME = timedelta(days=400)
_VISITOR_PREFIX = "lsv1"


class Role(StrEnum):
    """What somebody may do; each route names the roles it serves."""

    ANYONE = "anyone"
    VISITOR = "visitor"
    PERSON = "person"
    API_KEY = "api_key"
    WORKER = "worker"
    ACCOUNTANT = "accountant"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller and the account that its requests act on."""

    role: Role
    account_id: AccountId
    by_cookie: bool
    """Whether the browser sent it by itself: then writes need an Origin and a JSON content type."""
    scopes: frozenset[str] = frozenset()

    @property
    def actor(self) -> str:
        """Who, in the log's words."""
        return self.account_id


class VisitorTokens:
    """Signed tokens for visitors and guests: `lsv1.<account>.<issued>.<HMAC-SHA256>`."""

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock

    def issue(self, account_id: AccountId) -> str:
        """A token that speaks for this account."""
        issued = int(self._clock().timestamp())
        return f"{_VISITOR_PREFIX}.{account_id}.{issued}.{self._sign(account_id, issued)}"

    def read(self, token: str) -> AccountId | None:
        """The account of a genuine token that is not too old, else None."""
        parts = token.split(".")
        if len(parts) != 4 or parts[0] != _VISITOR_PREFIX or not is_identifier(parts[1], "acct"):
            return None
        if not parts[2].isascii() or not parts[2].isdecimal() or len(parts[2]) > 12:
            return None
        account_id, issued = AccountId(parts[1]), int(parts[2])
        if not hmac.compare_digest(parts[3].encode(), self._sign(account_id, issued).encode()):
            return None
        age = self._clock().timestamp() - issued
        return account_id if -300 <= age <= VISITOR_LIFETIME.total_seconds() else None

    def _sign(self, account_id: AccountId, issued: int) -> str:
        message = f"{_VISITOR_PREFIX}.{account_id}.{issued}".encode()
        digest = hmac.new(self._secret, message, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class NetworkKeys:
    """Keyed digests of address prefixes: enough to count by, useless to find somebody with."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def key(self, prefix: str, day: datetime) -> str:
        """The row key of a prefix on a UTC day."""
        digest = hmac.new(self._secret, prefix.encode(), hashlib.sha256).hexdigest()[:32]
        return f"{day:%Y-%m-%d}:{digest}"
