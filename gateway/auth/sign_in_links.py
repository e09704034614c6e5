"""Signing in by a link that is mailed: it works once, for a quarter of an hour, and only after somebody confirms it.

The link is `/sign-in#<id>.<HMAC-SHA256>`. What follows the # never leaves the browser with a request for a page, and opening
the page does nothing: what scans mail for links uses none of them up. What it stands for is in a row; the signature is made
when the letter is written, so that neither the row nor the letter in the outbox opens anything.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.auth.people import normal_address
from gateway.database.tables import sign_in_links
from ledger.clock import Clock
from ledger.identifiers import Identifiers, is_identifier
from mail.domain.letters import SignInLink
from mail.outbox import mail_row
from mail.tables import OUTBOX_ROWS

PREFIX = "sil"
LINK_LIFETIME = timedelta(minutes=15)
KEPT = timedelta(days=1)
"""After its end, a row is deleted with the next request for a link."""


class SignInLinks:
    """Makes links, and takes each once."""

    def __init__(
        self, secret: bytes, public_url: str, *, engine: AsyncEngine, clock: Clock, identifiers: Identifiers
    ) -> None:
        self._secret = secret
        self._public_url = public_url.rstrip("/")
        self._engine = engine
        self._clock = clock
        self._identifiers = identifiers

    async def mail(self, address: str) -> None:
        """Let a link be mailed to this address, whoever it belongs to: row and letter in one transaction."""
        now, link_id = self._clock(), self._identifiers.new(PREFIX)
        ends = now + LINK_LIFETIME
        letter = SignInLink(link_id=link_id, expires_at=ends)
        row = {"link_id": link_id, "email": normal_address(address), "expires_at": ends}
        async with self._engine.begin() as connection:
            await connection.execute(sa.delete(sign_in_links).where(sign_in_links.c.expires_at < now - KEPT))
            await connection.execute(insert(sign_in_links).values(**row))
            await connection.execute(
                insert(OUTBOX_ROWS).values(**mail_row(letter, account_id=link_id, cause=link_id, now=now))
            )

    async def look(self, token: str) -> str | None:
        """The address that a genuine link was mailed to, if it can still be taken; else None. It uses nothing up."""
        link_id = self.read(token)
        if link_id is None:
            return None
        query = sa.select(sign_in_links.c.email).where(*self._open(link_id))
        async with self._engine.connect() as connection:
            found = (await connection.execute(query)).scalar_one_or_none()
        return None if found is None else str(found)

    async def take(self, token: str) -> str | None:
        """The address that a genuine link was mailed to, once; None if it is wrong, used or over."""
        link_id = self.read(token)
        if link_id is None:
            return None
        taken = (
            sa.update(sign_in_links)
            .where(*self._open(link_id))
            .values(used_at=self._clock())
            .returning(sign_in_links.c.email)
        )
        async with self._engine.begin() as connection:
            found = (await connection.execute(taken)).scalar_one_or_none()
        return None if found is None else str(found)

    def _open(self, link_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        links = sign_in_links.c
        return links.link_id == link_id, links.used_at.is_(None), links.expires_at > self._clock()

    def url(self, link_id: str) -> str:
        """The address of the page on which somebody confirms."""
        return f"{self._public_url}/sign-in#{link_id}.{self._sign(link_id)}"

    def read(self, token: str) -> str | None:
        """The link's id, if its signature is ours."""
        link_id, _, signature = token.partition(".")
        if not is_identifier(link_id, PREFIX):
            return None
        return link_id if hmac.compare_digest(signature.encode(), self._sign(link_id).encode()) else None

    def _sign(self, link_id: str) -> str:
        # The secret may be shared by installations that differ in nothing but their address.
        message = f"{self._public_url}\n{link_id}".encode()
        digest = hmac.new(self._secret, message, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
