"""`/v1/operator`: what operators see of payments and do with money. Each write has a reason and a key of its own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.auth.operators import actor_of
from gateway.http.idempotency import IdempotencyKey, IdempotencyKeys
from gateway.http.problems import Problem
from gateway.operators_view import EVENTS_MAX, Attention, event_shown, payment_row_shown, suspended_of
from gateway.routes.bounded import BoundedRoute
from gateway.routes.operator_shapes import (
    AdjustedOut,
    AttentionOut,
    PaymentDetailOut,
    PaymentRowsOut,
)
from gateway.routes.presenting import account_state, topup_shown
from gateway.routes.refunds import DESTINATION
from gateway.routes.shapes import TopupOut, answers
from gateway.wiring.dependencies import (
    CallingOperator,
    ClockDep,
    DebtsDep,
    IdempotencyKeysDep,
    IdentifiersDep,
    LedgerDep,
    LogReaderDep,
    OperationsDep,
    OperatorsDep,
    OverviewDep,
    OwnershipDep,
    PaymentsDep,
)
from ledger.identifiers import AccountId, CommandKey, is_identifier
from processes.operating import REASON_CHARACTERS_MAX
from rails.domain.topup import payment_of
from rails.payments.refunds import RefundAsked

router = APIRouter(route_class=BoundedRoute, prefix="/v1/operator", tags=["operators"])
NAME = r"^[A-Za-z0-9_:.@+-]{1,300}$"
Reason = Annotated[
    str,
    Field(
        min_length=1,
        max_length=REASON_CHARACTERS_MAX,
        pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$",
        description="Why. It is kept for ever in the log: no personal data.",
    ),
]
WRITE_PROBLEMS = ("operators_only", "idempotency_conflict", "bad_idempotency_key")
REFUND_PROBLEMS = (
    "payment_not_found",
    "nothing_to_refund",
    "refund_unclear",
    "refund_under_way",
    "refund_too_large",
    "lot_disputed",
    "lot_not_found",
    "destination_missing",
    "destination_not_taken",
    "destination_unusable",
    "unknown_rail",
)


class _In(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    reason: Reason


class RefundByOperatorIn(_In):
    """What is refunded: all that is unspent of the only lot if nothing else is named."""

    lot_id: str | None = Field(default=None, max_length=80)
    credits: int | None = Field(default=None, ge=1, le=1_000_000_000)
    amount_minor: int | None = Field(
        default=None,
        ge=1,
        le=10**15,
        description="At most what the credits cost; alone: as many as cost that.",
    )
    destination: str | None = Field(default=None, pattern=DESTINATION)
    by_hand: bool = Field(default=False, description="You send it yourself, and record it afterwards.")


class EndRefundIn(_In):
    """What came of a refund that an operator sent by hand."""

    sent: bool
    reference: str | None = Field(default=None, pattern=NAME, description="Where it is found: a txid.")

    @model_validator(mode="after")
    def _found_somewhere(self) -> EndRefundIn:
        if self.sent and self.reference is None:
            raise ValueError("name where the money that was sent can be found")
        return self


class SuspenseIn(_In):
    """What is done with money in suspense."""

    money_ref: str = Field(pattern=NAME)
    action: Literal["accept", "assign", "return"] = Field(
        description="`accept`: credit it at today's rate; `assign`: with so many credits; `return`: send it back."
    )
    credits: int | None = Field(default=None, ge=1, le=1_000_000, description="For `assign`.")
    destination: str | None = Field(default=None, pattern=DESTINATION, description="For `return`.")

    @model_validator(mode="after")
    def _what_it_needs(self) -> SuspenseIn:
        if (self.credits is not None) != (self.action == "assign"):
            raise ValueError("assign names credits, and nothing else does")
        return self


class AdjustIn(_In):
    """Credits to grant, or to take away."""

    credits: int = Field(ge=-1_000_000, le=1_000_000, description="Negative takes away.")


class ForgiveIn(_In):
    """How much of a debt is let go."""

    credits: int = Field(ge=1, le=1_000_000_000)


async def command_key(
    request: Request,
    operator: CallingOperator,
    keys: IdempotencyKeysDep,
    identifiers: IdentifiersDep,
    idempotency_key: IdempotencyKey = None,
) -> CommandKey:
    """Dependency: what the request's own key stands for. Raises `Problem` 400 without one."""
    if idempotency_key is None:
        raise Problem("bad_idempotency_key", "An operator's request needs an Idempotency-Key.")
    return await _mapped(keys, request, operator.account_id, idempotency_key, identifiers.command())


async def _mapped(
    keys: IdempotencyKeys, request: Request, principal: str, key: str, new_id: str
) -> CommandKey:
    route = f"{request.method} {request.url.path}"
    mapped = await keys.map(
        principal=principal, route=route, key=key, body=await request.body(), new_id=new_id
    )
    return mapped.command_key


Key = Annotated[CommandKey, Depends(command_key)]


@router.get("/payments", summary="Search payments", **answers(PaymentRowsOut, "operators_only"))
async def payments_found(
    operator: CallingOperator,
    overview: OverviewDep,
    operators: OperatorsDep,
    search: Annotated[str | None, Query(pattern=NAME)] = None,
    rail: Annotated[str | None, Query(pattern=r"^[a-z0-9_-]{1,32}$")] = None,
    state: Annotated[str | None, Query(pattern=r"^[a-z_]{1,20}$")] = None,
    before: Annotated[str | None, Query(pattern=r"^pay_[0-9a-z]{26}$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> PaymentRowsOut:
    """Newest first. `search` is the id of a payment, an account or an open refund, a rail's reference, the money's name,
    or the e-mail address of a person."""
    text = search or ""
    accounts = await operators.people_named(text) if "@" in text else ()
    if "@" in text and not accounts:
        return PaymentRowsOut(payments=[], next_before=None)
    found = await overview.search(
        text, accounts=accounts, rail=rail, state=state, before=before, limit=min(limit + 1, 200)
    )
    shown = [payment_row_shown(row) for row in found[:limit]]
    more = len(found) > limit
    return PaymentRowsOut.model_validate(
        {"payments": shown, "next_before": shown[-1]["payment_id"] if more else None}
    )


@router.get(
    "/payments/{payment_id}",
    summary="Everything about a payment",
    **answers(PaymentDetailOut, "operators_only", "payment_not_found"),
)
async def payment_detail(
    payment_id: str,
    operator: CallingOperator,
    payments: PaymentsDep,
    reader: LogReaderDep,
    ledger: LedgerDep,
    ownership: OwnershipDep,
    clock: ClockDep,
) -> PaymentDetailOut:
    """Its state, its money, what of it can be refunded, and every event of it with its actor."""
    row = await payments.store.payment(payment_id) if is_identifier(payment_id, "pay") else None
    if row is None:
        raise Problem("payment_not_found", "There is no such payment.")
    owner = await ownership.owner_of(AccountId(row["account_id"]))
    found = await payments.refunds.refundable(payment_id, (await reader.state(owner)).state, clock())
    lots = [
        lot for lot in account_state(owner, await ledger.account(owner)).lots if lot.reference == payment_id
    ]
    to = payments.refunds.goes_to(row["rail"])
    receipts = payment_of(row).receipts.values()
    events = await reader.events(payment_id, limit=EVENTS_MAX)
    return PaymentDetailOut.model_validate(
        {
            "topup": topup_shown(await payments.topup(payment_id)).model_dump(
                by_alias=True, exclude_unset=True
            ),
            "account_id": owner,
            "external_refs": [receipt.external_ref for receipt in receipts if receipt.external_ref],
            "refund_to": None if to is None else to.value,
            "refundable": [
                {
                    "lot_id": lot.lot_id,
                    "credits": lot.credits,
                    "amount_minor": lot.amount.minor,
                    "asset": lot.amount.asset.code,
                }
                for lot in found
            ],
            "suspended": list(suspended_of(row)),
            "lots": [lot.model_dump() for lot in lots],
            "events": [event_shown(entry) for entry in events],
        }
    )


@router.get("/attention", summary="What waits for an operator", **answers(AttentionOut, "operators_only"))
async def attention(
    operator: CallingOperator, overview: OverviewDep, debts: DebtsDep, reader: LogReaderDep
) -> AttentionOut:
    """Money in suspense, disputes by their deadline, refunds that have not ended, debts, and what was adjusted."""
    return AttentionOut.model_validate(await Attention(overview, debts, reader).everything())


@router.post(
    "/payments/{payment_id}/refund",
    status_code=202,
    summary="Refund unspent credits",
    **answers(TopupOut, *WRITE_PROBLEMS, *REFUND_PROBLEMS),
)
async def refund(
    payment_id: str, body: RefundByOperatorIn, operator: CallingOperator, operations: OperationsDep, key: Key
) -> TopupOut:
    """As a person may ask for it, without the owner's rule on days."""
    asked = RefundAsked(payment_id=payment_id, **body.model_dump())
    return topup_shown(await operations.refund(asked, actor=actor_of(operator), key=key))


@router.post(
    "/payments/{payment_id}/refunds/{refund_id}",
    summary="Record a refund by hand",
    **answers(TopupOut, *WRITE_PROBLEMS, "payment_not_found", "refund_not_found", "refund_not_by_hand"),
)
async def end_refund(
    payment_id: str,
    refund_id: str,
    body: EndRefundIn,
    operator: CallingOperator,
    operations: OperationsDep,
    key: Key,
) -> TopupOut:
    """It was sent, and can be found there; or it cannot be sent, and the credits go back."""
    view = await operations.end_refund(
        payment_id,
        refund_id,
        sent=body.sent,
        reference=body.reference,
        reason=body.reason,
        actor=actor_of(operator),
        key=key,
    )
    return topup_shown(view)


@router.post(
    "/payments/{payment_id}/suspense",
    summary="Credit or return money in suspense",
    **answers(TopupOut, *WRITE_PROBLEMS, *REFUND_PROBLEMS, "money_not_in_suspense", "rail_closed"),
)
async def suspense(
    payment_id: str, body: SuspenseIn, operator: CallingOperator, operations: OperationsDep, key: Key
) -> TopupOut:
    """Money of another asset than asked, or worth less than a credit."""
    actor = actor_of(operator)
    if body.action == "return":
        asked = RefundAsked(
            payment_id=payment_id, money_ref=body.money_ref, destination=body.destination, reason=body.reason
        )
        return topup_shown(await operations.refund(asked, actor=actor, key=key))
    view = await operations.accept(
        payment_id, body.money_ref, credits_=body.credits, reason=body.reason, actor=actor, key=key
    )
    return topup_shown(view)


@router.post(
    "/accounts/{account_id}/adjust",
    summary="Grant or take away credits",
    **answers(AdjustedOut, *WRITE_PROBLEMS, "account_not_found", "insufficient_credits", "invalid_amount"),
)
async def adjust(
    account_id: str,
    body: AdjustIn,
    operator: CallingOperator,
    operations: OperationsDep,
    ledger: LedgerDep,
    ownership: OwnershipDep,
    key: Key,
) -> AdjustedOut:
    """Nobody can be left with less than nothing: what is held or spent cannot be taken."""
    done = await operations.adjust(
        account_id, body.credits, reason=body.reason, actor=actor_of(operator), key=key
    )
    return await _adjusted(account_id, done.result, ledger, ownership)


@router.post(
    "/accounts/{account_id}/forgive",
    summary="Forgive a debt",
    **answers(AdjustedOut, *WRITE_PROBLEMS, "account_not_found", "no_debt"),
)
async def forgive(
    account_id: str,
    body: ForgiveIn,
    operator: CallingOperator,
    operations: OperationsDep,
    ledger: LedgerDep,
    ownership: OwnershipDep,
    key: Key,
) -> AdjustedOut:
    """Of what a dispute or an outside refund left owed."""
    done = await operations.forgive(
        account_id, body.credits, reason=body.reason, actor=actor_of(operator), key=key
    )
    return await _adjusted(account_id, done.result, ledger, ownership)


async def _adjusted(account_id: str, events: Any, ledger: LedgerDep, ownership: OwnershipDep) -> AdjustedOut:
    owner = await ownership.owner_of(AccountId(account_id))
    view = await ledger.account(owner)
    return AdjustedOut(account_id=owner, available=view.available, debt=view.debt, events=list(events))
