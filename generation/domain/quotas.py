"""The free images of an address prefix: a cap beside the allowance of each visitor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class NetworkQuota:
    """How many free images an address prefix may have today. `key` has no address in it."""

    key: str
    cap: int
    expires_at: datetime


def exhausted(quotas: Sequence[NetworkQuota], used: Mapping[str, int], price: int) -> int | None:
    """The cap of a prefix that has no `price` free credits left; None if every prefix has them.

    `used` is what has been counted today, by key. Paid credits may be used whatever this says.
    """
    for quota in quotas:
        if used.get(quota.key, 0) + price > quota.cap:
            return quota.cap
    return None
