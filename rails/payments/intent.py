"""What is stored of the intent to pay, before any rail is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ledger.money import Money
from rails.domain import events
from rails.domain.purchases import Purchase
from rails.quotes.quote import Quote


def asked(
    account_id: str,
    rail: str,
    wanted: int | None,
    amount: Money | None,
    pay_asset: str | None,
    root: str | None,
    job_id: str | None,
    purchase: Purchase | None = None,
) -> dict[str, Any]:
    """What a key stands for."""
    # By its name and not by its price, so that the same request is the same while the catalogue changes.
    for_what = {} if purchase is None else {"purchase": [purchase.kind, purchase.name, purchase.months]}
    return {
        **for_what,
        "account_id": account_id,
        "rail": rail,
        "wanted": wanted,
        "amount": amount,
        "pay_asset": pay_asset,
        "attempt_of": root,
        "job_id": job_id,
    }


def facts_of(
    account_id: str,
    rail: str,
    quote: Quote,
    root: str | None,
    *,
    hold: bool,
    job_id: str | None,
    link: str | None,
    purchase: Purchase | None = None,
    charged: bool = False,
) -> Callable[[int], events.PaymentOpened]:
    """What is stored of the intent, but for the ordinal that the transaction gives it."""
    return lambda ordinal: events.PaymentOpened(
        account_id=account_id,
        rail=rail,
        ordinal=ordinal,
        amount_due=quote.amount_due,
        credits=quote.credits,
        price=quote.price,
        rate=quote.rate,
        rate_source=quote.source,
        quote_expires_at=quote.expires_at,
        attempt_of=root,
        hold=hold,
        job_id=job_id,
        link=link,
        purchase=purchase,
        charged=charged,
    )
