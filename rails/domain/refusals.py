"""Why a payment may not be opened or changed. Codes are stored and messages are public."""

from __future__ import annotations

from ledger.errors import Refusal


class UnknownRail(Refusal):
    """Details: `rail`."""

    code = "unknown_rail"
    message = "There is no such payment method."


class RailClosed(Refusal):
    """Details: `rail` and `reason`."""

    code = "rail_closed"
    message = "This payment method is closed at the moment."


class AssetNotAccepted(Refusal):
    """Details: `asset` and `rail`."""

    code = "asset_not_accepted"
    message = "This payment method does not take that asset."


class TopupUnclear(Refusal):
    """Both of the two were given, or neither."""

    code = "topup_unclear"
    message = "A top-up names either credits or an amount."


class AmountTooSmall(Refusal):
    """Details: `minimum_minor` and `asset`."""

    code = "amount_too_small"
    message = "The amount is below the least that can be paid this way."


class AmountTooLarge(Refusal):
    """Details: `maximum_minor`, `asset` and `credits_max`."""

    code = "amount_too_large"
    message = "The amount is above the most that can be paid this way."


class TooManyOpenPayments(Refusal):
    """Details: `limit`."""

    code = "too_many_open_payments"
    message = "Too many payments of this account are open; finish or cancel one first."


class PaymentRetracted(Refusal):
    """What it was to pay for ended before it was opened."""

    code = "payment_retracted"
    message = "What was to be paid for is over; no payment is opened for it any more."


class CannotHold(Refusal):
    """Details: `rail`."""

    code = "cannot_hold"
    message = "This payment method cannot hold money for a single image."


class NoWebhooks(Refusal):
    """Details: `rail`."""

    code = "no_webhooks"
    message = "This payment method takes no notifications."


class MoneyCreditedElsewhere(Refusal):
    """Details: `money_ref` and `payment_id`."""

    code = "money_credited_elsewhere"
    message = "This money has already been credited to another payment."
