"""Sending by SMTP (RFC 5321), with TLS from the first byte or by STARTTLS (RFC 3207, RFC 8314)."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage

import aiosmtplib

from mail.errors import Postponed, Refused
from mail.server import STARTTLS, TLS, Server

STEP_SECONDS = 20.0
"""For which one answer of the server is waited."""
SECONDS_MAX = 45.0
"""For everything about one message."""
CONNECTIONS_MAX = 4
"""That one process has open at the same time."""
_STATUS = re.compile(r"\s*([245]\.[0-9]{1,3}\.[0-9]{1,3})\b")


class SmtpTransport:
    """Hands messages to one server, each over a connection of its own. See `Transport`."""

    def __init__(
        self,
        server: Server,
        *,
        hello: str | None = None,
        tls: ssl.SSLContext | None = None,
        step_seconds: float = STEP_SECONDS,
        seconds_max: float = SECONDS_MAX,
    ) -> None:
        """`hello`: the name by which we greet; by default that of this machine, if it is found in time. `tls`: whom to
        trust; by default as the system does."""
        self._hello = hello
        self._server = server
        self._tls = tls
        self._step_seconds = step_seconds
        self._seconds_max = seconds_max
        self._places = asyncio.Semaphore(CONNECTIONS_MAX)

    async def send(self, message: EmailMessage) -> None:
        """See `Transport.send`."""
        async with self._places:
            try:
                async with asyncio.timeout(self._seconds_max), self._connected() as client:
                    await client.send_message(message)
            except TimeoutError as error:
                raise Postponed("(no answer in time)") from error
            except aiosmtplib.SMTPException as error:
                raise _judged(error) from error
            except (OSError, ValueError) as error:
                raise Postponed(f"({type(error).__name__})") from error

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiosmtplib.SMTP]:
        server = self._server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            timeout=self._step_seconds,
            local_hostname=self._hello,
            use_tls=server.scheme == TLS,
            # True: without TLS nothing is sent, the password least of all.
            start_tls=server.scheme == STARTTLS,
            tls_context=self._tls,
        )
        await client.connect()
        try:
            yield client
            await _say_goodbye(client)
        finally:
            client.close()


async def _say_goodbye(client: aiosmtplib.SMTP) -> None:
    """The message is theirs already: whatever becomes of this, it is not sent again."""
    try:
        await client.quit(timeout=1)
    except (aiosmtplib.SMTPException, OSError):
        return


def _judged(error: aiosmtplib.SMTPException) -> Postponed | Refused:
    """What a fault means for the message: for good is only what a server says for good of this one."""
    match error:
        case aiosmtplib.SMTPRecipientsRefused(recipients=[refused, *_]):
            return _by_reply(refused, "recipient")
        case aiosmtplib.SMTPDataError():
            return _by_reply(error, "content")
        case aiosmtplib.SMTPResponseException():
            # A refused password or sender is a fault of the settings: it is not the message's.
            return Postponed(f"({_step(error)}: {_numbers(error)})")
        case aiosmtplib.SMTPTimeoutError():
            return Postponed("(no answer in time)")
        case _:
            return Postponed(f"({type(error).__name__})")


def _by_reply(reply: aiosmtplib.SMTPResponseException, about: str) -> Postponed | Refused:
    says = f"({about}: {_numbers(reply)})"
    return Refused(says) if 500 <= reply.code < 600 else Postponed(says)


def _step(error: aiosmtplib.SMTPResponseException) -> str:
    match error:
        case aiosmtplib.SMTPAuthenticationError():
            return "signing in"
        case aiosmtplib.SMTPSenderRefused():
            return "sender"
        case _:
            return "connection"


def _numbers(reply: aiosmtplib.SMTPResponseException) -> str:
    """`550 5.1.1`: the reply's code, and its status (RFC 3463) if it has one. Its words may quote an address."""
    status = _STATUS.match(reply.message)
    return f"{reply.code} {status.group(1)}" if status else str(reply.code)
