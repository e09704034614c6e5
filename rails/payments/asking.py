"""Small questions to a rail, each answered or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ledger.money import Asset
from rails.contract import (
    CountsBlocks,
    Expiry,
    Holds,
    Notification,
    NotificationRejected,
    Observation,
    Rail,
    Webhooks,
)
from rails.domain.refusals import AssetNotAccepted, CannotHold
from rails.reading import MISREAD

NAME_LENGTH_MAX = 300
"""Of a rail's reference or message id, in characters."""


def verified(rail: Webhooks, headers: Mapping[str, str], body: bytes) -> Sequence[Notification]:
    """What a rail reads in a message, if it can be stored. Raises `NotificationRejected`."""
    try:
        found = rail.verify_notification({name.lower(): value for name, value in headers.items()}, body)
    except MISREAD as error:
        # It was installed from elsewhere, and does not know what strangers send.
        raise NotificationRejected("The message cannot be read.") from error
    for notification in found:
        for text in (notification.reference, notification.notification_id):
            if text is not None and (len(text) > NAME_LENGTH_MAX or not text.isprintable()):
                raise NotificationRejected("The message names something that is no name.")
    return found


def asset_of(rail: Rail, code: str | None) -> Asset:
    """The asset to pay with: the rail's first, or the one named."""
    for asset in rail.capabilities.assets:
        if code is None or asset.code == code:
            return asset
    raise AssetNotAccepted(asset=code, rail=rail.name)


def counting(rail: Rail | None) -> Callable[[str], int | None]:
    """How many blocks confirm some money, as far as this process knows."""
    return _not_counted if rail is None or not isinstance(rail, CountsBlocks) else rail.confirmations


def _not_counted(_: str) -> int | None:
    return None


async def close(rail: Rail, reference: str) -> Observation:
    """Close it where the rail can, and say what is so then."""
    return await (rail.cancel(reference) if isinstance(rail, Expiry) else rail.observe(reference))


def holding(rail: Rail) -> Holds:
    """A rail that can hold money. Raises `CannotHold`."""
    if not isinstance(rail, Holds):
        raise CannotHold
    return rail
