"""Every problem code with its HTTP status, title and public details: for answers and the API's description alike.

A code is what a client's program decides by, and refusals are stored under theirs. A golden file guards them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from generation.images.blankness import BLANK


class Meaning(NamedTuple):
    """How a problem of our own is answered: `text` is its detail where nothing more exact is known."""

    status: int
    title: str
    text: str


class Answer(NamedTuple):
    """How a refusal is answered. Its text is the refusal's own message."""

    status: int
    title: str
    details: frozenset[str] = frozenset()
    """The details that the account asking may read; what is not named here is not sent.
    Another account's id, or a payment's, is never among them."""


def _met(status: int, title: str, *details: str) -> Answer:
    return Answer(status, title, frozenset(details))


def _unmet(title: str) -> Answer:
    return Answer(409, title)


OWN: Mapping[str, Meaning] = {
    "malformed_json": Meaning(400, "Not JSON", "The body is not valid JSON."),
    "malformed_request": Meaning(400, "Not HTTP", "The request is not valid HTTP."),
    "bad_idempotency_key": Meaning(
        400, "Idempotency-Key not usable", "The Idempotency-Key is empty, too long, or not printable ASCII."
    ),
    "bad_host": Meaning(
        400, "Host not clear", "The request has no Host header, several, or one that is no host."
    ),
    "bad_last_event_id": Meaning(
        400, "Last-Event-ID not known", "The Last-Event-ID is not from this account's stream."
    ),
    "hint_rejected": Meaning(400, "Notification not authentic", "A rail's notification is not authentic."),
    "unauthenticated": Meaning(401, "Not signed in", "There is no token, or it is not valid."),
    "l402_not_valid": Meaning(
        401, "L402 credential not valid", "This L402 credential is not genuine, not whole, or over."
    ),
    "payment_required": Meaning(
        402,
        "Payment required",
        "Pay the invoice of the challenge, and send the same request with the credential.",
    ),
    "l402_not_allowed": Meaning(403, "Not by this token", "This L402 token is not good for this request."),
    "worker_not_allowed": Meaning(401, "Worker not known", "The worker's credentials are not valid."),
    "operators_only": Meaning(403, "Operators only", "This is for whoever runs this site."),
    "foreign_origin": Meaning(
        403, "Sent from another site", "A write with a cookie came from another site's page."
    ),
    "link_not_valid": Meaning(
        403, "Link not valid", "The link is wrong or has expired. Ask for the image again."
    ),
    "no_sign_in_links": Meaning(
        404, "No sign-in by mail", "No links to sign in are mailed here: sign in with the identity provider."
    ),
    "sign_in_link_not_valid": Meaning(
        403,
        "Link not valid",
        "This link to sign in is wrong, was used before, or is over. Ask for a new one.",
    ),
    "mail_link_not_valid": Meaning(
        403,
        "Link not valid",
        "This link to choose what is mailed is not valid. Copy all of it, from the letter.",
    ),
    "topup_link_not_valid": Meaning(
        403,
        "Top-up link not valid",
        "This is no link of ours to top up an account, or it is not whole. Ask for a new one.",
    ),
    "topup_link_expired": Meaning(
        403, "Top-up link expired", "This link to top up an account has ended. Ask for a new one."
    ),
    "sign_in_needed": Meaning(
        403, "Sign in first", "A plan needs an account that you can come back to. Sign in, then subscribe."
    ),
    "not_found": Meaning(404, "Not found", "There is nothing at this address."),
    "no_image": Meaning(404, "No image", "There is no image yet, or it was erased."),
    "no_object": Meaning(404, "No such object", "The object behind the link is gone."),
    "recovery_code_unknown": Meaning(
        404,
        "Recovery code not known",
        "Nobody has this recovery code. Check it against the one that you wrote down.",
    ),
    "no_built_in_issuer": Meaning(
        404, "No sign-in by e-mail address", "Sign in with the identity provider, and send its token."
    ),
    "method_not_allowed": Meaning(405, "Method not allowed", "This address does not take that method."),
    "body_too_slow": Meaning(408, "Body too slow", "The body did not arrive within a minute."),
    "headers_too_slow": Meaning(408, "Headers too slow", "The request's headers did not arrive in time."),
    "refund_not_offered": Meaning(
        409, "No refund on request", "This payment is not refunded on request. Ask whoever runs this site."
    ),
    "idempotency_conflict": Meaning(
        409, "Idempotency-Key used before", "The Idempotency-Key was used with another body."
    ),
    "plan_renews": Meaning(
        409,
        "Plan renews by itself",
        "Your plan renews by itself. Cancel it first: what you pay ahead then begins when it ends.",
    ),
    "plan_paid_ahead": Meaning(
        409, "Plan paid far ahead", "Your plan is paid for more than a year ahead. Pay again later."
    ),
    "body_too_large": Meaning(413, "Body too large", "The body is larger than this address takes."),
    "body_too_complex": Meaning(
        413, "Body too complex", "The body has more fields and elements than this address takes."
    ),
    "address_too_long": Meaning(414, "Address too long", "The address of the request is too long."),
    "sketch_too_large": Meaning(413, "Sketch too large", "The sketch has more than 4 MB."),
    "json_only": Meaning(415, "JSON only", "The body must be JSON, with Content-Type: application/json."),
    "sketch_type": Meaning(415, "Sketch of another type", "The sketch is not a PNG, JPEG or WebP."),
    "invalid_request": Meaning(
        422, "Request not valid", "A field is missing, of another type, or out of its bounds. See `errors`."
    ),
    "sketch_unreadable": Meaning(422, "Sketch not readable", "The sketch is not a picture that can be read."),
    "sketch_size": Meaning(422, "Sketch of another size", "The sketch has too few or too many pixels."),
    "sketch_animated": Meaning(422, "Sketch that moves", "A sketch is one picture; this one moves."),
    "blank_sketch": Meaning(422, "Sketch is blank", BLANK),
    "sketch_too_complex": Meaning(
        422,
        "Sketch too complex",
        "Reading this sketch takes more than a sketch is worth. Save it as a plain PNG or JPEG.",
    ),
    "unknown_product": Meaning(
        422, "Not for sale", "There is no such pack, pass or plan for sale. See `GET /v1/plans`."
    ),
    "unsupported_asset": Meaning(422, "Asset not supported", "Nothing can be paid in this asset."),
    "protocol_mismatch": Meaning(
        426, "Another protocol version", "The worker speaks another version of the protocol."
    ),
    "too_many_streams": Meaning(
        429, "Too many streams", "This account has as many streams open as it may. Close one."
    ),
    "too_many_uploads": Meaning(
        429,
        "Too many uploads",
        "Other uploads from your network are being read. Send this one again in a moment.",
    ),
    "upload_quota_used_up": Meaning(
        429,
        "Too much was sent",
        "So many megabytes of sketches came from you within an hour that we take no more now. Wait a little.",
    ),
    "too_many_bodies": Meaning(
        429,
        "Too much at once",
        "Your network is sending more at the same time than may be. Send this again in a moment.",
    ),
    "headers_too_large": Meaning(
        431, "Headers too large", "The request's headers are larger, or more, than may be."
    ),
    "rate_limited": Meaning(429, "Too many requests", "Too many requests. Wait as long as Retry-After says."),
    "invariant_violated": Meaning(
        500,
        "Nothing was kept",
        "This would have broken our books, so nothing of it was kept. We have been alerted.",
    ),
    "internal": Meaning(500, "Our fault", "Something broke on our side. You were not charged for it."),
    "rail_failed": Meaning(
        502, "Payment method failed", "This payment method gave an answer that we do not understand."
    ),
    "database_unavailable": Meaning(
        503,
        "Database not available",
        "The database does not answer right now. Nothing is lost; send the same request again.",
    ),
    "ledger_unavailable": Meaning(
        503,
        "Ledger not available",
        "The ledger does not answer right now. Nothing is lost; send the same request again.",
    ),
    "notifications_full": Meaning(
        503,
        "Too many notifications",
        "So many notifications wait that no more are taken just now. Send it again later.",
    ),
    "too_busy": Meaning(
        503,
        "Too busy",
        "More is asked at the moment than can be answered. Nothing is lost; send the same request again.",
    ),
    "too_many_connections": Meaning(
        503, "Too many connections", "There are as many connections as may be. Try again in a moment."
    ),
    "bodies_busy": Meaning(
        503, "Too much at once", "So much is being sent that we take no more just now. Send it again."
    ),
    "streams_busy": Meaning(
        503, "Too many streams", "As many streams are open as may be. Try again in a moment."
    ),
    "uploads_busy": Meaning(
        503,
        "Too many uploads",
        "So many uploads are being read that we take no more just now. Send it again.",
    ),
    "too_many_challenges": Meaning(
        429,
        "Too many open invoices",
        "So many invoices are open for your network that no more are opened. Pay one of them, or wait.",
    ),
    "subscription_change_refused": Meaning(
        409, "Change refused", "The payment provider refuses this change; nothing was changed."
    ),
    "rail_unavailable": Meaning(
        503,
        "Payment method not available",
        "This payment method does not answer right now. Try again, or choose another one.",
    ),
    "statement_behind": Meaning(
        503,
        "Statement not up to date",
        "The statement is being brought up to date. Ask again in two seconds.",
    ),
}
"""Problems that are no refusal: of requests, credentials, uploads, and of what we depend on."""

BUSY = frozenset({"too_busy", "too_many_connections", "bodies_busy", "streams_busy", "uploads_busy"})
"""Answers with 503 that are meant: a bound was reached, nothing is broken."""

MET: Mapping[str, Answer] = {
    "insufficient_credits": _met(402, "Not enough credits", "wanted", "available"),
    "account_in_debt": _met(402, "Credits owed", "debt"),
    "allowance_shared_out": _met(402, "No free images left", "cap"),
    "session_spend_cap_reached": _met(402, "Spending limit reached", "limit", "spent", "paused_by"),
    "job_not_found": _met(404, "No such generation"),
    "payment_not_found": _met(404, "No such payment"),
    "unknown_rail": _met(404, "No such payment method", "rail"),
    "no_webhooks": _met(404, "No notifications here", "rail"),
    "refund_not_found": _met(404, "No such refund"),
    "subscription_unknown": _met(404, "No such subscription"),
    "account_not_found": _met(404, "No such account"),
    "account_merged": _met(409, "Account merged"),
    "lot_disputed": _met(409, "Payment disputed"),
    "lot_not_found": _met(409, "No such lot"),
    "money_not_in_suspense": _met(409, "Money not in suspense"),
    "no_debt": _met(409, "No such debt"),
    "refund_not_by_hand": _met(409, "Nothing to record"),
    "nothing_to_refund": _met(409, "Nothing to refund"),
    "refund_too_large": _met(409, "Refund too large"),
    "refund_too_late": _met(409, "Too late for a refund", "days"),
    "refund_unclear": _met(409, "Refund unclear"),
    "refund_under_way": _met(409, "Refund under way"),
    "payment_retracted": _met(409, "Payment not opened"),
    "job_already_ended": _met(409, "Generation already ended", "state"),
    "out_of_order": _met(409, "Frame out of order", "newest"),
    "session_paused": _met(409, "Live session paused", "paused_by"),
    "stale_lease": _met(409, "Lease not valid", "state", "epoch"),
    "subscription_exists": _met(409, "Plan exists already", "plan"),
    "subscription_not_running": _met(409, "Subscription not running", "state"),
    "plan_unchanged": _met(409, "Plan unchanged", "plan"),
    "overage_by_the_month": _met(409, "Use is billed by the month"),
    "change_waits_for_payment": _met(409, "Change waits for payment", "plan"),
    "preview_stale": _met(409, "Preview too old", "seconds_max"),
    "auto_topup_changed": _met(409, "Changed meanwhile"),
    "auto_topup_not_on": _met(409, "Automatic top-up is off"),
    "auto_topup_unavailable": _met(409, "No card can be saved"),
    "auto_topup_unclear": _met(422, "Automatic top-up unclear"),
    "plan_unknown": _met(422, "Plan not known", "plan"),
    "cannot_subscribe": _met(422, "Charges only once", "rail"),
    "amount_too_small": _met(422, "Amount too small", "minimum_minor", "asset"),
    "amount_too_large": _met(422, "Amount too large", "maximum_minor", "asset", "credits_max"),
    "asset_not_accepted": _met(422, "Asset not accepted", "asset", "rail"),
    "topup_unclear": _met(422, "Top-up unclear"),
    "queue_too_long_to_hold": _met(409, "Queue too long to hold a payment", "seconds_max"),
    "cannot_hold": _met(422, "Not for a single image", "rail"),
    "destination_missing": _met(422, "Destination missing", "refund_to"),
    "destination_not_taken": _met(422, "Destination not taken", "refund_to"),
    "destination_unusable": _met(422, "Destination not usable", "reason", "amount_minor", "asset"),
    "invalid_amount": _met(422, "Amount not valid", "amount_minor", "credits"),
    "too_many_in_flight": _met(429, "Too many images at once", "limit"),
    "too_many_paid_apart": _met(429, "Too many images paid apart", "limit"),
    "too_many_variations": _met(429, "Too many variations", "limit"),
    "too_many_subscription_pages": _met(429, "Too many open pages", "limit"),
    "too_many_open_payments": _met(429, "Too many open payments", "limit"),
    "queue_full": _met(503, "Queue full"),
    "no_worker_can_serve": _met(503, "No worker available", "graph"),
    "rail_closed": _met(503, "Payment method closed", "rail", "reason", "others"),
}
"""Refusals that a client can meet. Their texts are the refusals' own messages."""

UNMET: Mapping[str, Answer] = {
    "refused": _unmet("Refused"),
    "account_not_mergeable": _unmet("Account not mergeable"),
    "deadline_passed": _unmet("Deadline passed"),
    "expiry_passed": _unmet("Expiry passed"),
    "hold_already_open": _unmet("Hold already open"),
    "hold_not_due": _unmet("Hold not due"),
    "hold_not_open": _unmet("Hold not open"),
    "hold_past_deadline": _unmet("Hold past its deadline"),
    "invalid_period": _unmet("Period not valid"),
    "lot_already_granted": _unmet("Lot already granted"),
    "lot_not_refundable": _unmet("Lot not refundable"),
    "money_credited_elsewhere": _unmet("Money already credited"),
    "nothing_to_bill": _unmet("Nothing to bill"),
    "overage_not_allowed": _unmet("Overage not allowed"),
    "payment_account_moved": _unmet("Account moved"),
    "payment_already_open": _unmet("Payment already open"),
    "period_already_granted": _unmet("Period already granted"),
    "reason_missing": _unmet("Reason missing"),
    "refund_already_open": _unmet("Refund already open"),
    "refund_not_open": _unmet("Refund not open"),
    "reversal_already_booked": _unmet("Reversal already booked"),
    "reversal_not_found": _unmet("No such dispute"),
    "schedule_not_found": _unmet("No such schedule"),
    "subscription_not_found": _unmet("No such subscription"),
}
"""Refusals of commands that only we, or an operator, give: none of their details is sent.
`refused` stands for a stored one whose class is gone, and for those of plugged-in rails."""

RETRY_AFTER_SECONDS: Mapping[str, int] = {
    "body_too_slow": 1,
    "headers_too_slow": 1,
    "too_many_in_flight": 2,
    "too_many_paid_apart": 30,
    "too_many_variations": 2,
    "too_many_subscription_pages": 300,
    "too_many_open_payments": 60,
    "too_many_streams": 10,
    "too_many_uploads": 2,
    "too_many_bodies": 2,
    "upload_quota_used_up": 600,
    "rate_limited": 10,
    "too_many_challenges": 60,
    "database_unavailable": 2,
    "ledger_unavailable": 2,
    "notifications_full": 30,
    "too_busy": 2,
    "too_many_connections": 5,
    "bodies_busy": 2,
    "streams_busy": 10,
    "uploads_busy": 5,
    "rail_unavailable": 5,
    "rail_closed": 5,
    "statement_behind": 2,
    "queue_full": 10,
    "no_worker_can_serve": 30,
}
"""When what may be sent again is worth sending again: `Retry-After`. Each code of 408, 429 and 503 is here.
About as long as what is in the way lasts: an image two seconds, a minute for a payment that ends, seconds for a rail that is back."""

_ALL: Mapping[str, Meaning | Answer] = {**OWN, **MET, **UNMET}

STATUS: Mapping[str, int] = MappingProxyType({code: answer.status for code, answer in _ALL.items()})
"""By code."""

TITLE: Mapping[str, str] = MappingProxyType({code: answer.title for code, answer in _ALL.items()})
"""By code."""

PUBLIC: Mapping[str, frozenset[str]] = MappingProxyType(
    {code: answer.details for code, answer in {**MET, **UNMET}.items()}
)
"""By a refusal's code: the names of the details that are sent."""
