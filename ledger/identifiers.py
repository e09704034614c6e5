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

from ledger.clock import Clock

AccountId = NewType("AccountId", str)
PaymentId = NewType("PaymentId", str)
HoldId = NewType("HoldId", str)
JobId = NewType("JobId", str)
LotId = NewType("LotId", str)
CommandKey = NewType("CommandKey", str)
StreamId = NewType("StreamId", str)
"""Any id that names a stream: its prefix says which category."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_SHIFTS = tuple(range(120, -1, -10))
_DRAWN = 256
_SHAPE = re.compile(r"[a-z]{2,8}_[0-9a-hjkmnp-tv-z]{26}")

Randomness = Callable[[int], bytes]
"""Returns that many random bytes."""


class Identifiers:
    """Makes ids from a clock and a source of randomness. Thread-safe.

    Randomness is drawn for 256 ids at a time: a call of the kernel for each would cost more than
    all the rest of an id.
    """

    def __init__(self, clock: Clock, randomness: Randomness = secrets.token_bytes) -> None:
        self._clock = clock
        self._randomness = randomness
        self._tails: list[bytes] = []

    def new(self, prefix: str) -> str:
        """A fresh id such as `job_01k…`; `prefix` comes without the underscore."""
        milliseconds = int(self._clock().timestamp() * 1000)
        return f"{prefix}_{encode_crockford(milliseconds << 80 | int.from_bytes(self._tail(), 'big'))}"

    def _tail(self) -> bytes:
        while True:
            try:
                return self._tails.pop()
            except IndexError:
                drawn = self._randomness(10 * _DRAWN)
                self._tails.extend(drawn[start : start + 10] for start in range(0, 10 * _DRAWN, 10))

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
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def is_identifier(text: str, prefix: str) -> bool:
    """Whether `text` has the shape of one of our ids with this prefix."""
    return text.startswith(prefix + "_") and _SHAPE.fullmatch(text) is not None
