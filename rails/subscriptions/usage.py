"""Tells rails what was used beyond plans, so that it is billed: each use once, whatever is lost on the way.

A use is a row that is written with the capture of its hold. It is reported under its own name until its rail has it. A rail
knows such names for a day; who is not sure for longer asks for the rail's own count first. That count is compared with
ours each night after something was used.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from ledger.clock import Clock
from ledger.domain.account import decide as decide_account
from ledger.errors import OwnError
from ledger.followups.backoff import Backoff
from ledger.followups.sweeper import SweepRules
from ledger.identifiers import Identifiers
from ledger.log.model import LogWriter, Transaction, UnitOfWork
from rails.contract import Rail
from rails.domain.crediting import PaymentAccountMoved
from rails.domain.overage import written_off
from rails.metered import NAMES_KEPT_HOURS, Metered, NotBillable, UsageReport
from rails.payments.recording import following_merges
from rails.payments.service import in_time
from rails.store.subscriptions import SubscriptionStore
from rails.store.usage import REPORTED, USE_TABLE, WAITING, WRITTEN_OFF, UseStore
from rails.subscriptions.record import SubscriptionRecord, record_of

SURE_FOR = timedelta(hours=NAMES_KEPT_HOURS - 1)
"""So long after it was reported first the rail still knows a use by its name."""
SETTLED_AFTER = timedelta(hours=1)
"""So long a rail may take until what it was reported is in its count."""
TOTAL_RULES = SweepRules(
    at_once=4, backoff=Backoff(first_milliseconds=600_000, longest_milliseconds=6 * 3_600_000)
)


class UseUnclear(OwnError):
    """Nobody knows whether the rail has counted a use, and it may not be reported again."""

    code = "use_unclear"
    message = (
        "The rail's count neither has what was used beyond a plan nor lacks it whole; compare both by hand."
    )


class CountsDiffer(OwnError):
    """The rail has counted something else than was reported."""

    code = "use_counts_differ"
    message = "What the rail has counted of what was used beyond a plan is not what was reported to it."


class Uses:
    """Works off what was used beyond plans. Safe to run in many processes."""

    def __init__(
        self,
        *,
        log: LogWriter,
        store: UseStore,
        subscriptions: SubscriptionStore,
        rails: Mapping[str, Rail],
        ids: Identifiers,
        clock: Clock,
        rail_timeout_seconds: int = 20,
    ) -> None:
        self._submit = log.submit
        self._store = store
        self._subscriptions = subscriptions
        self._rails = rails
        self._ids = ids
        self._clock = clock
        self._timeout_seconds = rail_timeout_seconds
        self._log = structlog.get_logger("rails.subscriptions.usage")

    async def visit(self, row: Mapping[str, Any]) -> datetime | None:
        """The sweep's work on one use. Raises what keeps it from being reported."""
        if row["state"] != WAITING:
            return row["due_at"]  # type: ignore[no-any-return]
        found = await self._billing(row["subscription_id"])
        if found is None:
            await self._write_off(row)
            return self._clock()
        rail, record, reference = found
        try:
            await self._report(rail, record, reference, row)
        except NotBillable as error:
            self._log.error("use_not_billable", use_id=row["use_id"], reason=str(error))
            await self._write_off(row)
        return self._clock()

    async def _billing(self, subscription_id: str) -> tuple[Metered, SubscriptionRecord, str] | None:
        """The rail, the subscription, and the rail's own name of it; None if nothing bills it any more."""
        row = await self._subscriptions.row(subscription_id)
        if row is None or row["reference"] is None:
            return None
        record = record_of(row)
        rail = self._rails.get(record.rail)
        if not isinstance(rail, Metered):
            return None
        return rail, record, str(record.reference)

    async def _report(
        self, rail: Metered, record: SubscriptionRecord, reference: str, row: Mapping[str, Any]
    ) -> None:
        tried, credits_ = row["first_tried_at"], int(row["credits"])
        if tried is not None and self._clock() - tried > SURE_FOR:
            counts = await self._store.counts(record.subscription_id)
            async with in_time(self._timeout_seconds):
                beyond = await rail.usage_total(reference, record.opened_at) - counts.reported
            if beyond == counts.open:
                await self._store.reported(row["use_id"])
                return
            if beyond != 0:
                raise UseUnclear
        await self._store.tried(row["use_id"], self._clock())
        report = UsageReport(report_id=row["use_id"], credits=credits_, used_at=row["used_at"])
        async with in_time(self._timeout_seconds):
            await rail.report_usage(reference, report)
        await self._store.reported(row["use_id"])

    async def _write_off(self, row: Mapping[str, Any]) -> None:
        """Nothing bills it: its owner does not go on owing it."""
        await following_merges(row["account_id"], lambda account_id: self._forgive(row, account_id))

    async def _forgive(self, row: Mapping[str, Any], account_id: str) -> None:
        use_id = row["use_id"]

        def decide(uow: UnitOfWork) -> None:
            known = uow.get(USE_TABLE, use_id)
            if known is None or known["state"] in (REPORTED, WRITTEN_OFF):
                return
            status = uow.state(account_id).status
            if status.merged_into:
                raise PaymentAccountMoved(into=status.merged_into)
            for command in written_off("", int(row["credits"]), status.overage_owed):
                uow.append(account_id, decide_account(uow.state(account_id), command, uow.now))
            uow.put(USE_TABLE, {**known, "state": WRITTEN_OFF, "attempts": 0, "last_problem": None})

        await self._submit(
            Transaction(
                key=self._ids.command(),
                actor="rail:usage",
                body=["written_off", use_id],
                streams=(account_id,),
                rows=((USE_TABLE, use_id),),
                decide=decide,
            )
        )

    async def compare(self, row: Mapping[str, Any]) -> datetime | None:
        """The sweep's work on one subscription: both counts. Raises `CountsDiffer`."""
        subscription_id = row["subscription_id"]
        found = await self._billing(subscription_id)
        if found is None:
            return None
        rail, record, reference = found
        counts = await self._store.counts(subscription_id)
        if counts.waiting:
            return self._clock() + SETTLED_AFTER
        async with in_time(self._timeout_seconds):
            counted = await rail.usage_total(reference, record.opened_at)
        if counted != counts.reported:
            self._log.error(
                "use_counts_differ", subscription_id=subscription_id, ours=counts.reported, theirs=counted
            )
            raise CountsDiffer
        return None
