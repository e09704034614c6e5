"""Why an account may say no. Each docstring is the public message."""

from __future__ import annotations

from ledger.errors import Refusal


class InvalidAmount(Refusal):
    """The amount must be a positive whole number within reason."""


class InsufficientCredits(Refusal):
    """There are not enough credits available."""


class AccountInDebt(Refusal):
    """The account owes credits because a payment was taken back; a top-up clears it."""


class AccountMerged(Refusal):
    """This guest account has been merged into another account."""


class AccountNotMergeable(Refusal):
    """An account cannot be merged into itself."""


class LotAlreadyGranted(Refusal):
    """This lot has already been granted."""


class LotNotFound(Refusal):
    """There is no such lot with unspent credits."""


class LotDisputed(Refusal):
    """The payment behind these credits is disputed, so they cannot be refunded."""


class LotNotRefundable(Refusal):
    """Nobody paid for these credits, so they cannot be refunded."""


class ExpiryPassed(Refusal):
    """The credits would already have expired."""


class HoldAlreadyOpen(Refusal):
    """A hold with this id is already open."""


class HoldNotOpen(Refusal):
    """The hold is not open: it was resolved before, or never existed."""


class HoldPastDeadline(Refusal):
    """The hold's deadline has passed, so it can no longer be used."""


class HoldNotDue(Refusal):
    """The hold's deadline has not passed yet."""


class DeadlinePassed(Refusal):
    """A hold needs a deadline in the future."""


class OverageNotAllowed(Refusal):
    """More was to be captured than was held and allowed beyond it."""


class RefundAlreadyOpen(Refusal):
    """A refund with this id is already open."""


class RefundNotOpen(Refusal):
    """The refund is not open: it was resolved before, or never existed."""


class RefundTooLarge(Refusal):
    """A refund is at most what was paid for the unspent credits."""


class ReversalAlreadyBooked(Refusal):
    """This reversal has already been booked."""


class ReversalNotFound(Refusal):
    """There is no open dispute with this id."""


class ReasonMissing(Refusal):
    """An adjustment by hand needs an actor and a reason."""


class NoDebt(Refusal):
    """The account does not owe that much."""


class SubscriptionNotFound(Refusal):
    """There is no such active subscription."""


class PeriodAlreadyGranted(Refusal):
    """This subscription period, or a later one, has already been granted."""


class PeriodOverlaps(Refusal):
    """The period begins before the one already paid for has ended."""


class InvalidPeriod(Refusal):
    """A period must end after it begins."""


class ScheduleNotFound(Refusal):
    """There is no such earning schedule."""


class NothingToBill(Refusal):
    """The account has not used that much beyond its allowance."""
