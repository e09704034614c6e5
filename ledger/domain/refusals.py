"""Why an account may say no. Codes are stored and messages are public: neither follows a class name."""

from __future__ import annotations

from ledger.errors import Refusal


class InvalidAmount(Refusal):
    """Details: `amount_minor` and `credits`."""

    code = "invalid_amount"
    message = "The amount must be a positive whole number within reason."


class InsufficientCredits(Refusal):
    """Details: `wanted` and `available`."""

    code = "insufficient_credits"
    message = "There are not enough credits available."


class AccountInDebt(Refusal):
    """Details: `debt`."""

    code = "account_in_debt"
    message = "The account owes credits because a payment was taken back; a top-up clears it."


class AccountMerged(Refusal):
    """Details: `into`."""

    code = "account_merged"
    message = "This guest account has been merged into another account."


class AccountNotMergeable(Refusal):
    """Details: `account_id`."""

    code = "account_not_mergeable"
    message = "An account cannot be merged into itself."


class LotAlreadyGranted(Refusal):
    """Details: `lot_id`."""

    code = "lot_already_granted"
    message = "This lot has already been granted."


class LotNotFound(Refusal):
    """Details: `lot_id`, `left` and `wanted`."""

    code = "lot_not_found"
    message = "There is no such lot with unspent credits."


class LotDisputed(Refusal):
    """Details: `lot_id` and `reversal_id`."""

    code = "lot_disputed"
    message = "The payment behind these credits is disputed, so they cannot be refunded."


class LotNotRefundable(Refusal):
    """Details: `lot_id`."""

    code = "lot_not_refundable"
    message = "Nobody paid for these credits, so they cannot be refunded."


class ExpiryPassed(Refusal):
    """Details: `expires_at`."""

    code = "expiry_passed"
    message = "The credits would already have expired."


class HoldAlreadyOpen(Refusal):
    """Details: `hold_id`."""

    code = "hold_already_open"
    message = "A hold with this id is already open."


class HoldNotOpen(Refusal):
    """Details: `hold_id`."""

    code = "hold_not_open"
    message = "The hold is not open: it was resolved before, or never existed."


class HoldPastDeadline(Refusal):
    """Details: `hold_id` and `deadline`."""

    code = "hold_past_deadline"
    message = "The hold's deadline has passed, so it can no longer be used."


class HoldNotDue(Refusal):
    """Details: `hold_id` and `deadline`."""

    code = "hold_not_due"
    message = "The hold's deadline has not passed yet."


class DeadlinePassed(Refusal):
    """Details: `deadline`."""

    code = "deadline_passed"
    message = "A hold needs a deadline in the future."


class OverageNotAllowed(Refusal):
    """Details: `hold_id`, `held`, `wanted` and `overage_limit`."""

    code = "overage_not_allowed"
    message = "More was to be captured than was held and allowed beyond it."


class RefundAlreadyOpen(Refusal):
    """Details: `refund_id`."""

    code = "refund_already_open"
    message = "A refund with this id is already open."


class RefundNotOpen(Refusal):
    """Details: `refund_id`."""

    code = "refund_not_open"
    message = "The refund is not open: it was resolved before, or never existed."


class RefundTooLarge(Refusal):
    """Details: `wanted_minor` and `largest_minor`."""

    code = "refund_too_large"
    message = "A refund is at most what was paid for the unspent credits."


class ReversalAlreadyBooked(Refusal):
    """Details: `reversal_id`."""

    code = "reversal_already_booked"
    message = "This reversal has already been booked."


class ReversalNotFound(Refusal):
    """Details: `reversal_id`."""

    code = "reversal_not_found"
    message = "There is no open dispute with this id."


class ReasonMissing(Refusal):
    """One of the two is empty."""

    code = "reason_missing"
    message = "An adjustment by hand needs an actor and a reason."


class NoDebt(Refusal):
    """Details: `debt` and `wanted`."""

    code = "no_debt"
    message = "The account does not owe that much."


class SubscriptionNotFound(Refusal):
    """Details: `subscription_id`."""

    code = "subscription_not_found"
    message = "There is no such active subscription."


class PeriodAlreadyGranted(Refusal):
    """Details: `subscription_id` and `period_start`."""

    code = "period_already_granted"
    message = "This subscription period has already been granted."


class InvalidPeriod(Refusal):
    """Details: `period_start` and `period_end`."""

    code = "invalid_period"
    message = "A period must end after it begins."


class ScheduleNotFound(Refusal):
    """Details: `schedule_id`."""

    code = "schedule_not_found"
    message = "There is no such earning schedule."


class NothingToBill(Refusal):
    """Details: `owed` and `wanted`."""

    code = "nothing_to_bill"
    message = "The account has not used that much beyond its allowance."
