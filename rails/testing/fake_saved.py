"""Saved payment methods of a `FakeNetwork`: pages to save them on, and what each does when it is charged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

from ledger.money import Money
from rails.contract import Order, PaymentRequestStatus, RailProtocolError
from rails.saved import AUTHENTICATION, ChargeLapsed, MethodUnusable, SavedMethod, SaveOrder, SavingState

WORKS, DECLINES, ASKS = "works", "card_declined", AUTHENTICATION
"""What a method does when it is charged: the latter two are decline codes."""


@dataclass(slots=True)
class _Method:
    name: str
    does: str
    removed: bool = False
    expires_at: datetime | None = None


class FakeSaved:
    """The methods of all payers of a network."""

    def __init__(
        self,
        name: str,
        register: Callable[[Order], str],
        pay: Callable[[str, Money], Awaitable[str]],
        stand: Callable[[str, PaymentRequestStatus, str | None], Awaitable[None]],
    ) -> None:
        self._name = name
        self._register = register
        self._pay = pay
        self._stand = stand
        self._pages: dict[str, SavedMethod] = {}
        self._methods: dict[str, _Method] = {}
        self._charged: set[str] = set()
        self.attempts: list[str] = []
        """The payment of every charge that was tried."""

    def page(self, order: SaveOrder) -> str:
        """Open a page, once per saving."""
        reference = f"{self._name}-saving-{order.saving_id}"
        self._pages.setdefault(reference, SavedMethod(state=SavingState.OPEN))
        return reference

    def save(self, page: str, does: str = WORKS, expires_at: datetime | None = None) -> str:
        """A payer saves a method there. Returns its name."""
        name = f"{self._name}-method-{len(self._methods) + 1}"
        self._methods[name] = _Method(name, does, expires_at=expires_at)
        self._pages[page] = replace(self._pages[page], state=SavingState.SAVED, method=name)
        return name

    def leave(self, page: str) -> None:
        """The page's time is over."""
        self._pages[page] = SavedMethod(state=SavingState.CLOSED)

    def change(self, name: str, does: str) -> None:
        """From now on the method does something else."""
        self._methods[name].does = does

    def remove(self, name: str) -> None:
        """Nobody can charge it any more."""
        self._methods[name].removed = True

    def saving(self, page: str) -> SavedMethod:
        """What came of a page."""
        found = self._pages.get(page)
        if found is None:
            raise RailProtocolError(f"the fake network knows no page {page!r}")
        return found if found.method is None else self.method(found.method)

    def method(self, name: str) -> SavedMethod:
        """A method as it is now."""
        found = self._methods.get(name)
        if found is None or found.removed:
            return SavedMethod(state=SavingState.GONE)
        return SavedMethod(
            state=SavingState.SAVED,
            method=name,
            label=f"Fake •••• {name.rpartition('-')[2].zfill(4)}",
            expires_at=found.expires_at,
        )

    async def charge(self, order: Order, name: str, now: datetime) -> str:
        """Charge a method, once per payment. Returns the reference."""
        known = order.payment_id in self._charged
        found = self._methods.get(name)
        if not known and now >= order.expires_at:
            raise ChargeLapsed
        if not known and (found is None or found.removed):
            raise MethodUnusable
        reference = self._register(order)
        if known or found is None:
            return reference
        self._charged.add(order.payment_id)
        self.attempts.append(order.payment_id)
        if found.does == WORKS:
            await self._pay(reference, order.amount_due)
        else:
            await self._stand(reference, PaymentRequestStatus.DECLINED, found.does)
        return reference
