"""Refunds: requested in one transaction with the hold of their credits, sent afterwards, ended once.

refunds.request(…)  holds the credits and writes the row of `rail_refunds`
refunds.send(row)   the work of a sweeper: asks the rail with the refund's id as key, for ever the same
refunds.resolve(…)  what came of it, or what an operator says who sent it by hand
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from ledger.domain.applying import act_in
from ledger.domain.commands import OpenRefund
from ledger.domain.commands import ResolveRefund as ResolveHeld
from ledger.domain.events import RefundOpened
from ledger.domain.refusals import LotDisputed
from ledger.domain.state import Account
from ledger.errors import Refusal
from ledger.followups.sweeper import SweepRules
from ledger.identifiers import CommandKey, Identifiers
from ledger.log.model import LogWriter, Transaction, UnitOfWork
from ledger.money import Money
from rails.contract import (
    PreparedRefund,
    PreparesRefunds,
    Rail,
    RailError,
    RailProtocolError,
    RailUnavailable,
    Refund,
    RefundCosts,
    RefundImpossible,
    Refunds,
    RefundTo,
)
from rails.domain import payment as domain
from rails.domain.buying import ended_by_refund
from rails.domain.crediting import PaymentAccountMoved
from rails.domain.receipts import ReceiptStatus
from rails.domain.refunding import (
    RefundableLot,
    RequestRefund,
    ResolveRefund,
    is_going_back,
    payable,
    refundable_lots,
)
from rails.domain.refusals import (
    DestinationMissing,
    DestinationNotTaken,
    DestinationUnusable,
    NothingToRefund,
    RefundNotByHand,
    RefundNotFound,
    RefundTooLate,
    RefundUnclear,
    RefundUnderWay,
    UnknownRail,
)
from rails.domain.state import Payment, PaymentNotFound
from rails.domain.topup import payment_of
from rails.payments.recording import Recorder, following_merges
from rails.store.port import RailStore
from rails.store.tables import PAYMENT_TABLE, REFUND_CLAIM_TABLE, REFUND_TABLE

RULES = SweepRules(at_once=8, work_seconds_max=150.0, lease=timedelta(minutes=4))
"""A payment over Lightning may be tried for more than a minute before the node says how it ended, and its payee may
have to be asked for an invoice first."""

PREPARING_FAILURES_MAX = 8
"""After so many, two to seven minutes, nobody is found there: the credits are not held for ever."""
NOBODY_THERE = "nobody answers there"
PAID_BEFORE = "it was to be paid to what another refund has paid already"


class RefundOutcomeUnknown(RailError):
    """The rail could not say whether the refund was sent. It is asked again, and never sent again."""

    code = "refund_outcome_unknown"
    message = "The rail could not say whether the refund was sent. It is asked again, and never sent again."


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundAsked:
    """What is to be sent back. With nothing named: all that is unspent of the only lot there is."""

    payment_id: str
    lot_id: str | None = None
    credits: int | None = None
    amount_minor: int | None = None
    """At most what those credits cost. Without `credits`: as many go as cost that much."""
    money_ref: str | None = None
    """Money in suspense, all of which goes back, instead of credits."""
    destination: str | None = None
    reason: str
    by_hand: bool = False
    """An operator sends it, whatever the rail can, or although it is not here."""
    days_max: int | None = None
    """Refused if the credits were granted longer ago: the owner's rule for people's own requests."""

    def body(self) -> list[Any]:
        """What a key stands for, without where the money goes."""
        named = (self.lot_id, self.credits, self.amount_minor, self.money_ref, self.reason, self.by_hand)
        return ["refund", self.payment_id, *named]


class RefundService:
    """Requests, sends and ends refunds. Any number of processes may."""

    def __init__(
        self,
        *,
        log: LogWriter,
        store: RailStore,
        rails: Mapping[str, Rail],
        ids: Identifiers,
        recorder: Recorder,
    ) -> None:
        self._log = log
        self._store = store
        self._rails = rails
        self._ids = ids
        self._recorder = recorder

    def goes_to(self, rail: str) -> RefundTo | None:
        """Where a rail's refunds go; None if it does not say so, or is not there."""
        chosen = self._rails.get(rail)
        return None if chosen is None else chosen.capabilities.refund_to

    def on_request(self, rail: str, worth: Money) -> Money:
        """What is sent for credits of this worth to who asks for it: without what sending it may cost."""
        chosen = self._rails.get(rail)
        if chosen is None:
            return worth
        capabilities = chosen.capabilities
        share = -(-worth.minor * capabilities.refund_fee_per_mille // 1_000)
        kept = max(share, capabilities.refund_fee_least)
        return payable(Money(max(worth.minor - kept, 0), worth.asset))

    async def refundable(self, payment_id: str, account: Account, now: datetime) -> Sequence[RefundableLot]:
        """What can be refunded now of a payment whose credits are in this account. Raises `PaymentNotFound`."""
        payment = await self._payment(payment_id)
        found = refundable_lots(tuple(payment.receipts.values()), payment_id, account, now)
        return [
            lot
            for lot in found
            if payment.receipts[lot.money_ref].status is ReceiptStatus.SETTLED
            and is_going_back(payment.refunds.values(), lot.money_ref) is None
        ]

    async def request(
        self, account_id: str, asked: RefundAsked, *, actor: str, key: CommandKey | None = None
    ) -> str:
        """Hold the credits and have their money sent; returns the refund's id, the first one's if `key` is known.

        `account_id` is whose the payment is now. Raises the refusals of `rails.domain.refusals` and of the
        ledger (`LotDisputed`, `RefundTooLarge`, `LotNotFound`), and nothing is recorded then.
        """
        row = await self._store.payment(asked.payment_id)
        if row is None:
            raise PaymentNotFound
        by_hand = self._sent_by_hand(str(row["rail"]), asked)
        refund_id = self._ids.new("ref")
        receipt = await following_merges(
            account_id,
            lambda account_id: self._log.submit(
                self._request(refund_id, account_id, str(row["rail"]), asked, by_hand, actor, key)
            ),
        )
        return str(receipt.result["refund_id"])

    def _sent_by_hand(self, rail: str, asked: RefundAsked) -> bool:
        """Raises `UnknownRail` where the rail is not configured: another process may well be able to send."""
        if asked.by_hand:
            return True
        chosen = self._rails.get(rail)
        if chosen is None:
            raise UnknownRail(rail=rail)
        refund_to = chosen.capabilities.refund_to
        if refund_to is RefundTo.ORIGIN and asked.destination is not None:
            raise DestinationNotTaken(refund_to=refund_to.value)
        if refund_to in (RefundTo.INVOICE, RefundTo.ADDRESS) and asked.destination is None:
            raise DestinationMissing(refund_to=str(refund_to))
        return not isinstance(chosen, Refunds)

    def _check_destination(self, rail: str, asked: RefundAsked, amount: Money) -> None:
        chosen = self._rails.get(rail)
        if asked.by_hand or asked.destination is None or not isinstance(chosen, PreparesRefunds):
            return
        fault = chosen.destination_fault(asked.destination, amount)
        if fault is not None:
            raise DestinationUnusable(reason=fault, amount_minor=amount.minor, asset=amount.asset.code)

    def _request(
        self,
        refund_id: str,
        account_id: str,
        rail: str,
        asked: RefundAsked,
        by_hand: bool,
        actor: str,
        key: CommandKey | None,
    ) -> Transaction:
        payment_id = asked.payment_id

        def decide(uow: UnitOfWork) -> Any:
            within = None if asked.days_max is None else partial(self.on_request, rail)
            command = _held(uow, account_id, refund_id, asked, by_hand=by_hand, within=within)
            self._check_destination(rail, asked, _amount_of(command, uow.state(payment_id)))
            happened = domain.decide(uow.state(payment_id), command, uow.now)
            uow.append(payment_id, happened)
            self._recorder.put_row(uow, payment_id, None)
            uow.put(
                REFUND_TABLE,
                {
                    "refund_id": refund_id,
                    "payment_id": payment_id,
                    "rail": rail,
                    "destination": asked.destination,
                    "by_hand": by_hand,
                    "due_at": uow.now,
                },
            )
            return {"refund_id": refund_id}

        return Transaction(
            key=key or self._ids.command(),
            actor=actor,
            body=asked.body(),
            streams=(payment_id, account_id),
            rows=((PAYMENT_TABLE, payment_id),),
            decide=decide,
            # A refusal says how things are now: the same request may be sent again.
            keeps_refusals=False,
        )

    async def send(self, row: Mapping[str, Any]) -> None:
        """The work of one row of `rail_refunds`. May be done twice: the rail sends at most once per key.

        Raises what the rail raises, and `RefundOutcomeUnknown`: then it is asked again later.
        """
        payment_id, refund_id = str(row["payment_id"]), str(row["refund_id"])
        refund = (await self._payment(payment_id)).refunds.get(refund_id)
        if refund is None or not refund.state.open:
            return
        rail, place = self._rails.get(str(row["rail"])), await self._store.reference(payment_id)
        if not isinstance(rail, Refunds):
            raise RailUnavailable("the rail is not there, or cannot send money back any more")
        if place is None or place.reference is None:
            raise RailUnavailable("the payment request is not known yet")
        destination, cost = row["destination"], None
        if isinstance(rail, PreparesRefunds):
            try:
                destination = row["prepared"] or await self._prepare(rail, refund.asked.amount, row)
            except RefundImpossible as error:
                await self._fail(payment_id, refund_id, f"rail:{rail.name}", str(error))
                return
        outcome = await rail.refund(place.reference, refund.asked.amount, destination, refund_id)
        if outcome is Refund.SENT and isinstance(rail, RefundCosts):
            cost = await rail.refund_cost(destination, refund_id)
        command = ResolveRefund(refund_id=refund_id, outcome=outcome, cost=cost)
        await self._resolve(payment_id, command, actor=f"rail:{rail.name}", key=None)
        if outcome is Refund.UNKNOWN:
            raise RefundOutcomeUnknown

    async def _prepare(self, rail: PreparesRefunds, amount: Money, row: Mapping[str, Any]) -> str:
        """What exactly is paid, kept and claimed before it is. Raises `RefundImpossible`."""
        if row["destination"] is None:
            raise RefundImpossible(NOBODY_THERE)
        try:
            prepared = await rail.prepare_refund(amount, row["destination"])
        except (RailUnavailable, RailProtocolError) as error:
            # Nothing was sent yet, so that giving up takes nothing from anybody.
            if row["attempts"] < PREPARING_FAILURES_MAX:
                raise
            raise RefundImpossible(NOBODY_THERE) from error
        claimed = await self._log.submit(self._claim(str(row["refund_id"]), prepared, f"rail:{row['rail']}"))
        if claimed.result == "theirs":
            raise RefundImpossible(PAID_BEFORE)
        if claimed.result == "known":
            raise RailUnavailable("another process prepares this refund, or it has ended")
        return prepared.destination

    def _claim(self, refund_id: str, prepared: PreparedRefund, actor: str) -> Transaction:
        def decide(uow: UnitOfWork) -> Any:
            row = uow.get(REFUND_TABLE, refund_id)
            if row is None or row["prepared"] is not None:
                return "known"
            if uow.get(REFUND_CLAIM_TABLE, prepared.claim) is not None:
                return "theirs"
            claim = {"claim": prepared.claim, "refund_id": refund_id, "claimed_at": uow.now}
            uow.put(REFUND_CLAIM_TABLE, claim)
            uow.put(REFUND_TABLE, {"refund_id": refund_id, "prepared": prepared.destination})
            return "ours"

        return Transaction(
            key=self._ids.command(),
            actor=actor,
            body=["refund_prepared", refund_id],
            streams=(),
            rows=((REFUND_TABLE, refund_id), (REFUND_CLAIM_TABLE, prepared.claim)),
            decide=decide,
            keeps_refusals=False,
        )

    async def _fail(self, payment_id: str, refund_id: str, actor: str, reason: str) -> None:
        command = ResolveRefund(refund_id=refund_id, outcome=Refund.FAILED, reason=reason)
        await self._resolve(payment_id, command, actor=actor, key=None, before_sending=True)

    async def end_by_hand(
        self, payment_id: str, command: ResolveRefund, *, actor: str, key: CommandKey | None = None
    ) -> None:
        """An operator sent it, or could not. Raises `RefundNotFound`, `RefundNotByHand`."""
        refund = (await self._payment(payment_id)).refunds.get(command.refund_id)
        if refund is None:
            raise RefundNotFound(refund_id=command.refund_id)
        await self._resolve(payment_id, command, actor=actor, key=key, by_hand=True)

    async def _resolve(
        self,
        payment_id: str,
        command: ResolveRefund,
        *,
        actor: str,
        key: CommandKey | None,
        by_hand: bool = False,
        before_sending: bool = False,
    ) -> None:
        asked = (await self._payment(payment_id)).refunds[command.refund_id].asked

        def decide(uow: UnitOfWork) -> Any:
            payment: Payment = uow.state(payment_id)
            known = payment.refunds[command.refund_id]
            if by_hand and not (known.asked.by_hand and known.state.open):
                raise RefundNotByHand(refund_id=command.refund_id)
            if before_sending and _may_have_been_sent(uow.get(REFUND_TABLE, command.refund_id)):
                return {"events": 0}
            happened = domain.decide(payment, command, uow.now)
            if not happened:
                return {"events": 0}
            uow.append(payment_id, happened)
            if asked.credits:
                held = ResolveHeld(refund_id=command.refund_id, outcome=command.outcome.value)
                act_in(uow, asked.account_id, held)
                if command.outcome is Refund.SENT:
                    account, paid = uow.state(asked.account_id), uow.state(payment_id)
                    for ends in ended_by_refund(payment_id, paid, asked.lot_id, account):
                        act_in(uow, asked.account_id, ends)
            self._recorder.put_row(uow, payment_id, None)
            if command.outcome is not Refund.UNKNOWN:
                uow.delete(REFUND_TABLE, command.refund_id)
            return {"events": len(happened)}

        ended = [command.refund_id, command.outcome.value, command.external_ref, command.reason]
        await self._log.submit(
            Transaction(
                key=key or self._ids.command(),
                actor=actor,
                body=["refund_ended", payment_id, *ended],
                streams=(payment_id, *((asked.account_id,) if asked.credits else ())),
                rows=((PAYMENT_TABLE, payment_id), (REFUND_TABLE, command.refund_id)),
                decide=decide,
                keeps_refusals=False,
            )
        )

    async def _payment(self, payment_id: str) -> Payment:
        row = await self._store.payment(payment_id)
        if row is None:
            raise PaymentNotFound
        return payment_of(row)


def _held(
    uow: UnitOfWork,
    account_id: str,
    refund_id: str,
    asked: RefundAsked,
    *,
    by_hand: bool,
    within: Callable[[Money], Money] | None,
) -> RequestRefund:
    """Hold the credits, if it is about any, and say what is to be sent for them."""
    account: Account = uow.state(account_id)
    if account.status.merged_into:
        raise PaymentAccountMoved(into=account.status.merged_into)
    payment: Payment = uow.state(asked.payment_id)
    chosen, held = None, None
    if asked.money_ref is None:
        chosen = _chosen(payment, account, asked, uow.now)
        held = _hold(uow, account_id, refund_id, chosen, asked, within)
    return RequestRefund(
        refund_id=refund_id,
        account_id=account_id,
        money_ref=asked.money_ref or ("" if chosen is None else chosen.money_ref),
        held=held,
        lot=None if chosen is None else chosen.lot,
        by_hand=by_hand,
        reason=asked.reason,
    )


def _may_have_been_sent(row: Mapping[str, Any] | None) -> bool:
    """Another process may have prepared it while this one asked, and send it now."""
    return row is None or row["prepared"] is not None


def _amount_of(command: RequestRefund, payment: Payment) -> Money:
    """What is sent: what is held for, or all that waits in suspense."""
    known = payment.receipts.get(command.money_ref)
    if known is None:
        raise NothingToRefund
    held = command.held
    minor = known.amount.minor - known.taken_minor - known.refunded_minor
    return Money(minor if held is None else held.amount_minor, known.amount.asset)


def _hold(
    uow: UnitOfWork,
    account_id: str,
    refund_id: str,
    chosen: RefundableLot,
    asked: RefundAsked,
    within: Callable[[Money], Money] | None,
) -> RefundOpened:
    wanted, minor = asked.credits, asked.amount_minor
    if wanted is None:
        wanted = chosen.credits if minor is None else chosen.credits_for(minor)
    if minor is None and 0 < wanted <= chosen.credits:
        worth = chosen.worth_of(wanted)
        minor = worth.minor if within is None else within(worth).minor
        if minor <= 0:
            raise NothingToRefund
    command = OpenRefund(
        refund_id=refund_id, lot_id=chosen.lot.terms.lot_id, credits=wanted, amount_minor=minor
    )
    for event in act_in(uow, account_id, command):
        if isinstance(event, RefundOpened):
            return event
    raise AssertionError("a refund that is not refused is opened")


def _chosen(payment: Payment, account: Account, asked: RefundAsked, now: datetime) -> RefundableLot:
    """The lot to refund. Raises why there is none, or that it is not clear which."""
    receipts = tuple(payment.receipts.values())
    found = list(refundable_lots(receipts, asked.payment_id, account, now))
    if asked.lot_id is not None:
        found = [lot for lot in found if lot.lot_id == asked.lot_id]
    if not found:
        raise _why_nothing(payment)
    if len(found) > 1:
        raise RefundUnclear(lots=[lot.lot_id for lot in found])
    granted_at = found[0].lot.terms.granted_at
    if asked.days_max is not None and now - granted_at > timedelta(days=asked.days_max):
        raise RefundTooLate(days=asked.days_max)
    return found[0]


def _why_nothing(payment: Payment) -> Refusal:
    for refund in payment.refunds.values():
        if refund.state.open:
            return RefundUnderWay(refund_id=refund.asked.refund_id)
    statuses: Sequence[ReceiptStatus] = [receipt.status for receipt in payment.receipts.values()]
    if ReceiptStatus.DISPUTED in statuses:
        return LotDisputed(lot_id="", reversal_id="")
    return NothingToRefund()
