"""Where generation's `Funding` port meets the payments: a payment made for one job alone."""

from __future__ import annotations

from collections.abc import Sequence

from generation.domain.funding import (
    FundingOrder,
    FundingState,
    FundingUnavailable,
    Looked,
    Opened,
    Within,
)
from ledger.errors import LogUnavailable, OutcomeUnknown, Refusal, TooBusy
from ledger.log.model import Event, UnitOfWork
from rails.contract import RailError, RailUnavailable
from rails.domain.refusals import CannotHold
from rails.domain.state import Payment
from rails.domain.topup import TopupState, TopupView
from rails.payments.recording import TransactionHook
from rails.payments.service import Payments

_GONE = (TopupState.EXPIRED, TopupState.DECLINED, TopupState.REVERSED)


class PaymentFunding:
    """A `generation.jobs.funding.Funding` on any rail; one that can hold money holds it.

    An order's method is the rail's name, and after a slash the asset to pay with.
    """

    def __init__(self, payments: Payments, public_url: str) -> None:
        self._payments = payments
        self._public_url = public_url

    async def open(self, order: FundingOrder) -> Opened:
        """See `Funding.open`. Refusals of the rails (`UnknownRail`, `AmountTooSmall` …) pass through."""
        try:
            view = await self._open(order)
        except RailUnavailable as error:
            raise FundingUnavailable(str(error)) from error
        except Refusal:
            # What could not be opened now may have been opened before a crash, and its payer may be paying.
            known = await self.retract(order)
            if known is None:
                raise
            view = await self._payments.topup(known)
        return Opened(view.payment_id, view.to_json())

    async def _open(self, order: FundingOrder) -> TopupView:
        try:
            return await self._open_topup(order, hold=True)
        except CannotHold:
            return await self._open_topup(order, hold=False)

    async def _open_topup(self, order: FundingOrder, *, hold: bool) -> TopupView:
        rail, asset = _method(order)
        return await self._payments.open_topup(
            order.account_id,
            rail,
            pay_asset=asset,
            return_url=f"{self._public_url}/images/{order.job_id}",
            wanted=order.price_credits,
            key=_key(order),
            hold=hold,
            job_id=order.job_id,
            description="One image",
        )

    async def retract(self, order: FundingOrder) -> str | None:
        """See `Funding.retract`."""
        rail, asset = _method(order)
        try:
            return await self._payments.retract(
                order.account_id,
                rail,
                key=_key(order),
                wanted=order.price_credits,
                pay_asset=asset,
                job_id=order.job_id,
            )
        except (LogUnavailable, OutcomeUnknown, TooBusy) as error:
            raise FundingUnavailable(type(error).__name__) from error

    async def look(self, reference: str) -> Looked:
        """See `Funding.look`."""
        view = await self._payments.topup(reference)
        ends = [receipt.held_until for receipt in view.received if receipt.held_until is not None]
        return Looked(_state(view), min(ends, default=None))

    async def settle(self, reference: str, within: Within) -> FundingState:
        """See `Funding.settle`."""

        def decide(uow: UnitOfWork, payment: Payment, happened: Sequence[Event]) -> None:
            lots = _lots(payment)
            if lots:
                within.decide(uow, lots)

        hook = TransactionHook(streams=within.streams, rows=within.rows, decide=decide)
        try:
            view = await self._capture(reference, hook)
        except (RailError, LogUnavailable, OutcomeUnknown, TooBusy) as error:
            raise FundingUnavailable(type(error).__name__) from error
        return _settled_or(view, FundingState.UNKNOWN)

    async def _capture(self, reference: str, hook: TransactionHook) -> TopupView:
        """What cannot be held is ours already, if it has come."""
        try:
            return await self._payments.capture(reference, hook)
        except CannotHold:
            return await self._payments.observe(reference, hook)

    async def release(self, reference: str) -> FundingState:
        """See `Funding.release`."""
        try:
            view = await self._payments.release(reference)
        except CannotHold:
            try:
                view = await self._payments.cancel(reference)
            except RailUnavailable as error:
                raise FundingUnavailable(str(error)) from error
            # What cannot be held is either ours, and stays as a credit, or was never sent.
            return _settled_or(view, FundingState.FAILED)
        except (RailError, LogUnavailable, OutcomeUnknown, TooBusy) as error:
            raise FundingUnavailable(type(error).__name__) from error
        return _settled_or(view, FundingState.UNKNOWN)


def _key(order: FundingOrder) -> str:
    return f"{order.job_id}:fund"


def _method(order: FundingOrder) -> tuple[str, str | None]:
    """The rail, and the asset to pay with unless it is the rail's first."""
    rail, _, asset = order.method.partition("/")
    return rail, asset or None


def _lots(payment: Payment) -> list[str]:
    """The lots that this payment granted and that are still its own."""
    return [share.lot_id for receipt in payment.receipts.values() for share in receipt.lots]


def _settled_or(view: TopupView, otherwise: FundingState) -> FundingState:
    state = _state(view)
    return state if state in (FundingState.SETTLED, FundingState.FAILED) else otherwise


def _state(view: TopupView) -> FundingState:
    if view.credited >= view.credits:
        return FundingState.SETTLED
    if any(receipt.state == "held" for receipt in view.received) and view.amount_missing.minor <= 0:
        return FundingState.HELD
    return FundingState.FAILED if view.state in _GONE else FundingState.WAITING
