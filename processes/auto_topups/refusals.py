"""Why an automatic top-up is not what was asked for."""

from __future__ import annotations

from ledger.errors import Refusal


class AutoTopupUnavailable(Refusal):
    """No payment method that is open here can be saved."""

    code = "auto_topup_unavailable"
    message = "No payment method can be saved here at the moment."


class AutoTopupUnclear(Refusal):
    """The pack, the threshold and the limit do not fit each other."""

    code = "auto_topup_unclear"
    message = "Choose a pack that is for sale, a threshold of fewer images than it brings, and a limit that it fits in."


class AutoTopupNotOn(Refusal):
    """There is nothing to change."""

    code = "auto_topup_not_on"
    message = "Automatic top-up is not on."


class AutoTopupWasChanged(Refusal):
    """Somebody else changed it at the same moment, or it is charging just now."""

    code = "auto_topup_changed"
    message = "It was changed at the same moment, or is charging just now. Look at it and try again."
