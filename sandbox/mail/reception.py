"""The SMTP side: aiosmtpd speaks the protocol, and asks here what to do with recipients and messages."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from sandbox.mail.faults import MailFaults
from sandbox.mail.store import Mailbox

TAKEN = "250 2.0.0 Kept for whoever looks"
CUT = "421 4.3.0 Closing"
"""Nobody reads it: the connection is gone before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """How clients get in."""

    tls: ssl.SSLContext | None = None
    """With it, STARTTLS is offered and demanded."""
    tls_first: bool = False
    """TLS begins with the first byte instead."""
    user: str | None = None
    """With it, clients sign in."""
    password: str = ""


class Reception:
    """Takes messages in, or fails as `MailFaults` say."""

    def __init__(self, mailbox: Mailbox, faults: MailFaults, now: Callable[[], datetime]) -> None:
        self._mailbox = mailbox
        self._faults = faults
        self._now = now
        self._open: set[asyncio.Transport] = set()

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Answers RCPT TO."""
        await asyncio.sleep(self._faults.delay_ms / 1000)
        if self._faults.take("dropped_at_recipient"):
            return _cut(server)
        if self._faults.take("busy_recipients"):
            return f"451 4.7.1 <{address}> try again later"
        if self._faults.take("unknown_recipients"):
            return f"550 5.1.1 <{address}> there is no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Go on"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Answers the end of DATA."""
        if self._faults.take("busy_content"):
            return "451 4.3.0 Try again later"
        if self._faults.take("refused_content"):
            return "554 5.7.1 We do not want this message"
        assert isinstance(envelope.content, bytes)
        now = self._now().isoformat(timespec="seconds")
        self._mailbox.add(now, envelope.mail_from or "", envelope.rcpt_tos, envelope.content)
        if self._faults.take("dropped_after_content"):
            return _cut(server)
        if self._faults.take("silent_after_content"):
            # Cancelled when the client has had enough.
            await asyncio.Event().wait()
        return TAKEN

    def connections(self, door: Door) -> Callable[[], SMTP]:
        """Makes what serves one connection."""
        faults, opened = self._faults, self._open

        class Connection(SMTP):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                opened.add(transport)
                if faults.down:
                    transport.abort()
                super().connection_made(transport)

            def connection_lost(self, error: Exception | None) -> None:
                opened.difference_update([each for each in opened if each.is_closing()])
                super().connection_lost(error)

        def authenticator(
            server: SMTP, session: Session, envelope: Envelope, _: str, login: object
        ) -> AuthResult:
            named = isinstance(login, LoginPassword) and login == LoginPassword(
                (door.user or "").encode(), door.password.encode()
            )
            return AuthResult(success=named, handled=False)

        def connection() -> SMTP:
            with warnings.catch_warnings():
                # It warns of passwords without STARTTLS, also where TLS began with the first byte.
                warnings.simplefilter("ignore")
                return Connection(
                    self,
                    hostname="mail.sandbox",
                    ident="sandbox",
                    tls_context=None if door.tls_first else door.tls,
                    require_starttls=door.tls is not None and not door.tls_first,
                    auth_required=door.user is not None,
                    auth_require_tls=door.tls is not None and not door.tls_first,
                    authenticator=authenticator,
                )

        return connection

    def hang_up(self) -> None:
        """Cut every connection."""
        for transport in self._open:
            transport.abort()


def _cut(server: SMTP) -> str:
    assert isinstance(server.transport, asyncio.Transport)
    server.transport.abort()
    return CUT
