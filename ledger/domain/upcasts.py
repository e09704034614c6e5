"""How retired event versions are read today. Their golden JSON is kept in the tests and never edited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from ledger.domain.events import SubscriptionStarted
from ledger.domain.periods import months_after
from ledger.log.model import Event


def subscription_started_v1(stored: dict[str, Any]) -> Event:
    """v1 named a calendar month (`2026-02`); v2 carries the provider's own start and end."""
    year, month = stored["month"].split("-")
    start = datetime(int(year), int(month), 1, tzinfo=UTC)
    return SubscriptionStarted(
        subscription_id=stored["subscription_id"],
        plan=stored["plan"],
        period_start=start,
        period_end=months_after(start, 1),
        payment_id=stored.get("payment_id", ""),
    )


UPCASTS: Mapping[str, Callable[[dict[str, Any]], Event]] = MappingProxyType(
    {"ledger.subscription_started.v1": subscription_started_v1}
)
"""Retired stored names."""
