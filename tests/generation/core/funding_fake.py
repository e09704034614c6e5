"""Money for one job, in memory, with its credits on the real log; and everything that can go wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from generation.domain.funding import FundingOrder, FundingState, FundingUnavailable, Looked, Opened, Within
from ledger.domain.applying import grant_in
from ledger.domain.commands import GrantCredits
from ledger.domain.lots import Source
from ledger.errors import Refusal
from ledger.identifiers import CommandKey, Identifiers, JobId
from ledger.log.model import LogWriter, Transaction, UnitOfWork
from tests.ledger.world import paid


class Retracted(Refusal):
    code = "test_retracted"
    message = "Nothing is opened for it any more."


class Moved(Exception):
    """The account was merged into this one."""


@dataclass
class FakePayment:
    order: FundingOrder
    state: FundingState = FundingState.WAITING
    granted: bool = False
    held_until: datetime | None = None


@dataclass
class FakeFunding:
    """A `Funding`. `down` refuses every call; `answers_to_lose` take effect and are then not known."""

    log: LogWriter
    ids: Identifiers
    payments: dict[str, FakePayment] = field(default_factory=dict)
    down: bool = False
    answers_to_lose: int = 0
    refusal: Refusal | None = None
    """Raised instead of opening a payment request."""
    settled_times: int = 0
    before_settling: Callable[[], Awaitable[None]] | None = None
    """Happens once, elsewhere, just before money is taken."""
    retracted: set[JobId] = field(default_factory=set)

    def _known(self, reference: str) -> FakePayment:
        if self.down:
            raise FundingUnavailable("nobody answers")
        return self.payments[reference]

    def _lost(self) -> bool:
        self.answers_to_lose -= 1
        return self.answers_to_lose >= 0

    async def open(self, order: FundingOrder) -> Opened:
        if self.down:
            raise FundingUnavailable("nobody answers")
        if self.refusal is not None:
            raise self.refusal
        if order.job_id in self.retracted:
            raise Retracted
        reference = f"pay_{order.job_id}"
        self.payments.setdefault(reference, FakePayment(order))
        if self._lost():
            raise FundingUnavailable("the answer was lost")
        return Opened(reference, {"kind": "invoice", "text": reference})

    async def retract(self, order: FundingOrder) -> str | None:
        if self.down:
            raise FundingUnavailable("nobody answers")
        reference = f"pay_{order.job_id}"
        if reference in self.payments:
            return reference
        self.retracted.add(order.job_id)
        return None

    def pay(self, reference: str) -> None:
        """The payer's money is promised."""
        self.payments[reference].state = FundingState.HELD

    async def pay_for_good(self, reference: str) -> None:
        """Money that comes at once and cannot be held."""
        await self._settle(reference, None)

    async def look(self, reference: str) -> Looked:
        payment = self._known(reference)
        return Looked(payment.state, payment.held_until)

    async def settle(self, reference: str, within: Within) -> FundingState:
        payment = self._known(reference)
        if self.before_settling is not None:
            happen, self.before_settling = self.before_settling, None
            await happen()
        if payment.state in (FundingState.HELD, FundingState.SETTLED):
            payment.state = FundingState.SETTLED
            if self._lost():
                return FundingState.UNKNOWN
            await self._settle(reference, within)
        return FundingState.SETTLED if payment.state is FundingState.SETTLED else FundingState.FAILED

    async def release(self, reference: str) -> FundingState:
        payment = self._known(reference)
        if payment.state is not FundingState.SETTLED:
            payment.state = FundingState.FAILED
        return FundingState.UNKNOWN if self._lost() else payment.state

    async def _settle(self, reference: str, within: Within | None) -> None:
        payment = self.payments[reference]
        payment.state = FundingState.SETTLED
        whose: str = payment.order.account_id
        while (moved := await self._settle_for(whose, reference, within)) is not None:
            whose = moved
        self.settled_times += not payment.granted
        payment.granted = True

    async def _settle_for(self, whose: str, reference: str, within: Within | None) -> str | None:
        """Grant the credits and decide the rest, at once; the account to do it for instead, if this one was merged."""
        payment = self.payments[reference]
        lot_id = "lot_" + reference.removeprefix("pay_job_")
        price = payment.order.price_credits

        def decide(uow: UnitOfWork) -> None:
            if not payment.granted:
                if into := uow.state(whose).status.merged_into:
                    raise Moved(into)
                command = GrantCredits(
                    lot_id=lot_id, credits=price, source=Source.PAYMENT, consideration=paid(price)
                )
                grant_in(uow, whose, command)
            if within is not None:
                within.decide(uow, [lot_id])

        transaction = Transaction(
            key=CommandKey(self.ids.command()),
            actor="rail:fake",
            body=["settle", reference],
            streams=(whose, *(within.streams if within else ())),
            rows=within.rows if within else (),
            decide=decide,
        )
        try:
            await self.log.submit(transaction)
        except Moved as moved:
            return str(moved)
        return None
