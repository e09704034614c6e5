"""Where generation's `Funding` port meets the payments: a payment made for one job alone."""

from __future__ import annotations

from collections.abc import Sequence

from generation.funding import FundingOrder, FundingState, FundingUnavailable, Opened, Within
from ledger.errors import LogUnavailable, OutcomeUnknown, TooBusy
from ledger.log.model import Draft, Event
from rails.contract import RailError, RailUnavailable
from rails.payment_state import Payment
from rails.recording import Companion
from rails.refusals import CannotHold
from rails.service import Payments
from rails.topup import TopupState, TopupView

_GONE = (TopupState.EXPIRED, TopupState.DECLINED, TopupState.REVERSED)


class PaymentFunding:
    """A `generation.funding.Funding` on any rail; one that can hold money holds it.

    An order's method is the rail's name, and after a slash the asset to pay with.
    """

    def __init__(self, payments: Payments, public_url: str) -> None:
        self._payments = payments
        self._public_url = public_url

    async def open(self, order: FundingOrder) -> Opened:
        """See `Funding.open`. Refusals of the rails (`UnknownRail`, `AmountTooSmall` …) pass through."""
        try:
            view = await self._open(order, hold=True)
        except CannotHold:
            view = await self._open(order, hold=False)
        except RailUnavailable as error:
            raise FundingUnavailable(str(error)) from error
        return Opened(view.payment_id, view.to_json())

    async def _open(self, order: FundingOrder, *, hold: bool) -> TopupView:
        rail, _, asset = order.method.partition("/")
        return await self._payments.open_topup(
            order.account_id,
            rail,
            pay_asset=asset or None,
            return_url=f"{self._public_url}/images/{order.job_id}",
            wanted=order.price_credits,
            key=f"{order.job_id}:fund",
            hold=hold,
            job_id=order.job_id,
            description="One image",
        )

    async def look(self, reference: str) -> FundingState:
        """See `Funding.look`."""
        return _state(await self._payments.topup(reference))

    async def settle(self, reference: str, within: Within) -> FundingState:
        """See `Funding.settle`."""

        def decide(draft: Draft, payment: Payment, happened: Sequence[Event]) -> None:
            lots = _lots(payment)
            if lots:
                within.decide(draft, lots)

        companion = Companion(streams=within.streams, rows=within.rows, decide=decide)
        try:
            view = await self._payments.capture(reference, companion)
        except (RailError, LogUnavailable, OutcomeUnknown, TooBusy) as error:
            raise FundingUnavailable(type(error).__name__) from error
        return _settled_or(view, FundingState.UNKNOWN)

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


def _lots(payment: Payment) -> list[str]:
    """The lots that this payment granted and that are still its own."""
    return [share.lot_id for piece in payment.pieces.values() for share in piece.lots]


def _settled_or(view: TopupView, otherwise: FundingState) -> FundingState:
    state = _state(view)
    return state if state in (FundingState.SETTLED, FundingState.FAILED) else otherwise


def _state(view: TopupView) -> FundingState:
    if view.credited >= view.credits:
        return FundingState.SETTLED
    if any(piece.state == "held" for piece in view.received) and view.amount_missing.minor <= 0:
        return FundingState.HELD
    return FundingState.FAILED if view.state in _GONE else FundingState.WAITING
