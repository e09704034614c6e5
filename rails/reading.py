"""Reading what a payment node, a provider or a feed has answered: whatever is wrong with it is its fault.

An answer is data of somebody else. Without this, a number where a name should be would end in an error
that nobody has a name for, and stop whoever asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from rails.contract import RailProtocolError

MISREAD = (
    ArithmeticError,
    AttributeError,
    LookupError,
    # `datetime.fromtimestamp` of a time that the machine cannot tell.
    OSError,
    # Brackets nested by the thousand.
    RecursionError,
    TypeError,
    ValueError,
    msgspec.MsgspecError,
)
"""What reading a wrong answer may raise. Wrap the reading in it, never the call."""


@contextmanager
def understood(source: str) -> Iterator[None]:
    """Raises `RailProtocolError` for whatever goes wrong while an answer of `source` is read."""
    try:
        yield
    except MISREAD as error:
        raise RailProtocolError(
            f"{source} gave an answer of an unknown shape ({type(error).__name__})"
        ) from error


def decoded(source: str, content: bytes, shape: Any) -> Any:
    """JSON as a value of `shape`, strictly. Raises `RailProtocolError`."""
    with understood(source):
        return msgspec.json.decode(content, type=shape)
