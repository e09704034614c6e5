"""How the fake rail counts what was used beyond plans."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from rails.metered import UsageReport
from rails.testing.fake_subscriptions import FakeSubscriptions


class _Network(Protocol):
    subscriptions: FakeSubscriptions

    def check(self, call: str) -> None: ...

    def answer(self) -> None: ...


class FakeMetering:
    """See `rails.metered.Metered`."""

    def __init__(self, network: _Network) -> None:
        self._counting = network

    async def report_usage(self, reference: str, report: UsageReport) -> None:
        """Count it, once for its name."""
        self._counting.check("report_usage")
        self._counting.subscriptions.report(reference, report)
        self._counting.answer()

    async def usage_total(self, reference: str, since: datetime) -> int:
        """All that was counted since then."""
        self._counting.check("usage_total")
        return self._counting.subscriptions.total(reference, since)
