"""How long to wait after a failure: longer each time, up to a bound, and never in step with others."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

_DOUBLINGS_MAX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Half to all of a wait that doubles with each failure in a row."""

    first_milliseconds: int = 1_000
    longest_milliseconds: int = 600_000

    def wait(self, attempts: int, randomness: random.Random) -> timedelta:
        """How long to wait after this many failures in a row, the first one being 1."""
        doubled = self.first_milliseconds << min(max(attempts - 1, 0), _DOUBLINGS_MAX)
        full = min(doubled, self.longest_milliseconds)
        return timedelta(milliseconds=randomness.randint(full >> 1, full))
