"""Writing a payment: its events, what they mean for the account, and its rows, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ledger.clock import Clock
from ledger.identifiers import CommandKey, Identifiers, PaymentId
from ledger.log.model import Draft, Event, LogWriter, SideTable, Transaction
from rails import payment as domain
from rails import payment_events as events
from rails.contract import Instructions, Observation, Order
from rails.crediting import PaymentAccountMoved, post
from rails.payment_reading import RecordObservation, lots_needed_max
from rails.payment_state import Payment, PaymentNotFound
from rails.quotes import Rates
from rails.refusals import MoneyCreditedElsewhere
from rails.store import RailStore
from rails.tables import INSTRUCTION_TABLE, MONEY_TABLE, ORDINAL_TABLE, PAYMENT_TABLE, REFERENCE_TABLE
from rails.topup import payment_of, payment_row

_MERGES_MAX = 4
"""A guest merged into an account that was merged … more hops than this are a fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """What others want decided in the same transaction as a payment's news (a job's completion …).

    `decide` runs after payment and account have their new events; it gets the payment's state
    and the events. It runs even if there is no news.
    """

    streams: Sequence[str] = ()
    rows: Sequence[tuple[SideTable, str]] = ()
    decide: Callable[[Draft, Payment, Sequence[Event]], None]


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
    ) -> PaymentId:
        """Store the intent; `facts` gets the rail's next ordinal. The id is the first one's if `key` is known."""

        def decide(draft: Draft) -> Any:
            row = draft.get(ORDINAL_TABLE, rail)
            ordinal = 1 if row is None else row["last"] + 1
            draft.put(ORDINAL_TABLE, {"rail": rail, "last": ordinal})
            command = domain.OpenPayment(facts=facts(ordinal))
            draft.append(payment_id, domain.decide(draft.state(payment_id), command, draft.now))
            draft.put(PAYMENT_TABLE, payment_row(payment_id, draft.state(payment_id), account_id, draft.now))
            draft.put(
                REFERENCE_TABLE,
                {"payment_id": payment_id, "rail": rail, "ordinal": ordinal, "reference": None},
            )
            draft.put(
                INSTRUCTION_TABLE,
                {
                    "payment_id": payment_id,
                    "instructions": {},
                    "return_url": return_url,
                    "description": description,
                },
            )
            return {"payment_id": payment_id}

        receipt = await self._log.submit(
            Transaction(
                key=self._ids.command() if key is None else CommandKey(key),
                actor=account_id,
                body=body,
                streams=(payment_id,),
                rows=((ORDINAL_TABLE, rail),),
                decide=decide,
            )
        )
        return PaymentId(receipt.result["payment_id"])

    async def issue(self, order: Order, rail: str, instructions: Instructions, digest: str) -> None:
        """The way to pay is open: remember its reference for ever and its instructions until erased."""
        payment_id = order.payment_id

        def decide(draft: Draft) -> Any:
            command = domain.IssueInstructions(reference_digest=digest)
            happened = domain.decide(draft.state(payment_id), command, draft.now)
            if not happened:
                return {}
            draft.append(payment_id, happened)
            self._put_row(draft, payment_id, None)
            draft.put(
                REFERENCE_TABLE,
                {
                    "payment_id": payment_id,
                    "rail": rail,
                    "ordinal": order.ordinal,
                    "reference": instructions.reference,
                },
            )
            draft.put(
                INSTRUCTION_TABLE,
                {
                    "payment_id": payment_id,
                    "instructions": shown(instructions),
                    "return_url": order.return_url,
                    "description": order.description,
                },
            )
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
        companion: Companion | None = None,
    ) -> None:
        """Write down what a rail said, if it is news; credits and debits follow in the same transaction."""
        row = await self._row(payment_id)
        facts = payment_of(row).facts()
        spot = self._rates.spot(facts.amount_due.asset)
        command = RecordObservation(
            observation=observation,
            asked_at=asked_at,
            spot={} if spot is None else {facts.amount_due.asset.code: spot.rate},
            lot_ids=tuple(self._ids.lot() for _ in range(lots_needed_max(observation))),
        )
        money = tuple(piece.money_ref for piece in observation.pieces)
        await self.run(payment_id, row, command, actor=f"rail:{facts.rail}", money=money, companion=companion)

    async def run(
        self,
        payment_id: str,
        row: Mapping[str, Any],
        command: domain.PaymentCommand,
        *,
        actor: str,
        money: Sequence[str] = (),
        companion: Companion | None = None,
    ) -> None:
        """One command on an open payment. What would change nothing is not even submitted."""
        if companion is None and not domain.decide(payment_of(row), command, self._clock()):
            return
        account_id = str(row["account_id"])
        for _ in range(_MERGES_MAX):
            try:
                await self._submit(
                    payment_id, account_id, command, actor=actor, money=money, companion=companion
                )
            except PaymentAccountMoved as moved:
                account_id = moved.into
            else:
                return
        raise PaymentNotFound

    async def _submit(
        self,
        payment_id: str,
        account_id: str,
        command: domain.PaymentCommand,
        *,
        actor: str,
        money: Sequence[str],
        companion: Companion | None,
    ) -> None:
        def decide(draft: Draft) -> Any:
            happened = domain.decide(draft.state(payment_id), command, draft.now)
            _claim(draft, payment_id, happened)
            draft.append(payment_id, happened)
            payment: Payment = draft.state(payment_id)
            post(draft, account_id, payment_id, payment.facts().rail, happened)
            if companion is not None:
                companion.decide(draft, payment, happened)
            if happened:
                self._put_row(draft, payment_id, account_id)
            return {"events": len(happened)}

        await self._log.submit(
            Transaction(
                key=self._ids.command(),
                actor=actor,
                body={"payment_id": payment_id, "account_id": account_id},
                streams=(payment_id, account_id, *(companion.streams if companion else ())),
                rows=(
                    (PAYMENT_TABLE, payment_id),
                    *((MONEY_TABLE, money_ref) for money_ref in money),
                    *(companion.rows if companion else ()),
                ),
                decide=decide,
            )
        )

    def _put_row(self, draft: Draft, payment_id: str, account_id: str | None) -> None:
        row = draft.get(PAYMENT_TABLE, payment_id)
        if row is None:
            raise PaymentNotFound
        owner = account_id or row["account_id"]
        draft.put(PAYMENT_TABLE, payment_row(payment_id, draft.state(payment_id), owner, row["opened_at"]))

    async def _row(self, payment_id: str) -> Mapping[str, Any]:
        row = await self._store.payment(payment_id)
        if row is None:
            raise PaymentNotFound
        return row


def _claim(draft: Draft, payment_id: str, happened: Sequence[Event]) -> None:
    """No money is credited to two payments."""
    for event in happened:
        if not isinstance(event, events.PaymentSettled):
            continue
        claimed = draft.get(MONEY_TABLE, event.money_ref)
        if claimed is not None and claimed["payment_id"] != payment_id:
            raise MoneyCreditedElsewhere(money_ref=event.money_ref, payment_id=claimed["payment_id"])
        draft.put(MONEY_TABLE, {"money_ref": event.money_ref, "payment_id": payment_id})


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
