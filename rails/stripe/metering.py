"""The card rail's use beyond plans: Stripe's billing meters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from rails.contract import RailProtocolError
from rails.metered import NotBillable, UsageReport
from rails.reading import understood
from rails.stripe.amounts import name_of
from rails.stripe.billing_calls import BillingCalls
from rails.stripe.calls import Json, Refused
from rails.stripe.subscriptions import CardSubscriptions

EVENT_NAME = "llamasketch_overage"
"""By which Stripe knows what is told to the meter."""
METER_LABEL = "Credits beyond a plan"
AHEAD = timedelta(minutes=2)
"""So much further than now a total is asked for: two clocks never agree."""
_OVER = ("canceled", "incomplete_expired")
_CUSTOMER, _VALUE = "stripe_customer_id", "value"


class MeterCalls(BillingCalls):
    """Stripe, as far as use beyond plans needs it."""

    async def meter(self) -> str | None:
        """The meter that sums it up, if the catalogue has been brought up to date."""
        meters = self._client.v1.billing.meters
        page = await self._list(meters.list_async({"status": "active", "limit": 100}))
        with understood("Stripe"):
            found = [name_of(each["id"]) for each in page["data"] if each["event_name"] == EVENT_NAME]
        return found[0] if found else None

    async def meter_event(self, customer: str, report: UsageReport, at: datetime) -> None:
        """Tell the meter. Raises `Refused`."""
        params: Json = {
            "event_name": EVENT_NAME,
            "identifier": report.report_id,
            "payload": {_CUSTOMER: customer, _VALUE: str(report.credits)},
            "timestamp": int(at.timestamp()),
        }
        await self._ask(self._client.v1.billing.meter_events.create_async(params))  # type: ignore[arg-type]

    async def meter_sum(self, meter: str, customer: str, starts: int, ends: int) -> Any:
        """What the meter has counted of a customer. Raises `Refused`."""
        params = {"customer": customer, "start_time": starts, "end_time": ends, "limit": 1}
        summaries = self._client.v1.billing.meters.event_summaries
        page = await self._list(summaries.list_async(meter, params))  # type: ignore[arg-type]
        with understood("Stripe"):
            return page["data"][0]["aggregated_value"] if page["data"] else 0


class CardMetering(CardSubscriptions):
    """See `rails.metered.Metered`."""

    async def report_usage(self, reference: str, report: UsageReport) -> None:
        """An event of the meter, whose identifier is the report's."""
        customer, since = await self._billed(reference)
        now = self._clock()
        # Of a period whose invoice is made Stripe bills nothing more: what is told late counts as of today.
        at = report.used_at if report.used_at >= since else max(now, since)
        try:
            await self._metered.meter_event(customer, report, at)
        except Refused as refused:
            if not _is_known(refused):
                raise RailProtocolError(f"Stripe refuses what was used: {refused.code}") from refused
            self._notes.info("usage_known_already", report_id=report.report_id)

    async def _billed(self, reference: str) -> tuple[str, datetime]:
        """Whom a subscription bills, and since when what is used ends on an invoice to come. Raises `NotBillable`."""
        try:
            subscription = await self._calls.subscription(reference)
        except Refused as refused:
            raise RailProtocolError(f"Stripe does not know this subscription: {refused.code}") from refused
        with understood("Stripe"):
            items = [
                item
                for item in subscription["items"]["data"]
                if item["price"]["recurring"]["usage_type"] == "metered"
            ]
            if subscription["status"] in _OVER or not items:
                raise NotBillable(f"the subscription is {subscription['status']}")
            since = max(items[0]["current_period_start"], items[0]["created"])
            return name_of(subscription["customer"]), datetime.fromtimestamp(since, UTC)

    async def usage_total(self, reference: str, since: datetime) -> int:
        """The meter's sum for the customer: each subscription has its own."""
        meter = await self._metered.meter()
        if meter is None:
            raise RailProtocolError("Stripe has no meter for what is used beyond plans")
        try:
            subscription = await self._calls.subscription(reference)
            with understood("Stripe"):
                customer = name_of(subscription["customer"])
            starts = int(since.timestamp()) // 60 * 60
            ends = (int((self._clock() + AHEAD).timestamp()) // 60 + 1) * 60
            value = await self._metered.meter_sum(meter, customer, starts, ends)
            with understood("Stripe"):
                if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
                    raise ValueError("not a whole number")
                return int(value)
        except Refused as refused:
            raise RailProtocolError(f"Stripe does not tell what was used: {refused.code}") from refused

    @property
    def _metered(self) -> MeterCalls:
        assert isinstance(self._calls, MeterCalls)
        return self._calls


def _is_known(refused: Refused) -> bool:
    """Stripe has counted something of this name already: no code says so, the message does."""
    return refused.code == "duplicate_meter_event" or "already exists with identifier" in str(refused)
