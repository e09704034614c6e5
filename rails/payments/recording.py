"""Writing a payment: its events, what they mean for the account, and its rows, in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from ledger.clock import Clock
from ledger.errors import Refusal
from ledger.identifiers import CommandKey, Identifiers, PaymentId
from ledger.log.model import Event, LogWriter, SideTable, Transaction, UnitOfWork
from ledger.money import USD, Rate
from rails.contract import Instructions, Observation, Order, ReceiptState
from rails.domain import events
from rails.domain import payment as domain
from rails.domain.crediting import MERGES_MAX, PaymentAccountMoved, TooManyMerges
from rails.domain.openings import NoPlaceLeft, Openings, take_or_free
from rails.domain.posting import post
from rails.domain.reading import RecordObservation, lots_needed_max
from rails.domain.refusals import MoneyCreditedElsewhere, PaymentRetracted, RailClosed
from rails.domain.state import Payment, PaymentNotFound
from rails.domain.topup import payment_of, payment_row
from rails.quotes.quote import Rates
from rails.store.port import RailStore
from rails.store.tables import (
    CHARGE_TABLE,
    INSTRUCTION_TABLE,
    MONEY_TABLE,
    ORDINAL_TABLE,
    PAYMENT_TABLE,
    REFERENCE_TABLE,
    openings_table,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionHook:
    """What others want decided in the same transaction as a payment's news (a job's completion …).

    `decide` runs after payment and account have their new events; it gets the payment's state
    and the events. It runs even if there is no news.
    """

    streams: Sequence[str] = ()
    rows: Sequence[tuple[SideTable, str]] = ()
    decide: Callable[[UnitOfWork, Payment, Sequence[Event]], None]


class Recorder:
    """Turns commands for payments into transactions."""

    def __init__(
        self, *, log: LogWriter, store: RailStore, rates: Rates, ids: Identifiers, clock: Clock
    ) -> None:
        self._log = log
        self._store = store
        self._rates = rates
        self._ids = ids
        self._clock = clock

    async def open(
        self,
        payment_id: PaymentId,
        facts: Callable[[int], events.PaymentOpened],
        *,
        key: str | None,
        body: Mapping[str, Any],
        account_id: str,
        rail: str,
        return_url: str,
        description: str,
        open_max: int,
        by_link: bool,
        method: str | None = None,
    ) -> PaymentId:
        """Store the intent; `facts` gets the rail's next ordinal. The id is the first one's if `key` is known.

        Raises `NoPlaceLeft`, and nothing is recorded, if `open_max` payment requests of the account are open: of
        its own, or `by_link`. `method` is what is to be charged for it."""
        places = openings_table(by_link=by_link)

        def decide(uow: UnitOfWork) -> Any:
            openings = Openings.of(account_id, uow.get(places, account_id), uow.now)
            if len(openings.until) >= open_max:
                raise NoPlaceLeft
            row = uow.get(ORDINAL_TABLE, rail)
            ordinal = 1 if row is None else row["last"] + 1
            uow.put(ORDINAL_TABLE, {"rail": rail, "last": ordinal})
            command = domain.OpenPayment(facts=facts(ordinal))
            uow.append(payment_id, domain.decide(uow.state(payment_id), command, uow.now))
            opened = payment_row(payment_id, uow.state(payment_id), account_id, uow.now)
            uow.put(PAYMENT_TABLE, opened)
            take_or_free(uow, places, account_id, opened)
            uow.put(
                REFERENCE_TABLE,
                {"payment_id": payment_id, "rail": rail, "ordinal": ordinal, "reference": None},
            )
            uow.put(
                INSTRUCTION_TABLE,
                {
                    "payment_id": payment_id,
                    "instructions": {},
                    "return_url": return_url,
                    "description": description,
                },
            )
            put_method(uow, payment_id, method)
            return {"payment_id": payment_id}

        receipt = await self._log.submit(
            Transaction(
                key=self._ids.command() if key is None else CommandKey(key),
                actor=account_id,
                body=body,
                streams=(payment_id,),
                rows=((ORDINAL_TABLE, rail), (places, account_id)),
                decide=decide,
            )
        )
        return PaymentId(receipt.result["payment_id"])

    async def retract(self, *, key: str, body: Mapping[str, Any], account_id: str) -> PaymentId | None:
        """What `open` recorded with this key and body. None if nothing, and then it is refused from now on."""

        def decide(_: UnitOfWork) -> Any:
            raise PaymentRetracted

        try:
            receipt = await self._log.submit(
                Transaction(
                    key=CommandKey(key),
                    actor=account_id,
                    body=body,
                    streams=(),
                    decide=decide,
                    suspected=True,
                )
            )
        except Refusal:
            return None
        return PaymentId(receipt.result["payment_id"])

    async def issue(self, order: Order, rail: str, instructions: Instructions, digest: str) -> None:
        """The payment request is open: remember its reference for ever and its instructions until erased."""
        payment_id = order.payment_id

        def decide(uow: UnitOfWork) -> Any:
            command = domain.IssueInstructions(reference_digest=digest)
            happened = domain.decide(uow.state(payment_id), command, uow.now)
            if not happened:
                return {}
            uow.append(payment_id, happened)
            self.put_row(uow, payment_id, None)
            uow.put(
                REFERENCE_TABLE,
                {
                    "payment_id": payment_id,
                    "rail": rail,
                    "ordinal": order.ordinal,
                    "reference": instructions.reference,
                },
            )
            uow.put(
                INSTRUCTION_TABLE,
                {
                    "payment_id": payment_id,
                    "instructions": shown(instructions),
                    "return_url": order.return_url,
                    "description": order.description,
                },
            )
            if uow.state(payment_id).facts().charged:
                uow.delete(CHARGE_TABLE, payment_id)
            return {}

        await self._log.submit(
            Transaction(
                key=self._ids.command(),
                actor=f"rail:{rail}",
                body={"payment_id": payment_id, "digest": digest},
                streams=(payment_id,),
                rows=((PAYMENT_TABLE, payment_id),),
                decide=decide,
            )
        )

    async def record(
        self,
        payment_id: str,
        observation: Observation,
        asked_at: datetime,
        hook: TransactionHook | None = None,
    ) -> str | None:
        """Write down what a rail said, if it is news; credits and debits follow in the same transaction.

        Returns the job that the payment was made for, if there is money for it.
        """
        row = await self._row(payment_id)
        facts = payment_of(row).facts()
        spot = self._rates.spot(facts.amount_due.asset)
        command = RecordObservation(
            observation=observation,
            asked_at=asked_at,
            spot={} if spot is None else {facts.amount_due.asset.code: spot.rate},
            lot_ids=tuple(self._ids.lot() for _ in range(lots_needed_max(observation))),
        )
        money = tuple(receipt.money_ref for receipt in observation.receipts)
        await self.run(payment_id, row, command, actor=f"rail:{facts.rail}", money=money, hook=hook)
        there = any(
            receipt.state in (ReceiptState.HELD, ReceiptState.SETTLED) for receipt in observation.receipts
        )
        return facts.job_id if there else None

    async def accept(
        self,
        payment_id: str,
        money_ref: str,
        *,
        actor: str,
        credits_: int | None,
        reason: str,
        key: CommandKey | None,
    ) -> None:
        """Credit money that waits in suspense, at today's rate or with so many credits; once, if there is a key."""
        row = await self._row(payment_id)
        known = payment_of(row).receipts.get(money_ref)
        if known is None:
            raise domain.MoneyNotInSuspense
        asset = known.amount.asset
        spot = self._rates.spot(asset)
        if spot is None and credits_ is None:
            raise RailClosed(rail=row["rail"], reason=self._rates.why_not(asset))
        command = domain.AcceptFunds(
            money_ref=money_ref,
            rate=Rate(0, 1, asset, USD) if spot is None else spot.rate,
            lot_id=self._ids.lot(),
            asked_at=self._clock(),
            credits=credits_,
            reason=reason,
        )
        body = ["accept", money_ref, credits_, reason]
        await self.run(payment_id, row, command, actor=actor, money=(money_ref,), key=key, body=body)

    async def run(
        self,
        payment_id: str,
        row: Mapping[str, Any],
        command: domain.PaymentCommand,
        *,
        actor: str,
        money: Sequence[str] = (),
        hook: TransactionHook | None = None,
        key: CommandKey | None = None,
        body: Sequence[Any] = (),
    ) -> None:
        """One command on an open payment. What would change nothing is not even submitted.

        With `key`, which stands for `body`, it is done once, and a refusal leaves the key open.
        """
        if hook is None and key is None and not domain.decide(payment_of(row), command, self._clock()):
            return
        account_id, opened = str(row["account_id"]), payment_of(row).facts()
        place = (openings_table(by_link=opened.link is not None), opened.account_id)
        await following_merges(
            account_id,
            lambda account_id: self._submit(
                payment_id,
                account_id,
                command,
                place=place,
                actor=actor,
                money=money,
                hook=hook,
                key=key,
                body=body,
            ),
        )

    async def _submit(
        self,
        payment_id: str,
        account_id: str,
        command: domain.PaymentCommand,
        *,
        place: tuple[SideTable, str],
        actor: str,
        money: Sequence[str],
        hook: TransactionHook | None,
        key: CommandKey | None,
        body: Sequence[Any],
    ) -> None:
        def decide(uow: UnitOfWork) -> Any:
            happened = domain.decide(uow.state(payment_id), command, uow.now)
            claim(uow, payment_id, happened)
            uow.append(payment_id, happened)
            payment: Payment = uow.state(payment_id)
            post(uow, account_id, payment_id, payment, happened)
            if hook is not None:
                hook.decide(uow, payment, happened)
            if happened:
                changed = self.put_row(uow, payment_id, account_id)
                take_or_free(uow, *place, changed)
            return {"events": len(happened)}

        await self._log.submit(
            Transaction(
                key=key or self._ids.command(),
                actor=actor,
                body=[payment_id, *body] if key else {"payment_id": payment_id, "account_id": account_id},
                streams=(payment_id, account_id, *(hook.streams if hook else ())),
                rows=(
                    (PAYMENT_TABLE, payment_id),
                    place,
                    *((MONEY_TABLE, money_ref) for money_ref in money),
                    *(hook.rows if hook else ()),
                ),
                decide=decide,
                keeps_refusals=key is None,
            )
        )

    def put_row(self, uow: UnitOfWork, payment_id: str, account_id: str | None) -> Mapping[str, Any]:
        """Write the payment's row as its state is now; `account_id` None leaves its account. Returns the row."""
        row = uow.get(PAYMENT_TABLE, payment_id)
        if row is None:
            raise PaymentNotFound
        owner = account_id or row["account_id"]
        changed = payment_row(payment_id, uow.state(payment_id), owner, row["opened_at"])
        uow.put(PAYMENT_TABLE, changed)
        return changed

    async def _row(self, payment_id: str) -> Mapping[str, Any]:
        row = await self._store.payment(payment_id)
        if row is None:
            raise PaymentNotFound
        return row


def put_method(uow: UnitOfWork, payment_id: str, method: str | None) -> None:
    """Remember what is to be charged for it, if anything is."""
    if method is not None:
        uow.put(CHARGE_TABLE, {"payment_id": payment_id, "method": method})


def claim(uow: UnitOfWork, payment_id: str, happened: Sequence[Event]) -> None:
    """No money is credited to two payments."""
    for event in happened:
        if not isinstance(event, events.PaymentSettled):
            continue
        claimed = uow.get(MONEY_TABLE, event.money_ref)
        if claimed is not None and claimed["payment_id"] != payment_id:
            raise MoneyCreditedElsewhere(money_ref=event.money_ref, payment_id=claimed["payment_id"])
        uow.put(MONEY_TABLE, {"money_ref": event.money_ref, "payment_id": payment_id})


def shown(instructions: Instructions) -> dict[str, Any]:
    """The API's `instructions` object."""
    fixed = {
        "kind": instructions.kind,
        "url": instructions.url,
        "uri": instructions.uri,
        "text": instructions.text,
    }
    return {
        **(instructions.details or {}),
        **{name: value for name, value in fixed.items() if value is not None},
    }


async def following_merges(account_id: str, act: Callable[[str], Awaitable[T]]) -> T:
    """Do something with an account, or with the one that it was merged into meanwhile.

    `act` raises `PaymentAccountMoved` where the account has been merged, and nothing has been done then. Raises
    `TooManyMerges` after `MERGES_MAX` of them.
    """
    for _ in range(MERGES_MAX):
        try:
            return await act(account_id)
        except PaymentAccountMoved as moved:
            account_id = moved.into
    raise TooManyMerges
