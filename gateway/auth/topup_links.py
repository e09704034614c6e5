"""Links by which whoever has one may top up one account, and do nothing else with it.

A link is `/topup#lst1.<account>.<credits needed>.<end>.<HMAC-SHA256>`. What follows the # never leaves the browser with
a request for a page, so it stands in no log; the page sends it as a bearer token to the routes that take it, and no other
route does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.auth.identity import token_digest
from ledger.clock import Clock
from ledger.identifiers import AccountId, is_identifier

LINK_LIFETIME = timedelta(hours=24)
WATCHED_AFTER = timedelta(hours=24)
"""For which a link that has ended still shows what was opened by it: money may be on its way."""
_PREFIX = "lst1"
_DIGITS_MAX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class TopupLink:
    """What a genuine link says."""

    account_id: AccountId
    """The account as it was when the link was made; it may have been merged into another one since."""
    needed_credits: int
    expires_at: datetime
    digest: str
    """Names the link in the log, and is of no use to come with."""


class TopupLinks:
    """Makes and reads links of one installation: its secret, and its public address, are in each signature."""

    def __init__(self, secret: bytes, public_url: str, clock: Clock) -> None:
        self._secret = secret
        self._public_url = public_url.rstrip("/")
        self._clock = clock

    def issue(self, account_id: AccountId, needed_credits: int) -> str:
        """The address of the page on which this account can be topped up from now on for `LINK_LIFETIME`."""
        end = int((self._clock() + LINK_LIFETIME).timestamp())
        claims = f"{_PREFIX}.{account_id}.{needed_credits}.{end}"
        return f"{self._public_url}/topup#{claims}.{self._sign(claims)}"

    def read(self, token: str) -> TopupLink | None:
        """What a genuine token says, also when it has ended; else None."""
        claims, _, signature = token.rpartition(".")
        parts = claims.split(".")
        if len(parts) != 4 or parts[0] != _PREFIX or not is_identifier(parts[1], "acct"):
            return None
        if not all(_is_number(part) for part in parts[2:]):
            return None
        if not hmac.compare_digest(signature.encode(), self._sign(claims).encode()):
            return None
        return TopupLink(
            account_id=AccountId(parts[1]),
            needed_credits=int(parts[2]),
            expires_at=datetime.fromtimestamp(int(parts[3]), UTC),
            digest=token_digest(token).hex(),
        )

    def _sign(self, claims: str) -> str:
        # The secret may be shared by installations that differ in nothing but their address.
        message = f"{self._public_url}\n{claims}".encode()
        digest = hmac.new(self._secret, message, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX
