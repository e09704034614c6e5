"""Ids: one type each, prefixed, time-ordered, safe in URLs.

The body is 128 bits in Crockford's base 32 (lower case): 48 bits of milliseconds since
1970, then 80 random bits. Ids made later sort later, byte by byte, so that an index on
them grows at its end.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import NewType

from ledger.clock import Clock, microseconds_of

AccountId = NewType("AccountId", str)
PaymentId = NewType("PaymentId", str)
HoldId = NewType("HoldId", str)
JobId = NewType("JobId", str)
LotId = NewType("LotId", str)
CommandKey = NewType("CommandKey", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LETTER_OF_BYTE = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))
_RANDOM_BITS = 80
_TIME_LETTERS, _TAIL_LETTERS = 10, 16
_DRAWN = 256
_SHAPE = re.compile(r"[a-z]{2,8}_[0-9a-hjkmnp-tv-z]{26}")

Randomness = Callable[[int], bytes]
"""Returns that many random bytes."""


class Identifiers:
    """Makes ids from a clock and a source of randomness. Thread-safe.

    Randomness is drawn for 256 ids at a time, and the time's letters are kept for their
    millisecond: a call of the kernel and a loop for each id would cost more than all the rest.
    """

    def __init__(self, clock: Clock, randomness: Randomness = secrets.token_bytes) -> None:
        self._microseconds = microseconds_of(clock)
        self._randomness = randomness
        self._tails: list[str] = []
        self._moment = (-1, "")

    def new(self, prefix: str) -> str:
        """A fresh id such as `job_01k…`; `prefix` comes without the underscore."""
        milliseconds = self._microseconds() // 1000
        known, letters = self._moment
        if known != milliseconds:
            letters = encode_crockford(milliseconds << _RANDOM_BITS)[:_TIME_LETTERS]
            self._moment = (milliseconds, letters)
        return f"{prefix}_{letters}{self._tail()}"

    def _tail(self) -> str:
        while True:
            try:
                return self._tails.pop()
            except IndexError:
                # Five bits of each random byte make one letter: 256 is a multiple of 32.
                drawn = self._randomness(_TAIL_LETTERS * _DRAWN).translate(_LETTER_OF_BYTE).decode()
                self._tails.extend(
                    drawn[start : start + _TAIL_LETTERS] for start in range(0, len(drawn), _TAIL_LETTERS)
                )

    def account(self) -> AccountId:
        """A fresh credit account id."""
        return AccountId(self.new("acct"))

    def payment(self) -> PaymentId:
        """A fresh payment id."""
        return PaymentId(self.new("pay"))

    def hold(self) -> HoldId:
        """A fresh hold id."""
        return HoldId(self.new("hold"))

    def job(self) -> JobId:
        """A fresh job id."""
        return JobId(self.new("job"))

    def lot(self) -> LotId:
        """A fresh lot id."""
        return LotId(self.new("lot"))

    def command(self) -> CommandKey:
        """A fresh, time-ordered command key."""
        return CommandKey(self.new("cmd"))


def encode_crockford(number: int) -> str:
    """128 bits as 26 characters, most significant first."""
    return "".join([_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5)])


def is_identifier(text: str, prefix: str) -> bool:
    """Whether `text` has the shape of one of our ids with this prefix."""
    return text.startswith(prefix + "_") and _SHAPE.fullmatch(text) is not None
