"""Links in letters by which whoever has one chooses which letters an account gets, and can do nothing else.

A token is `lsm1.<account>.<HMAC-SHA256>`. It does not end: a letter may be read years later. It stands in the address that
mail programs post to by themselves (RFC 8058), so it may stand in logs, and is worth no more than that choice.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from ledger.identifiers import AccountId, is_identifier

_PREFIX = "lsm1"


class MailLinks:
    """Makes and reads links of one installation. Implements `mail.ports.Links`."""

    def __init__(self, secret: bytes, public_url: str) -> None:
        self._secret = secret
        self._public_url = public_url.rstrip("/")

    def page(self, account_id: str) -> str:
        """See `Links.page`."""
        return f"{self._public_url}/mail/{self.token(account_id)}"

    def turn_off(self, account_id: str) -> str:
        """See `Links.turn_off`."""
        return f"{self._public_url}/v1/mail/{self.token(account_id)}"

    def token(self, account_id: str) -> str:
        """What stands for the choice of this account."""
        claims = f"{_PREFIX}.{account_id}"
        return f"{claims}.{self._sign(claims)}"

    def read(self, token: str) -> AccountId | None:
        """Whose choice a genuine token stands for; else None."""
        claims, _, signature = token.rpartition(".")
        prefix, _, account_id = claims.partition(".")
        if prefix != _PREFIX or not is_identifier(account_id, "acct"):
            return None
        if not hmac.compare_digest(signature.encode(), self._sign(claims).encode()):
            return None
        return AccountId(account_id)

    def _sign(self, claims: str) -> str:
        # The secret may be shared by installations that differ in nothing but their address.
        message = f"{self._public_url}\n{claims}".encode()
        digest = hmac.new(self._secret, message, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
