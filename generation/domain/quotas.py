"""The free images of an address prefix: a cap beside the allowance of each visitor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from generation.domain.errors import NotDecided


@dataclass(frozen=True, slots=True)
class NetworkQuota:
    """How many free images an address prefix may have on one UTC day. `key` has no address in it."""

    key: str
    cap: int
    expires_at: datetime
    """The midnight that ends the day."""

    def of_day(self, now: datetime) -> bool:
        """Whether it is that of the day of `now`."""
        return self.expires_at - timedelta(days=1) <= now < self.expires_at


QuotasOf = Callable[[datetime], Sequence[NetworkQuota]]
"""The quotas of one origin, of the day of this time."""


def nowhere(_: datetime) -> Sequence[NetworkQuota]:
    """`QuotasOf` what no network is asked for."""
    return ()


class AnotherDay(NotDecided):
    """It was decided on another day than that of the quotas; decide again with those of the day of `now`."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        super().__init__(f"it is {now:%Y-%m-%d}")


def exhausted(quotas: Sequence[NetworkQuota], used: Mapping[str, int], price: int) -> int | None:
    """The cap of a prefix that has no `price` free credits left; None if every prefix has them.

    `used` is what has been counted today, by key. Paid credits may be used whatever this says.
    """
    for quota in quotas:
        if used.get(quota.key, 0) + price > quota.cap:
            return quota.cap
    return None
