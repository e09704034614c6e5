"""At the end: the stand-in's own books, our payments and our journal, each computed by itself, agree to the cent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import sqlalchemy as sa
import stripe

from ledger.domain import events as of_accounts
from ledger.domain.journal import postings
from ledger.log.model import Envelope
from rails.domain.comparing import OurMoney, our_money
from rails.domain.events import PaymentOpened, PaymentSettled
from rails.domain.invoiced import PeriodInvoiced
from rails.domain.receipts import ReceiptStatus
from rails.domain.topup import payment_of
from rails.store.tables import PAYMENT_ROWS
from rails.stripe.transport import HttpxTransport
from tests.rails.stripe.outside import KEY
from tests.year.world import Year

READ_AT_ONCE = 5_000
_NEVER_OURS = (ReceiptStatus.SEEN, ReceiptStatus.HELD, ReceiptStatus.RELEASED, ReceiptStatus.VANISHED)


@dataclass
class Theirs:
    """What Stripe's own books say, read by its own SDK."""

    net: int = 0
    received: int = 0
    taken_back: int = 0
    fees: int = 0
    balance: int = 0
    paid_out: int = 0
    intents: dict[str, int] = field(default_factory=dict)
    """What each payment intent brought."""
    tax: int = 0
    """In all that was ever received, by sessions and invoices."""
    discounts: int = 0
    periods: set[tuple[str, datetime]] = field(default_factory=set)
    """Our subscription and the start of each period that a paid invoice is for."""


async def read_stripe(year: Year) -> Theirs:
    """Everything, page by page."""
    transport = HttpxTransport(httpx.AsyncClient(trust_env=False, verify=False, timeout=60))
    sdk = stripe.StripeClient(KEY, base_addresses={"api": year.sandbox.url}, http_client=transport)
    found = Theirs()
    try:
        transactions = await sdk.v1.balance_transactions.list_async({"limit": 100})
        async for entry in transactions.auto_paging_iter():
            _count(found, entry)
        intents = await sdk.v1.payment_intents.list_async({"limit": 100})
        async for intent in intents.auto_paging_iter():
            if intent.amount_received:
                found.intents[intent.id] = intent.amount_received
        balance = await sdk.v1.balance.retrieve_async()
        found.balance = sum(part.amount for part in (*balance.available, *balance.pending))
        invoices = await sdk.v1.invoices.list_async({"limit": 100, "status": "paid"})
        async for invoice in invoices.auto_paging_iter():
            found.periods |= set(_periods(invoice.to_dict()))
            _count_bill(found, invoice.to_dict())
        sessions = await sdk.v1.checkout.sessions.list_async({"limit": 100})
        async for session in sessions.auto_paging_iter():
            if session.mode == "payment" and session.payment_status == "paid":
                assert session.total_details is not None
                found.tax += session.total_details.amount_tax
                found.discounts += session.total_details.amount_discount
    finally:
        await transport.close_async()
    return found


def _count(found: Theirs, entry: stripe.BalanceTransaction) -> None:
    found.net += entry.net
    if entry.type in ("payout", "payout_failure"):
        found.paid_out -= entry.amount
        return
    found.fees += entry.fee
    if entry.type == "charge":
        found.received += entry.amount
    else:
        found.taken_back -= entry.amount


def _count_bill(found: Theirs, invoice: dict[str, Any]) -> None:
    """Tax and discounts of what was paid; in proportion where something kept for the payer paid a part."""
    paid, total = invoice["amount_paid"], invoice["total"]
    if paid > 0:
        tax = sum(entry["amount"] for entry in invoice["total_taxes"])
        off = sum(entry["amount"] for entry in invoice["total_discount_amounts"])
        found.tax += tax * min(paid, total) // total
        found.discounts += off * min(paid, total) // total


def _periods(invoice: dict[str, Any]) -> list[tuple[str, datetime]]:
    ours = invoice["parent"]["subscription_details"]["metadata"]["subscription_id"]
    return [
        (ours, datetime.fromtimestamp(line["period"]["start"], UTC))
        for line in invoice["lines"]["data"]
        if not line["parent"]["subscription_item_details"]["proration"] and line["amount"] > 0
    ]


async def our_moneys(year: Year) -> list[OurMoney]:
    """Every funds receipt of every payment."""
    async with year.services.base.engine.connect() as connection:
        rows = (await connection.execute(sa.select(PAYMENT_ROWS))).mappings().all()
    return [money for row in rows for money in our_money(row["payment_id"], payment_of(row))]


async def whole_log(year: Year) -> list[Envelope]:
    """Every event."""
    found: list[Envelope] = []
    while page := await year.services.base.reader.read(after=len(found), limit=READ_AT_ONCE):
        found += page
    return found


async def our_bills(year: Year) -> tuple[int, int]:
    """Tax and discounts in all that was ever received, by our payments."""
    async with year.services.base.engine.connect() as connection:
        rows = (await connection.execute(sa.select(PAYMENT_ROWS))).mappings().all()
    receipts = [receipt for row in rows for receipt in payment_of(row).receipts.values()]
    bills = [r.breakdown for r in receipts if r.breakdown is not None and r.status not in _NEVER_OURS]
    credited = [receipt for receipt in receipts if receipt.rate is not None]
    assert all(r.worth.tax_minor == (r.breakdown.tax_minor if r.breakdown else 0) for r in credited)
    return sum(bill.tax_minor for bill in bills), sum(bill.discount_minor for bill in bills)


def taxes_owed(log: list[Envelope]) -> int:
    """What the journal says that is owed of tax on card payments, in cents."""
    return -sum(
        line.amount_minor
        for entry in log
        if entry.stream.startswith("acct_")
        for line in postings(entry.event)
        if line.account == "Liabilities:Tax:Card"
    )


def clearing(log: list[Envelope]) -> int:
    """What the journal says that the card rail has brought and not taken back, in cents."""
    return sum(
        line.amount_minor
        for entry in log
        if entry.stream.startswith("acct_")
        for line in postings(entry.event)
        if line.account == "Liabilities:Clearing:Card"
    )


def periods_granted(log: list[Envelope]) -> Counter[tuple[str, datetime]]:
    """Each period of a plan that an account was given."""
    return Counter(
        (entry.event.subscription_id, entry.event.period_start)
        for entry in log
        if isinstance(entry.event, of_accounts.SubscriptionStarted | of_accounts.SubscriptionRenewed)
    )


def wrongly_credited(log: list[Envelope]) -> list[str]:
    """Payments whose credits are not what was sold for that money."""
    opened: dict[str, PaymentOpened] = {}
    wrong = []
    for entry in log:
        match entry.event:
            case PaymentOpened() as facts:
                opened[entry.stream] = facts
            case PaymentSettled() as settled:
                facts = opened[entry.stream]
                sold = facts.purchase.credits if facts.purchase is not None else None
                if isinstance(facts.invoiced, PeriodInvoiced):
                    plan = facts.invoiced.plan
                    sold = plan.credits if plan.period != "day" else 0
                if sold is not None and settled.credits != sold:
                    wrong.append(f"{entry.stream}: {settled.credits} instead of {sold}")
    return wrong


async def agrees(year: Year, database_url: str) -> dict[str, int]:
    """Every check; returns the figures for whoever measures."""
    report = await year.services.payments.reconciliation.run("card")
    stands = await year.services.payments.differences.listed(limit=200)
    assert stands == [], stands[:5]
    assert report.balance_compared
    theirs, ours, log = await read_stripe(year), await our_moneys(year), await whole_log(year)
    assert theirs.net == theirs.balance
    received, taken = sum(m.received for m in ours), sum(m.taken_back for m in ours)
    fees = sum(m.fee + m.costs for m in ours)
    assert (received, taken, fees) == (theirs.received, theirs.taken_back, theirs.fees)
    assert received - taken - fees - theirs.paid_out == theirs.balance
    assert {m.money_ref.removeprefix("stripe:"): m.received for m in ours} == theirs.intents
    assert clearing(log) == received - taken
    tax, discounts = await our_bills(year)
    assert (tax, discounts) == (theirs.tax, theirs.discounts)
    assert tax > 0
    assert discounts > 0
    assert 0 < taxes_owed(log) <= tax
    granted = periods_granted(log)
    assert set(granted.values()) <= {1}, "a period was granted twice"
    assert set(granted) == theirs.periods
    assert wrongly_credited(log) == []
    return {
        "payments": len(ours),
        "received": received,
        "taken_back": taken,
        "fees": fees,
        "tax": tax,
        "discounts": discounts,
        "events": len(log),
    }
