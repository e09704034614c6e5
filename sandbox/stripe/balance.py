"""What the account holds: balance transactions become available, and are paid out."""

from __future__ import annotations

import stripe

from sandbox.stripe import money_shapes
from sandbox.stripe.context import Context
from sandbox.stripe.errors import StripeFault, invalid
from sandbox.stripe.shapes import blank
from sandbox.stripe.store import Json

TRANSIT_SECONDS = 2 * money_shapes.DAY_SECONDS
_PAID_OUT = ("payout", "payout_failure")


def balance(context: Context) -> Json:
    """`GET /v1/balance`: what is available, and what will be."""
    _release(context)
    sums = {"available": 0, "pending": 0}
    for transaction in _transactions(context):
        sums[transaction["status"]] += transaction["net"]
    shown = {
        name: [{"amount": amount, "currency": "usd", "source_types": {"card": amount}}]
        for name, amount in sums.items()
    }
    return {"object": "balance", "livemode": False, **blank(stripe.Balance), **shown}


def list_transactions_of(context: Context, payout_id: str) -> list[Json]:
    """What a payout consists of, and its own transaction; newest first. An automatic payout alone says so."""
    payout = context.store.get("payout", payout_id, "payout")
    if not payout["automatic"]:
        raise invalid("payout", "Balance transaction history can only be filtered on automatic transfers.")
    return [entry for entry in _transactions(context) if entry["_sandbox"].get("payout") == payout_id]


def pay_out(context: Context, amount: int | None) -> Json:
    """Everything available by itself, as each day; or an amount, as from the dashboard."""
    _release(context)
    waiting = [
        entry
        for entry in _transactions(context)
        if entry["status"] == "available" and "payout" not in entry["_sandbox"]
    ]
    available = sum(entry["net"] for entry in waiting)
    wanted = available if amount is None else amount
    if not 0 < wanted <= available:
        raise StripeFault("You have insufficient funds in your Stripe account.", code="balance_insufficient")
    payout = _payout(context, wanted, automatic=amount is None)
    transaction = money_shapes.balance_transaction(
        context,
        kind="payout",
        amount=-wanted,
        currency="usd",
        source=payout["id"],
        fee=0,
        description="STRIPE PAYOUT",
    )
    transaction.update(status="available", available_on=context.now())
    payout["balance_transaction"] = transaction["id"]
    context.store.insert(transaction)
    context.store.insert(payout)
    if payout["automatic"]:
        for entry in (*waiting, transaction):
            context.store.save({**entry, "_sandbox": {"payout": payout["id"]}})
    context.emit("payout.created", payout)
    return payout


def fail_payout(context: Context, payout: Json) -> Json:
    """The bank sent it back."""
    if payout["status"] not in ("in_transit", "paid"):
        raise StripeFault("This payout cannot fail any more.", status=409)
    transaction = money_shapes.balance_transaction(
        context,
        kind="payout_failure",
        amount=payout["amount"],
        currency="usd",
        source=payout["id"],
        fee=0,
        description="REFUND FOR FAILED PAYOUT",
    )
    transaction.update(status="available", available_on=context.now())
    context.store.insert(transaction)
    payout.update(
        status="failed",
        failure_code="account_closed",
        failure_message="The bank account has been closed.",
        failure_balance_transaction=transaction["id"],
    )
    context.store.save(payout)
    context.emit("payout.failed", payout)
    return payout


def sweep(context: Context) -> None:
    """Payouts arrive."""
    for payout in context.store.overdue("payout", "in_transit", "arrival_date", context.now()):
        payout["status"] = "paid"
        context.store.save(payout)
        context.emit("payout.paid", payout)


def _release(context: Context) -> None:
    for entry in context.store.overdue("balance_transaction", "pending", "available_on", context.now()):
        context.store.save({**entry, "status": "available"})


def _transactions(context: Context) -> list[Json]:
    return context.store.where("balance_transaction")


def _payout(context: Context, amount: int, *, automatic: bool) -> Json:
    now = context.now()
    return {
        **blank(stripe.Payout),
        "id": context.new_id("po"),
        "object": "payout",
        "amount": amount,
        "arrival_date": now + TRANSIT_SECONDS,
        "automatic": automatic,
        "created": now,
        "currency": "usd",
        "description": "STRIPE PAYOUT",
        "destination": "ba_sandbox",
        "livemode": False,
        "metadata": {},
        "method": "standard",
        "reconciliation_status": "completed" if automatic else "not_applicable",
        "source_type": "card",
        "status": "in_transit",
        "trace_id": {"status": "pending", "value": None},
        "type": "bank_account",
    }
