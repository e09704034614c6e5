"""Why a payment may not be opened or changed. Codes are stored and messages are public."""

from __future__ import annotations

from ledger.errors import Refusal


class UnknownRail(Refusal):
    """Details: `rail`."""

    code = "unknown_rail"
    message = "There is no such payment method."


class RailClosed(Refusal):
    """Details: `rail`, `reason`, and `others`: the rails that are open now."""

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


class NothingToRefund(Refusal):
    """All of it is used, or went back."""

    code = "nothing_to_refund"
    message = "Nothing of this payment can be sent back: its credits are used, or went back already."


class RefundUnclear(Refusal):
    """Details: `lots`, the ids to choose from."""

    code = "refund_unclear"
    message = "This payment bought credits more than once; name which of them is to be refunded."


class RefundUnderWay(Refusal):
    """Details: `refund_id`."""

    code = "refund_under_way"
    message = "A refund of this money is under way; another one can follow when it has ended."


class RefundTooLate(Refusal):
    """Details: `days`."""

    code = "refund_too_late"
    message = "The time in which this payment can be refunded on request is over."


class DestinationMissing(Refusal):
    """Details: `refund_to`."""

    code = "destination_missing"
    message = "Say where the money is to be sent: this payment method cannot send it back by itself."


class DestinationNotTaken(Refusal):
    """Details: `refund_to`."""

    code = "destination_not_taken"
    message = "This payment method sends money back to where it came from, and nowhere else."


class DestinationUnusable(Refusal):
    """Details: `reason` (`unreadable` or `other_amount`), and `amount_minor` and `asset`: what would be sent."""

    code = "destination_unusable"
    message = "The money cannot be sent there: this cannot be read, or it asks for another amount."


class RefundNotFound(Refusal):
    """Details: `refund_id`."""

    code = "refund_not_found"
    message = "There is no such refund."


class RefundNotByHand(Refusal):
    """Details: `refund_id`."""

    code = "refund_not_by_hand"
    message = "This refund has ended, or the payment method sends it by itself: there is nothing to record."
