"""The contract of a rail that charges a saved payment method without its payer.

As with payments, the rail emits facts and the core decides. A method is saved on a page of the rail, with its payer.
A charge is a payment request like any other: `observe` of its reference answers with its money, or why there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from ledger.identifiers import AccountId
from rails.contract import Instructions, Order, RailError

AUTHENTICATION = "authentication_required"
"""The decline code of a charge that the payer has to confirm with their bank."""


class MethodUnusable(RailError):
    """The rail refuses to charge a saved payment method, whatever the bank says; nothing was charged."""

    code = "saved_method_unusable"
    message = "The payment provider does not charge this saved payment method; nothing was charged."


class ChargeLapsed(RailError):
    """A charge that had not begun in time is not made any more; nothing was charged."""

    code = "charge_lapsed"
    message = "This charge had not begun in time and is not made any more; nothing was charged."


class SavingState(StrEnum):
    """Whether a payment method can be charged."""

    OPEN = "open"
    """Its payer is still on the page, or has left it."""
    SAVED = "saved"
    CLOSED = "closed"
    """The page is closed, and nothing was saved on it."""
    GONE = "gone"
    """It was saved and was removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveOrder:
    """What the core asks a rail to open a page to save a payment method for."""

    saving_id: str
    account_id: AccountId
    expires_at: datetime
    return_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedMethod:
    """Everything the rail knows now about a payment method."""

    state: SavingState
    method: str | None = None
    """The rail's own handle; None until there is one."""
    label: str = ""
    """What its owner knows it by, such as `Visa •••• 4242`."""
    expires_at: datetime | None = None
    """From when on it is not valid any more."""


@runtime_checkable
class SavedMethods(Protocol):
    """A rail that charges saved payment methods. All calls may raise `RailUnavailable`."""

    async def save_method(self, order: SaveOrder) -> Instructions:
        """Open a page to save a payment method on. Idempotent by `order.saving_id`."""

    async def observe_saving(self, reference: str) -> SavedMethod:
        """What came of such a page."""

    async def observe_method(self, method: str) -> SavedMethod:
        """Whether a payment method is still there."""

    async def forget_method(self, method: str) -> None:
        """Remove it. Idempotent."""

    async def charge(self, order: Order, method: str) -> Instructions:
        """Charge the order's amount at once, without the payer; once per `order.payment_id`.

        How it went, `observe` tells: a decline is no error here. From `order.expires_at` on nothing is charged,
        and what was charged before is only found. Raises `MethodUnusable` or `ChargeLapsed` if nothing was
        charged and nothing will be.
        """
