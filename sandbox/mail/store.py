"""The messages that came, newest first, as files that outlive a restart."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Sequence
from email.message import EmailMessage
from pathlib import Path

import msgspec

KEPT_MAX = 300
"""The oldest goes when another comes."""


class Kept(msgspec.Struct, frozen=True):
    """One message with its envelope."""

    number: int
    received_at: str
    sender: str
    recipients: list[str]
    raw: bytes

    def parsed(self) -> EmailMessage:
        """The message as mail programs read it."""
        message = email.message_from_bytes(self.raw, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        return message


class Mailbox:
    """All messages for everybody."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        read = msgspec.json.Decoder(Kept).decode
        self._kept = sorted((read(path.read_bytes()) for path in folder.glob("*.json")), key=_number)

    def add(self, received_at: str, sender: str, recipients: Sequence[str], raw: bytes) -> None:
        """Keep one message."""
        number = self._kept[-1].number + 1 if self._kept else 1
        kept = Kept(number, received_at, sender, list(recipients), raw)
        self._path(number).write_bytes(msgspec.json.encode(kept))
        self._kept.append(kept)
        for old in self._kept[:-KEPT_MAX]:
            self._path(old.number).unlink(missing_ok=True)
        self._kept = self._kept[-KEPT_MAX:]

    def all(self) -> list[Kept]:
        """The newest first."""
        return self._kept[::-1]

    def find(self, number: int) -> Kept | None:
        """One message."""
        return next((kept for kept in self._kept if kept.number == number), None)

    def clear(self) -> None:
        """Forget all."""
        for kept in self._kept:
            self._path(kept.number).unlink(missing_ok=True)
        self._kept = []

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08}.json"


def _number(kept: Kept) -> int:
    return kept.number
