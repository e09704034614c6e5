"""How long the random lives of the state machines are tried."""

from __future__ import annotations

import os

TIMES = int(os.environ.get("LLAMASKETCH_LIVES", "1"))


def lives(usual: int) -> int:
    """So many examples, or `LLAMASKETCH_LIVES` times as many, as `make test-thorough` wants."""
    return usual * TIMES
