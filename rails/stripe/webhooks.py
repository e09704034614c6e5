"""Webhook messages and listed events: which are about us, and what about. Pure but for the signature."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import stripe

from ledger.identifiers import is_identifier
from rails.contract import HintRejected

Json = dict[str, Any]

EVENT_TYPES = (
    "checkout.session.completed",
    "checkout.session.expired",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "payment_intent.processing",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.canceled",
    "charge.updated",
    "charge.refunded",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
)
"""Stripe filters by at most 20 types."""
MAX_TYPES = 20
FOLLOWED = frozenset(
    {
        "payment_intent.processing",
        "payment_intent.succeeded",
        "payment_intent.canceled",
        "charge.updated",
        "charge.refunded",
    }
)
"""Beside each of these comes another event that names the session, or the list will tell in time.

Where such a message alone cannot be tied to a session, looking at everything pending for its
sake would cost as many questions as there are payers at the till.
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about: a session of ours, or a payment intent whose session must be found."""

    event_id: str
    kind: str
    session: str | None = None
    intent: str | None = None
    payment_id: str | None = None


def read_subject(event: Json) -> Subject | None:
    """What this event is about, or None if it cannot be about a payment of ours."""
    kind = event["type"]
    if kind not in EVENT_TYPES:
        return None
    value = event["data"]["object"]
    payment_id = our_payment_id(value)
    match value["object"]:
        case "checkout.session":
            return Subject(event["id"], kind, session=value["id"]) if payment_id else None
        case "payment_intent":
            return (
                Subject(event["id"], kind, intent=value["id"], payment_id=payment_id) if payment_id else None
            )
        case "charge":
            # Charges inherit the metadata that we gave their payment intent.
            intent = value["payment_intent"]
            return Subject(event["id"], kind, intent=intent, payment_id=payment_id) if payment_id else None
        case "refund" | "dispute":
            intent = value["payment_intent"]
            return Subject(event["id"], kind, intent=intent) if intent else None
        case _:
            return None


def our_payment_id(value: Json) -> str | None:
    """The payment id that we put into an object's metadata."""
    payment_id = (value.get("metadata") or {}).get("payment_id")
    return payment_id if isinstance(payment_id, str) and is_identifier(payment_id, "pay") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRules:
    """What a webhook message must satisfy."""

    secret: str
    api_version: str
    livemode: bool
    tolerance_seconds: int = 300


def open_message(headers: Mapping[str, str], body: bytes, rules: WebhookRules, now: datetime) -> Json:
    """The event inside a genuine message. Raises `HintRejected`.

    The signature is HMAC-SHA256 over `<t>.<raw body>` in the `Stripe-Signature` header; the SDK
    checks it, we check its age against our own clock.
    """
    header = next((value for name, value in headers.items() if name.lower() == "stripe-signature"), None)
    try:
        stripe.WebhookSignature.verify_header(body, header, rules.secret, None)
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        raise HintRejected("The Stripe-Signature header does not match the body.") from None
    if _signed_at(header or "") < now.timestamp() - rules.tolerance_seconds:
        raise HintRejected("The message was signed too long ago.")
    try:
        event = json.loads(body)
    except ValueError:
        raise HintRejected("The message is not JSON.") from None
    if not _is_event(event):
        raise HintRejected("The message is not a Stripe event.")
    if event["api_version"] != rules.api_version:
        raise HintRejected(
            f"The message has the shapes of API version {str(event['api_version'])[:40]}; set the webhook "
            f"endpoint's API version to {rules.api_version}."
        )
    if event["livemode"] is not rules.livemode:
        raise HintRejected("The message is from Stripe's other mode (live or test).")
    return dict(event)


def _signed_at(header: str) -> int:
    return next(int(part[2:]) for part in header.split(",") if part.startswith("t="))


def _is_event(event: Any) -> bool:
    if not isinstance(event, dict) or event.get("object") != "event":
        return False
    data = event.get("data")
    if not {"id", "type", "api_version", "livemode"} <= event.keys() or not isinstance(data, dict):
        return False
    value = data.get("object")
    return isinstance(value, dict) and isinstance(value.get("object"), str)
