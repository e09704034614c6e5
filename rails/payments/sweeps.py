"""Asking about many payments, page by page: what may have changed, what waits for a rate, what has run out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from ledger.clock import Clock
from ledger.identifiers import PaymentId
from rails.domain.topup import TopupView
from rails.payments.postponing import PAGE, Place, Postponing
from rails.store.port import RailStore, RetryTask


class Sweeps:
    """The part of `Payments` that goes through all of them."""

    store: RailStore
    _clock: Clock
    _postponing: Postponing

    @abstractmethod
    async def expire(self, payment_id: str) -> TopupView:
        """See `Payments`."""

    @abstractmethod
    async def _look_into(self, payment_id: str) -> None:
        """See `Payments`."""

    async def observe_pending(
        self, rail: str, place: Place | None = None, *, page: int = PAGE, pages: int | None = None
    ) -> bool:
        """Ask about every payment of a rail that may have changed; whether the last one was reached.

        From `place` on, and at most so many pages. Raises `RailUnavailable` if the rail seems away.
        """

        async def page_after(after: str) -> Sequence[PaymentId]:
            return await self.store.watched(rail, self._clock(), after, page)

        return await self._postponing.work_through(
            rail, RetryTask.OBSERVE, place or Place(), page_after, self._look_into, page=page, pages=pages
        )

    async def price_unpriced(self, rail: str, place: Place | None = None, *, page: int = PAGE) -> bool:
        """Grant what waits for a rate, as far as there is one again. See `observe_pending`."""

        async def page_after(after: str) -> Sequence[PaymentId]:
            return await self.store.unpriced(rail, self._clock(), after, page)

        return await self._postponing.work_through(
            rail, RetryTask.OBSERVE, place or Place(), page_after, self._look_into, page=page
        )

    async def expire_overdue(
        self, rail: str, place: Place | None = None, *, page: int = PAGE, pages: int | None = None
    ) -> bool:
        """Close payment requests whose quote has run out. See `observe_pending`."""

        async def page_after(after: str) -> Sequence[PaymentId]:
            return await self.store.overdue(rail, self._clock(), after, page)

        return await self._postponing.work_through(
            rail, RetryTask.EXPIRE, place or Place(), page_after, self.expire, page=page, pages=pages
        )
