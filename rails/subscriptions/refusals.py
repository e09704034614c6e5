"""Why a subscription may not be opened or changed. Codes are stored and messages are public."""

from __future__ import annotations

from ledger.errors import Refusal


class SubscriptionUnknown(Refusal):
    """There is none with this id, or it is somebody else's."""

    code = "subscription_unknown"
    message = "There is no such subscription."


class SubscriptionExists(Refusal):
    """Details: `plan`."""

    code = "subscription_exists"
    message = "You have a plan already; change that one instead of buying a second."


class PlanUnknown(Refusal):
    """Details: `plan`."""

    code = "plan_unknown"
    message = "There is no such plan to subscribe to."


class CannotSubscribe(Refusal):
    """Details: `rail`."""

    code = "cannot_subscribe"
    message = "This payment method cannot charge again by itself; a plan can be paid ahead with it."


class TooManyPages(Refusal):
    """Details: `limit`."""

    code = "too_many_subscription_pages"
    message = "Several pages to subscribe on are open; use one of them, or wait until they have closed."


class NotRunning(Refusal):
    """Details: `state`."""

    code = "subscription_not_running"
    message = "This subscription is not running, so that there is nothing to change."


class OverageByTheMonth(Refusal):
    """What is used beyond the plan could not be billed any more."""

    code = "overage_by_the_month"
    message = "Your plan bills what is used beyond it by the month. To pay by the year, let it end, and subscribe anew."


class PlanUnchanged(Refusal):
    """Details: `plan`."""

    code = "plan_unchanged"
    message = "That is the plan that is charged for already."


class ChangeWaits(Refusal):
    """Details: `plan`."""

    code = "change_waits_for_payment"
    message = "Another change waits for its payment; pay it, or wait until it is forgotten after a day."


class PreviewStale(Refusal):
    """Details: `seconds_max`."""

    code = "preview_stale"
    message = "What this change costs was shown too long ago; look at it again before you confirm."
