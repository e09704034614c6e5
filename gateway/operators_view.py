"""What operators see of payments and accounts, for routes and the command line alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from ledger.log.model import Envelope
from ledger.log.reader import LogReader
from projections.debts import Debts
from rails.domain.receipts import ReceiptRecord, ReceiptStatus
from rails.domain.refunding import is_going_back
from rails.domain.topup import is_suspended, money_json, payment_of
from rails.store.overview import PaymentOverview

EVENTS_MAX = 500
_NO_DEADLINE = datetime.max.replace(tzinfo=UTC)


def payment_row_shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """See `PaymentRowOut`."""
    payment = payment_of(row)
    facts = payment.facts()
    return {
        "payment_id": row["payment_id"],
        "account_id": row["account_id"],
        "rail": row["rail"],
        "state": row["state"],
        "amount_due": money_json(facts.amount_due),
        "credits": facts.credits,
        "credited": sum(receipt.credits_left for receipt in payment.receipts.values()),
        "opened_at": row["opened_at"].isoformat(),
        "refunds": len(payment.refunds),
    }


def event_shown(entry: Envelope) -> dict[str, Any]:
    """See `LogEntryOut`."""
    return {
        "position": entry.position,
        "recorded_at": entry.recorded_at.isoformat(),
        "event": entry.name,
        "actor": entry.actor,
        "data": msgspec.to_builtins(entry.event),
    }


def suspended_of(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """See `SuspendedOut`: the money of one payment that waits."""
    payment = payment_of(row)
    for receipt in payment.receipts.values():
        if is_suspended(receipt) or receipt.status is ReceiptStatus.UNPRICED:
            yield {
                **_whose(row, receipt),
                **money_json(receipt.amount),
                "status": receipt.status.value,
                "first_seen_at": receipt.first_seen_at.isoformat(),
                "going_back": is_going_back(payment.refunds.values(), receipt.money_ref) is not None,
            }


def _disputes_of(row: Mapping[str, Any]) -> Iterator[tuple[datetime, dict[str, Any]]]:
    for receipt in payment_of(row).receipts.values():
        if receipt.status is ReceiptStatus.DISPUTED:
            due = receipt.evidence_due_by
            yield (
                due or _NO_DEADLINE,
                {
                    **_whose(row, receipt),
                    "amount_minor": receipt.disputed_minor,
                    "asset": receipt.amount.asset.code,
                    "external_ref": receipt.external_ref,
                    "evidence_due_by": None if due is None else due.isoformat(),
                },
            )


def _whose(row: Mapping[str, Any], receipt: ReceiptRecord) -> dict[str, Any]:
    named = {name: row[name] for name in ("payment_id", "account_id", "rail")}
    return {**named, "money_ref": receipt.money_ref}


_INSTANTS = ("read_at", "compared_at", "due_at", "opened_at", "seen_at", "closed_at")


def row_shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row about differences: see `DifferenceOut`, `RailComparedOut`."""
    return {
        name: value.isoformat() if name in _INSTANTS and value is not None else value
        for name, value in row.items()
    }


class Attention:
    """What waits for an operator."""

    def __init__(self, overview: PaymentOverview, debts: Debts, reader: LogReader) -> None:
        self._overview = overview
        self._debts = debts
        self._reader = reader

    async def suspended(self) -> list[dict[str, Any]]:
        """Money of the wrong asset, too small, or without a price."""
        return [shown for row in await self._overview.attention() for shown in suspended_of(row)]

    async def disputes(self) -> list[dict[str, Any]]:
        """Open disputes, the nearest deadline first."""
        found = [pair for row in await self._overview.attention() for pair in _disputes_of(row)]
        return [shown for _, shown in sorted(found, key=lambda pair: pair[0])]

    async def unmatched(self) -> list[dict[str, Any]]:
        """Notifications that could not be dealt with."""
        found = await self._overview.unmatched()
        return [{**row, "received_at": row["received_at"].isoformat()} for row in found]

    async def debts(self) -> list[dict[str, Any]]:
        """Accounts that owe."""
        named = ("account_id", "debt", "posted")
        return [{name: row[name] for name in named} for row in await self._debts.owed()]

    async def adjustments(self) -> list[dict[str, Any]]:
        """What was done by hand, and by whom."""
        return [await self._adjustment(row) for row in await self._debts.adjustments()]

    async def _adjustment(self, row: Mapping[str, Any]) -> dict[str, Any]:
        entries: Sequence[Envelope] = await self._reader.read(after=row["position"] - 1, limit=1)
        event = entries[0].event if entries else None
        return {
            "account_id": row["account_id"],
            "at": row["recorded_at"].isoformat(),
            "kind": row["kind"],
            # A statement counts what is owned: a debt that was forgiven is none of it.
            "credits": row["credits"] or getattr(event, "credits", 0),
            "actor": getattr(event, "actor", ""),
            "reason": getattr(event, "reason", ""),
        }

    async def everything(self) -> dict[str, Any]:
        """See `AttentionOut`."""
        return {
            "suspended": await self.suspended(),
            "disputes": await self.disputes(),
            "refunds": [dict(row) for row in await self._overview.refunds()],
            "unmatched": await self.unmatched(),
            "debts": await self.debts(),
            "adjustments": await self.adjustments(),
        }
