"""Tokens of workers that are made and checked without the database, so that who mints one need not load its library."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta

from ledger.clock import Clock


class RegistrationTokens:
    """Tokens by which one worker can register, once, for a while. Minting them needs no database."""

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock

    def mint(self, *, valid_for: timedelta) -> str:
        """A fresh token: nonce, expiry and HMAC-SHA256."""
        nonce = secrets.token_urlsafe(12)
        expires = int((self._clock() + valid_for).timestamp())
        return f"{nonce}.{expires}.{self._sign(nonce, expires)}"

    def genuine(self, token: str) -> bool:
        """Whether we minted it and its time is not over; whether it was used is the registry's to say."""
        parts = token.split(".")
        if len(parts) != 3 or not parts[1].isascii() or not parts[1].isdecimal() or len(parts[1]) > 12:
            return False
        expected = self._sign(parts[0], int(parts[1]))
        if not hmac.compare_digest(parts[2].encode(), expected.encode()):
            return False
        return self._clock().timestamp() < int(parts[1])

    def _sign(self, nonce: str, expires: int) -> str:
        message = f"register\n{nonce}\n{expires}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


class RenewedTokens:
    """Tokens that take over from another one when they are first used. Issuing them stores nothing.

    A renewed token is signed together with the digest of the token it takes over from. So the old one
    stays valid until the new one is used (or its own time is over): an answer that never arrives locks
    no worker out, it just asks again. With the first use the old one and all other unused successors
    stop working, so that there are never two tokens in use. Leaving the old one valid until it expires
    would have been simpler, and a token that leaked from a worker would have outlived its renewal by hours.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def mint(self, worker_id: str, old_digest: bytes, expires_at: datetime) -> str:
        """A successor of the token with this digest."""
        nonce, expires = secrets.token_urlsafe(24), int(expires_at.timestamp())
        return f"{worker_id}.{expires}.{nonce}.{self._sign(worker_id, expires, nonce, old_digest)}"

    def worker_of(self, token: str) -> str | None:
        """Whose successor this may be; whether it is, `expiry_of` says."""
        parts = token.split(".")
        return parts[0] if len(parts) == 4 and len(token) <= 400 else None

    def expiry_of(self, token: str, old_digest: bytes) -> datetime | None:
        """When it expires, if it takes over from the token with this digest; else None."""
        worker_id, expires, nonce, signature = token.split(".")
        if not expires.isascii() or not expires.isdecimal() or len(expires) > 12:
            return None
        expected = self._sign(worker_id, int(expires), nonce, old_digest)
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            return None
        return datetime.fromtimestamp(int(expires), UTC)

    def _sign(self, worker_id: str, expires: int, nonce: str, old_digest: bytes) -> str:
        message = f"renew\n{worker_id}\n{expires}\n{nonce}\n{old_digest.hex()}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()
