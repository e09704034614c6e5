"""Which rails can be reached now: one that cannot is offered to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ledger.money import Asset, Money
from rails.contract import Health, Rail
from rails.domain.purchases import Purchase
from rails.domain.refusals import RailClosed
from rails.quotes.quote import Quote
from rails.quotes.quoter import UNREACHABLE, Quoter

ASK_SECONDS = 1.0
"""How long whoever wants to pay waits for the word of a rail that was away when it was asked last."""


class Reach:
    """The health of each rail as last known, and what follows from it."""

    def __init__(self, rails: Mapping[str, Rail], quoter: Quoter) -> None:
        self.health: dict[str, Health] = {}
        """The last health of each rail, kept by the runner. Of which nothing is known yet is tried."""
        self.doubted: dict[str, asyncio.Event] = {name: asyncio.Event() for name in rails}
        """Set whenever a rail did not answer: how it is should be asked."""
        self._rails = rails
        self._quoter = quoter
        self._asking: dict[str, asyncio.Task[bool]] = {}

    def rails_json(self) -> dict[str, Any]:
        """The body of `GET /v1/rails`."""
        return self._quoter.rails_json(self._rails.values(), self.health)

    async def quote(
        self, rail: Rail, asset: Asset, wanted: int | None, amount: Money | None, purchase: Purchase | None
    ) -> Quote:
        """On an open rail. Raises `RailClosed`, with the others that are open, and as `Quoter.quote` does.

        One that was away is asked once more: a heartbeat that was late on a busy machine turns nobody away.
        """
        if not await self._is_open(rail):
            raise RailClosed(rail=rail.name, reason=UNREACHABLE, others=self._open_but(rail))
        try:
            return await self._quoter.quote(rail, asset, wanted, amount, purchase, self.health.get(rail.name))
        except RailClosed as closed:
            raise RailClosed(**closed.details, others=self._open_but(rail)) from None

    async def ask_again(self) -> None:
        """Ask every rail that was away once more, before it is said that none is open."""
        await asyncio.gather(*(self._is_open(rail) for rail in self._rails.values()))

    async def _is_open(self, rail: Rail) -> bool:
        """As last known, or as it says itself now. Callers at the same time share one question."""
        known = self.health.get(rail.name)
        if known is None or known.ok:
            return True
        asking = self._asking.get(rail.name)
        if asking is None or asking.done():
            asking = self._asking[rail.name] = asyncio.create_task(self._ask(rail, known))
        return await asyncio.shield(asking)

    async def _ask(self, rail: Rail, known: Health) -> bool:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                now = await rail.health()
        except Exception:  # noqa: BLE001 - any failure to answer is an answer here
            return False
        if now.ok and self.health.get(rail.name) is known:
            # Unless something newer was heard of it meanwhile.
            self.health[rail.name] = now
        return now.ok

    def _open_but(self, but: Rail) -> list[str]:
        """Where people may pay instead, in the order in which it is offered."""
        listed = self.rails_json()["rails"]
        return [rail["name"] for rail in listed if rail["open"] and rail["name"] != but.name]
