"""The free images of an address prefix: counted in the transaction that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from generation.tables import NETWORKS
from ledger.log.model import Draft, SideTable


@dataclass(frozen=True, slots=True)
class NetworkQuota:
    """How many free images an address prefix may have today. `key` has no address in it."""

    key: str
    cap: int
    expires_at: datetime


def rows(quotas: Sequence[NetworkQuota]) -> list[tuple[SideTable, str]]:
    """The rows that a transaction with these quotas reads and writes."""
    return [(NETWORKS, quota.key) for quota in quotas]


def exhausted(draft: Draft, quotas: Sequence[NetworkQuota], price: int) -> int | None:
    """The cap of a prefix that has had its free images today: paid credits may still be used."""
    for quota in quotas:
        row = draft.get(NETWORKS, quota.key)
        if (row["used"] if row else 0) + price > quota.cap:
            return quota.cap
    return None


def count(draft: Draft, quotas: Sequence[NetworkQuota], free_credits: int) -> list[str]:
    """Count the free images of an address together with the hold that takes them. Returns the rows' ids."""
    if not free_credits:
        return []
    for quota in quotas:
        row = draft.get(NETWORKS, quota.key)
        used = (row["used"] if row else 0) + free_credits
        draft.put(NETWORKS, {"id": quota.key, "used": used, "expires_at": quota.expires_at})
    return [quota.key for quota in quotas]
