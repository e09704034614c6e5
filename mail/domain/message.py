"""The message that carries a letter (RFC 5322): headers, text and HTML. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, getaddresses

from mail.domain.writing import Written
from mail.errors import NotAnAddress, TooLarge

BYTES_MAX = 100_000
"""Of one message. Readers cut HTML beyond about this size."""
ADDRESS_CHARACTERS_MAX = 254
"""Of an address (RFC 5321, 4.5.3.1.3, without its brackets)."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Whom our mail is from."""

    name: str
    address: str

    @classmethod
    def parse(cls, text: str) -> Sender:
        """`LlamaSketch <mail@llamas.art>` or the address alone. Raises `NotAnAddress`."""
        found = getaddresses([text])
        if len(found) != 1:
            raise NotAnAddress
        ((name, address),) = found
        return cls(name, _address(address).addr_spec)

    @property
    def domain(self) -> str:
        """What is behind the @."""
        return self.address.rpartition("@")[2]


def message_id_of(mail_id: str, domain: str) -> str:
    """The same for every attempt at the same mail, so that a mail that comes twice is recognised as one."""
    return f"<{hashlib.sha256(mail_id.encode()).hexdigest()[:40]}@{domain}>"


def compose(
    written: Written,
    *,
    mail_id: str,
    sender: Sender,
    to: str,
    written_at: datetime,
    turn_off_url: str | None,
) -> EmailMessage:
    """The message. `turn_off_url`: where one POST turns such letters off (RFC 8058).

    Raises `NotAnAddress`, `TooLarge`.
    """
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(sender.name, addr_spec=sender.address)
    message["To"] = _address(to)
    message["Subject"] = written.subject
    message["Date"] = format_datetime(written_at)
    message["Message-ID"] = message_id_of(mail_id, sender.domain)
    # RFC 3834: no absence note answers it.
    message["Auto-Submitted"] = "auto-generated"
    if turn_off_url is not None:
        message["List-Unsubscribe"] = f"<{turn_off_url}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(written.text, cte="quoted-printable")
    message.add_alternative(written.html, subtype="html", cte="quoted-printable")
    if len(message.as_bytes()) > BYTES_MAX:
        raise TooLarge
    return message


def _address(text: str) -> Address:
    if len(text) > ADDRESS_CHARACTERS_MAX or not text.isprintable():
        raise NotAnAddress
    try:
        address = Address(addr_spec=text)
    except (
        MessageError,
        ValueError,
        IndexError,
        AttributeError,
    ) as error:  # the last one of `a@[`, by the parser
        raise NotAnAddress from error
    if not address.username or "." not in address.domain.strip("."):
        raise NotAnAddress
    return address
