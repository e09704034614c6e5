"""Waiting longer after each failure, never in step with other workers."""

from __future__ import annotations

import random


class Backoff:
    """Full jitter: a random part of a bound that doubles up to `longest_seconds`."""

    def __init__(
        self, jitter: random.Random, first_seconds: float = 0.5, longest_seconds: float = 30.0
    ) -> None:
        self._jitter = jitter
        self._first = first_seconds
        self._longest = longest_seconds
        self._failures = 0

    def next_seconds(self, at_least_seconds: float = 0.0) -> float:
        """How long to wait after one more failure; a `Retry-After` raises the lower end."""
        bound = min(self._longest, self._first * float(2 ** min(self._failures, 16)))
        self._failures += 1
        return max(at_least_seconds, bound * (0.5 + 0.5 * self._jitter.random()))

    def reset(self) -> None:
        """It worked."""
        self._failures = 0
