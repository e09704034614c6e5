"""Webhook messages and listed events: which are about us, and what about. Pure but for the signature."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import stripe

from ledger.identifiers import is_identifier
from rails.contract import NotificationRejected, RejectionReason
from rails.reading import understood
from rails.stripe.reading_subscriptions import our_subscription_id, subscription_of_invoice

Json = dict[str, Any]

LISTED_TYPES = (
    "checkout.session.completed",
    "checkout.session.expired",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "charge.updated",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.payment_action_required",
)
"""What the event list is read for behind the webhooks. Stripe filters by at most 20 types."""
EVENT_TYPES = (
    *LISTED_TYPES,
    # Beside each of these comes one of the above.
    "payment_intent.processing",
    "payment_intent.canceled",
    "charge.refunded",
    "charge.dispute.updated",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.pending_update_applied",
    "customer.subscription.pending_update_expired",
    "invoice.finalized",
    "invoice.updated",
    "invoice.voided",
    "invoice.marked_uncollectible",
)
"""What a webhook may be about."""
MAX_TYPES = 20
CHARGED = {"charged": "saved"}
"""In the metadata of a payment intent that charges a saved card: it has no page, and is asked about by itself."""
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
    """What an event is about: a reference of ours, or a payment intent whose reference must be found."""

    event_id: str
    kind: str
    reference: str | None = None
    intent: str | None = None
    payment_id: str | None = None


def read_subject(event: Json) -> Subject | None:
    """What this event is about, or None if it cannot be about a payment of ours.

    Raises `RailProtocolError` if it says so in a way that we do not understand.
    """
    with understood("Stripe"):
        kind = event["type"]
        if kind not in EVENT_TYPES:
            return None
        event_id = _identifier(event["id"], "evt")
        value = event["data"]["object"]
        if value["object"] in ("refund", "dispute"):
            intent = _intent_of(value)
            return Subject(event_id, kind, intent=intent) if intent else None
        if value["object"] in ("subscription", "invoice", "checkout.session"):
            reference = _reference_of(value)
            return Subject(event_id, kind, reference=reference) if reference else None
        payment_id = our_payment_id(value)
        if payment_id is None:
            return None
        match value["object"]:
            case "payment_intent" | "charge" as named:
                # Charges inherit the metadata that we gave their payment intent.
                intent = _identifier(value["id"], "pi") if named == "payment_intent" else _intent_of(value)
                reference = intent if is_charged(value) else None
                return Subject(event_id, kind, reference=reference, intent=intent, payment_id=payment_id)
            case _:
                return None


def _reference_of(value: Json) -> str | None:
    """What to ask about: a page to pay or subscribe on, or a subscription; None if it is none of ours."""
    match value["object"]:
        case "checkout.session":
            ours = our_payment_id(value) or our_subscription_id(value)
            return _identifier(value["id"], "cs") if ours else None
        case "subscription":
            return _identifier(value["id"], "sub") if our_subscription_id(value) else None
        case _:
            named = subscription_of_invoice(value)
            return None if named is None else _identifier(named[0], "sub")


def _intent_of(value: Json) -> str | None:
    """The payment intent of a charge, a refund or a dispute; old charges have none."""
    intent = value["payment_intent"]
    return None if intent is None else _identifier(intent, "pi")


def _identifier(text: Any, prefix: str) -> str:
    """One of Stripe's ids: what is in it ends in our tables."""
    if not isinstance(text, str) or not re.fullmatch(rf"{prefix}_[A-Za-z0-9_]{{1,250}}", text):
        raise ValueError("not an id of Stripe")
    return text


def our_payment_id(value: Json) -> str | None:
    """The payment id that we put into an object's metadata."""
    metadata = value.get("metadata")
    payment_id = metadata.get("payment_id") if isinstance(metadata, dict) else None
    return payment_id if isinstance(payment_id, str) and is_identifier(payment_id, "pay") else None


def is_charged(value: Json) -> bool:
    """Whether it is of a payment intent that charges a saved card for us."""
    metadata = value.get("metadata")
    mine = isinstance(metadata, dict) and CHARGED.items() <= metadata.items()
    return mine and our_payment_id(value) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRules:
    """What a webhook message must satisfy."""

    secrets: tuple[str, ...]
    """Any of them may have signed: several while one is exchanged for another."""
    api_version: str
    livemode: bool
    tolerance_seconds: int = 300


def open_message(headers: Mapping[str, str], body: bytes, rules: WebhookRules, now: datetime) -> Json:
    """The event inside a genuine message. Raises `NotificationRejected`.

    The signature is HMAC-SHA256 over `<t>.<raw body>` in the `Stripe-Signature` header; the SDK
    checks it, we check its age against our own clock.
    """
    header = next((value for name, value in headers.items() if name.lower() == "stripe-signature"), "")
    _check_signature(header, body, rules.secrets)
    _check_age(header, now, rules.tolerance_seconds)
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        raise NotificationRejected("The message is not JSON.") from None
    if not _is_event(event):
        raise NotificationRejected("The message is not a Stripe event.")
    if event["api_version"] != rules.api_version:
        raise NotificationRejected(
            f"The message has the shapes of API version {str(event['api_version'])[:40]!r}; set the webhook "
            f"endpoint's API version to {rules.api_version}.",
            reason=RejectionReason.VERSION,
        )
    if event["livemode"] is not rules.livemode:
        raise NotificationRejected(
            "The message is from Stripe's other mode (live or test).", reason=RejectionReason.MODE
        )
    return dict(event)


def _check_signature(header: str, body: bytes, secrets: Sequence[str]) -> None:
    # The SDK compares as text, which only ASCII can be.
    if not header.isascii() or not any(_is_signed(header, body, secret) for secret in secrets):
        raise NotificationRejected(
            "The Stripe-Signature header does not match the body.", reason=RejectionReason.SIGNATURE
        )


def _is_signed(header: str, body: bytes, secret: str) -> bool:
    try:
        return bool(stripe.WebhookSignature.verify_header(body, header, secret, None))
    except (stripe.SignatureVerificationError, ValueError, TypeError):
        return False


def _check_age(header: str, now: datetime, tolerance_seconds: int) -> None:
    """A clock of theirs may be a little ahead of ours; a message of tomorrow is nobody's."""
    age = int(now.timestamp()) - next(int(part[2:]) for part in header.split(",") if part.startswith("t="))
    if age > tolerance_seconds:
        raise NotificationRejected("The message was signed too long ago.", reason=RejectionReason.AGE)
    if age < -tolerance_seconds:
        raise NotificationRejected("The message was signed in the future.", reason=RejectionReason.AGE)


def _is_event(event: Any) -> bool:
    if not isinstance(event, dict) or event.get("object") != "event":
        return False
    data = event.get("data")
    if not {"id", "type", "api_version", "livemode"} <= event.keys() or not isinstance(data, dict):
        return False
    value = data.get("object")
    return isinstance(event["type"], str) and isinstance(value, dict) and isinstance(value.get("object"), str)
