"""Why a payment may not be opened or changed. Each docstring is the public message."""

from __future__ import annotations

from ledger.errors import Refusal


class UnknownRail(Refusal):
    """There is no such way to pay."""


class RailClosed(Refusal):
    """This way to pay is closed at the moment."""


class AssetNotAccepted(Refusal):
    """This way to pay does not take that asset."""


class TopupUnclear(Refusal):
    """A top-up names either credits or an amount."""


class AmountTooSmall(Refusal):
    """The amount is below the least that can be paid this way."""


class AmountTooLarge(Refusal):
    """The amount is above the most that can be paid this way."""


class TooManyOpenPayments(Refusal):
    """Too many payments of this account are open; finish or cancel one first."""


class CannotHold(Refusal):
    """This way to pay cannot hold money for a single image."""


class NoWebhooks(Refusal):
    """This way to pay takes no notifications."""


class MoneyCreditedElsewhere(Refusal):
    """This money has already been credited to another payment."""
