"""What Stripe's objects say about subscriptions. Pure.

Since API version `basil` periods are on a subscription's items, and an invoice names its subscription under
`parent` (docs.stripe.com/changelog/basil).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ledger.identifiers import is_identifier
from ledger.money import USD, Money
from rails.breakdown import Breakdown
from rails.contract import Observation, PaymentRequestStatus, RailProtocolError
from rails.reading import understood
from rails.recurring import (
    Invoice,
    InvoiceLine,
    InvoiceStatus,
    Offer,
    SubscriptionObservation,
    SubscriptionStatus,
)
from rails.stripe import breakdowns
from rails.stripe.amounts import amount_of, name_of
from rails.stripe.reading import read_receipt, sent_back

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Overage:
    """A price is for each credit that is used beyond a plan."""

    unit_minor: int


Offers = Mapping[str, Offer | Overage | None]
"""What each price is for; None is for nothing of ours."""
OVERAGE = "overage"
"""The metadata of such a price, and the end of its lookup key."""
SUBSCRIPTION_ID = "subscr"
"""The prefix of our own ids of subscriptions."""
LENGTHS = ("month", "year")
_STATUS = {
    "incomplete": SubscriptionStatus.INCOMPLETE,
    "incomplete_expired": SubscriptionStatus.EXPIRED,
    "trialing": SubscriptionStatus.TRIALING,
    "active": SubscriptionStatus.ACTIVE,
    "past_due": SubscriptionStatus.PAST_DUE,
    "unpaid": SubscriptionStatus.UNPAID,
    "paused": SubscriptionStatus.PAUSED,
    "canceled": SubscriptionStatus.ENDED,
}
_COLLECTED = (SubscriptionStatus.ACTIVE, SubscriptionStatus.TRIALING)


def lookup_key(offer: Offer) -> str:
    """Under which key the catalogue has a plan's price."""
    return f"{offer.plan}_{offer.length}"


def overage_key(plan: str) -> str:
    """Under which key the catalogue has the price of what is used beyond a plan."""
    return f"{plan}_{OVERAGE}"


def read_offer(price: Json) -> Offer | Overage | None:
    """What a price is for, by the metadata that the catalogue gave it. Raises `RailProtocolError`."""
    with understood("Stripe"):
        if OVERAGE in price["metadata"]:
            metered = price["recurring"] is not None and price["recurring"]["usage_type"] == "metered"
            return Overage(amount_of(price["unit_amount"])) if metered else None
        plan = price["metadata"].get("plan")
        rule = price["recurring"]
        if not isinstance(plan, str) or rule is None or rule["interval_count"] != 1:
            return None
        length = rule["interval"]
        return Offer(plan=name_of(plan), length=length) if length in LENGTHS else None


def our_subscription_id(value: Json) -> str | None:
    """Our id of a subscription, out of an object's metadata."""
    metadata = value.get("metadata")
    found = metadata.get("subscription_id") if isinstance(metadata, dict) else None
    return found if isinstance(found, str) and is_identifier(found, SUBSCRIPTION_ID) else None


def subscription_of_invoice(invoice: Json) -> tuple[str, str] | None:
    """Stripe's and our id of the subscription that an invoice is for; None if it is none of ours."""
    details = (invoice.get("parent") or {}).get("subscription_details")
    if not isinstance(details, dict):
        return None
    ours, theirs = our_subscription_id(details), details.get("subscription")
    return (name_of(theirs), ours) if ours is not None else None


def prices_in(subscription: Json, invoices: Sequence[Json]) -> Sequence[str]:
    """Every price that the objects name. Raises `RailProtocolError`."""
    with understood("Stripe"):
        found = [price for _, price in _items(subscription)]
        found += [price for _, price in _phases(subscription)]
        found += [price for invoice in invoices for price in _line_prices(invoice)]
        pending = subscription["pending_update"]
        found += [item["price"]["id"] for item in (pending or {}).get("subscription_items") or ()]
        return [name_of(price) for price in dict.fromkeys(found)]


def _items(subscription: Json) -> Iterator[tuple[Json, str]]:
    for item in subscription["items"]["data"]:
        yield item, item["price"]["id"]


def _phases(subscription: Json) -> Iterator[tuple[Json, str]]:
    schedule = subscription["schedule"]
    for phase in schedule["phases"] if schedule else ():
        for item in phase["items"]:
            yield phase, item["price"]


def _line_prices(invoice: Json) -> Iterator[str]:
    for line in invoice["lines"]["data"]:
        price = _line_price(line)
        if price is not None:
            yield price


def _line_price(line: Json) -> str | None:
    details = (line["pricing"] or {}).get("price_details")
    return None if details is None else details["price"]


def read_subscription(
    subscription: Json, invoices: Sequence[Json], offers: Offers
) -> SubscriptionObservation | None:
    """Everything known about one subscription; None if it is none of ours. Raises `RailProtocolError`."""
    with understood("Stripe"):
        ours = our_subscription_id(subscription)
        if ours is None:
            return None
        status = _STATUS.get(subscription["status"])
        if status is None:
            raise RailProtocolError(
                f"Stripe reported an unknown subscription status {subscription['status']!r}"
            )
        if status in _COLLECTED and subscription["pause_collection"] is not None:
            status = SubscriptionStatus.PAUSED
        items = [(item, _offer(offers, price)) for item, price in _items(subscription)]
        ours_first = sorted(items, key=lambda pair: pair[1] is None)
        beyond = [
            found for _, price in _items(subscription) if isinstance(found := offers.get(price), Overage)
        ]
        item, offer = ours_first[0] if ours_first else (None, None)
        pending = subscription["pending_update"]
        return SubscriptionObservation(
            subscription_id=ours,
            status=status,
            reference=name_of(subscription["id"]),
            offer=offer,
            period_start=None if item is None else _time(item["current_period_start"]),
            period_end=None if item is None else _time(item["current_period_end"]),
            cancels=_cancels(subscription),
            next_offer=None if item is None else _next_offer(subscription, item, offer, offers),
            pending_offer=_pending_offer(pending, offers),
            overage=Money(beyond[0].unit_minor, USD) if beyond else None,
            invoices=tuple(_invoice(invoice, offers) for invoice in reversed(invoices)),
        )


def _offer(offers: Offers, price: str | None) -> Offer | None:
    found = None if price is None else offers.get(price)
    return found if isinstance(found, Offer) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Managed:
    """What has to be known of a subscription to change it."""

    item: str
    """The one item that a subscription of ours is paid for ahead by."""
    price: str
    metered: str | None
    """The price of what is used beyond, if that is billed."""
    length: str
    period_start: datetime
    period_end: datetime
    customer: str
    schedule: str | None
    phase_start: int | None
    """When the present phase of the schedule began, in seconds since 1970."""
    ends_with_period: bool
    ends_at_a_date: bool
    is_paused: bool
    discounts: Sequence[str]
    """What is taken off each invoice, by Stripe's names."""


def read_managed(subscription: Json) -> Managed:
    """A subscription of ours as it is to be changed. Raises `RailProtocolError`."""
    with understood("Stripe"):
        items = subscription["items"]["data"]
        metered = [
            item["price"]["id"] for item in items if item["price"]["recurring"]["usage_type"] == "metered"
        ]
        (item,) = [item for item in items if item["price"]["recurring"]["usage_type"] != "metered"]
        schedule = subscription["schedule"]
        return Managed(
            item=name_of(item["id"]),
            price=name_of(item["price"]["id"]),
            metered=name_of(metered[0]) if metered else None,
            length=name_of(item["price"]["recurring"]["interval"]),
            period_start=_time(item["current_period_start"]),
            period_end=_time(item["current_period_end"]),
            customer=name_of(subscription["customer"]),
            schedule=None if schedule is None else name_of(schedule["id"]),
            phase_start=None if schedule is None else read_phase_start(schedule),
            ends_with_period=bool(subscription["cancel_at_period_end"]),
            ends_at_a_date=subscription["cancel_at"] is not None,
            is_paused=subscription["pause_collection"] is not None,
            discounts=[
                name_of(entry if isinstance(entry, str) else entry["id"])
                for entry in subscription["discounts"]
            ],
        )


def read_phase_start(schedule: Json) -> int:
    """When the present phase of a schedule began, in seconds since 1970. Raises `RailProtocolError`."""
    with understood("Stripe"):
        return int(_time(schedule["current_phase"]["start_date"]).timestamp())


def _cancels(subscription: Json) -> bool:
    # A portal may also say it by a date alone.
    return bool(subscription["cancel_at_period_end"]) or subscription["cancel_at"] is not None


def _next_offer(subscription: Json, item: Json, offer: Offer | None, offers: Offers) -> Offer | None:
    for phase, price in _phases(subscription):
        coming = _offer(offers, price)
        if phase["start_date"] >= item["current_period_end"] and coming is not None:
            return coming if coming != offer else None
    return None


def _pending_offer(pending: Json | None, offers: Offers) -> Offer | None:
    for item in (pending or {}).get("subscription_items") or ():
        offer = _offer(offers, item["price"]["id"])
        if offer is not None:
            return offer
    return None


def _invoice(invoice: Json, offers: Offers) -> Invoice:
    if invoice["currency"] != "usd":
        raise RailProtocolError(f"an invoice of ours is in {invoice['currency']!r}")
    match invoice["status"]:
        case "open":
            status = InvoiceStatus.OPEN
        case "paid":
            status = InvoiceStatus.PAID
        case "draft" | "void" | "uncollectible":
            status = InvoiceStatus.SET_ASIDE
        case other:
            raise RailProtocolError(f"Stripe reported an unknown invoice status {other!r}")
    again, is_open = invoice["next_payment_attempt"], status is InvoiceStatus.OPEN
    due, parts = amount_of(invoice["amount_due"]), breakdowns.of_invoice(invoice)
    return Invoice(
        reference=name_of(invoice["id"]),
        status=status,
        due=Money(due, USD),
        price=Money(due if parts is None else parts.of(due).price_minor, USD),
        created_at=_time(invoice["created"]),
        lines=tuple(_line(line, offers) for line in invoice["lines"]["data"]),
        next_attempt_at=_time(again) if is_open and again is not None else None,
        pay_url=_page(invoice["hosted_invoice_url"]) if is_open else None,
    )


def _line(line: Json, offers: Offers) -> InvoiceLine:
    price = _line_price(line)
    beyond = price is not None and isinstance(offers.get(price), Overage)
    return InvoiceLine(
        offer=_offer(offers, price),
        starts_at=_time(line["period"]["start"]),
        ends_at=_time(line["period"]["end"]),
        proration=_is_proration(line),
        amount_minor=amount_of(line["amount"], may_be_negative=True),
        overage_credits=amount_of(line["quantity"]) if beyond else 0,
    )


def read_preview(shown: Json) -> tuple[Money, datetime | None]:
    """What an invoice to come asks for, and when the whole period on it ends, if one is. Raises `RailProtocolError`."""
    with understood("Stripe"):
        whole = [_time(line["period"]["end"]) for line in shown["lines"]["data"] if not _is_proration(line)]
        return Money(amount_of(shown["amount_due"]), USD), max(whole, default=None)


def _is_proration(line: Json) -> bool:
    parent = line["parent"] or {}
    for name in ("subscription_item_details", "invoice_item_details"):
        details = parent.get(name)
        if details is not None:
            return bool(details["proration"])
    return False


def read_session_of_subscription(session: Json) -> SubscriptionObservation | None:
    """A page to subscribe on where no subscription has come of it yet; None if it is none of ours."""
    with understood("Stripe"):
        ours = our_subscription_id(session)
        if ours is None:
            return None
        match session["status"]:
            case "open":
                status = SubscriptionStatus.OPENING
            case "expired":
                status = SubscriptionStatus.EXPIRED
            case other:
                raise RailProtocolError(f"a session without a subscription is {other!r}")
        return SubscriptionObservation(subscription_id=ours, status=status)


def intents_of(invoice: Json) -> Sequence[str]:
    """The payment intents that pay an invoice, or may. Raises `RailProtocolError`."""
    with understood("Stripe"):
        return [
            name_of(entry["payment"]["payment_intent"])
            for entry in invoice["payments"]["data"]
            if entry["payment"]["type"] == "payment_intent"
        ]


def read_invoice(
    invoice: Json, paid_by: Sequence[tuple[Json, Sequence[Json], Sequence[Json]]]
) -> Observation:
    """The money of one invoice: its payment intents, each with its refunds and disputes."""
    with understood("Stripe"):
        parts = breakdowns.of_invoice(invoice)
        receipts = [read_receipt(*each, _part_of(parts, each[0])) for each in paid_by]
        match invoice["status"]:
            case "open" | "draft":
                status = PaymentRequestStatus.OPEN
            case "paid" | "void" | "uncollectible":
                status = PaymentRequestStatus.CLOSED
            case other:
                raise RailProtocolError(f"Stripe reported an unknown invoice status {other!r}")
        return Observation(
            reference=name_of(invoice["id"]),
            status=status,
            receipts=tuple(receipt for receipt in receipts if receipt is not None),
            refunds=tuple(back for _, refunds, _ in paid_by for back in sent_back(refunds)),
        )


def _part_of(parts: Breakdown | None, intent: Json) -> Breakdown | None:
    """Of an invoice's total, what its payment is: less, where something was kept for the payer."""
    paid = intent["amount_received"] if intent["status"] == "succeeded" else intent["amount"]
    return None if parts is None else parts.of(amount_of(paid))


def _time(value: Any) -> datetime:
    if type(value) is not int:
        raise ValueError("not a time")
    return datetime.fromtimestamp(value, UTC)


def _page(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.startswith(("https://", "http://")) or len(value) > 2_000:
        raise ValueError("not an address")
    return value
