"""What sending needs from outside: who is written to, where links lead, and a way to a mail server."""

from __future__ import annotations

from email.message import EmailMessage
from typing import NamedTuple, Protocol

from mail.domain.letters import AnyLetter


class Recipient(NamedTuple):
    """Whom a mail is for, now."""

    account_id: str
    """The account at the end of all merges."""
    address: str


class Recipients(Protocol):
    """Knows the addresses of people."""

    async def find(self, account_id: str) -> Recipient | None:
        """Whoever what happened to this account, or a sign-in link with this id, concerns now; None if nobody with an
        address."""


class Links(Protocol):
    """Makes the addresses that letters lead to."""

    def page(self, account_id: str) -> str:
        """A page for people."""

    def turn_off(self, account_id: str) -> str:
        """Where one POST turns optional letters off (RFC 8058)."""

    async def action(self, letter: AnyLetter) -> str | None:
        """Where the reader is to do what the letter is about; None if there is nothing to do there, any more or at all."""


class Transport(Protocol):
    """A way to a mail server."""

    async def send(self, message: EmailMessage) -> None:
        """Hand one message to a server that answers for it from then on. Raises `Refused` or `Postponed`.

        Whoever is not answered cannot know whether the message was taken: the same message may be sent again.
        """
