"""`llamasketch payments`, `suspense`, `disputes`, `adjust`, `forgive`, `operators`: money, at the command line.

What is written has an actor and a reason, and is done once per key: the same command with the same `--key` may be
sent again when its answer was lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import typer

from gateway.commands import stack
from gateway.commands.operators import show_table
from gateway.operators_view import event_shown, payment_row_shown
from gateway.wiring.operating import Operating, open_operating
from ledger.errors import IdempotencyConflict, LedgerError, OutcomeUnknown, Refusal
from ledger.identifiers import AccountId, CommandKey, is_identifier
from rails.domain.topup import TopupView
from rails.payments.refunds import RefundAsked
from rails.payments.registry import installed_plugins

Work = Callable[[Operating], Awaitable[Any]]
ACTOR = re.compile(r"[A-Za-z0-9_.@+-]{1,80}")
ROW = (
    "payment_id",
    "account_id",
    "rail",
    "state",
    "amount_due",
    "credits",
    "credited",
    "refunds",
    "opened_at",
)


def run(work: Work) -> Any:
    """Do it where the stack's settings are; a refusal ends the command with its sentence."""
    settings = stack.settings()

    async def working() -> Any:
        async with open_operating(settings, stack.environment(), installed_plugins()) as operating:
            return await work(operating)

    with stack.answering():
        try:
            return asyncio.run(working())
        except Refusal as refusal:
            named = ", ".join(f"{name} {value}" for name, value in refusal.details.items() if value)
            stack.fail(f"{refusal.message} ({refusal.code}{': ' + named if named else ''})", code=1)
        except IdempotencyConflict:
            stack.fail("This --key was used for something else.", code=1)
        except OutcomeUnknown as error:
            stack.fail(f"{error.message} Give the same --key again.", code=1)
        except LedgerError as error:
            stack.fail(error.message, code=1)


def written_by(actor: str, key: str | None, words: str) -> tuple[str, CommandKey]:
    """The actor and the key in the log's words. Without `--key` each call is one of its own."""
    if not ACTOR.fullmatch(actor):
        stack.fail("An actor is a short name or address without spaces.")
    fresh = stack.identifiers().command()
    named = fresh if key is None else f"{words}\0{key}"
    digest = hashlib.sha256(f"{actor}\0{named}".encode()).hexdigest()[:32]
    return f"operator:{actor}", CommandKey(f"operator:{digest}")


def _plain(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: f"{value['amount_minor']} {value['asset']}" if isinstance(value, dict) else value
        for name, value in shown.items()
    }


def list_payments(search: str, rail: str | None, state: str | None, limit: int, *, as_json: bool) -> int:
    """The newest payments, or those that a name leads to."""

    async def work(operating: Operating) -> list[dict[str, Any]]:
        accounts = await operating.operators.people_named(search) if "@" in search else ()
        if "@" in search and not accounts:
            return []
        found = await operating.payments.overview.search(
            search, accounts=accounts, rail=rail, state=state, limit=limit
        )
        return [payment_row_shown(row) for row in found]

    return _listed("payments", run(work), ROW, "No such payment.", as_json=as_json)


def show_payment(payment_id: str, *, as_json: bool) -> int:
    """Everything that happened to a payment, and by whom."""

    async def work(operating: Operating) -> dict[str, Any]:
        view = await operating.payments.payments.topup(_checked(payment_id))
        events = await operating.base.reader.events(payment_id)
        return {"payment": view.to_json(), "events": [event_shown(entry) for entry in events]}

    shown = run(work)
    if as_json:
        stack.print_json(shown)
        return 0
    payment = shown["payment"]
    due, asset = payment["amount_due"]["amount_minor"], payment["amount_due"]["asset"]
    typer.echo(f"{payment_id}: {payment['state']}, {due} {asset} asked, {payment['credited']} credits")
    for event in shown["events"]:
        typer.echo(f"{event['recorded_at'][:19]}  {event['event']}  by {event['actor']}")
        words = {
            name: value for name, value in event["data"].items() if name in ("reason", "amount", "credits")
        }
        if words:
            typer.echo("    " + ", ".join(f"{name} {value}" for name, value in words.items()))
    return 0


def refund(
    payment_id: str,
    *,
    lot: str | None,
    credits_: int | None,
    amount_minor: int | None,
    to: str | None,
    by_hand: bool,
    actor: str,
    reason: str,
    key: str | None,
    as_json: bool,
) -> int:
    """Request a refund of unspent credits; the running stack sends it."""
    who, once = written_by(actor, key, f"refund {payment_id}")
    asked = RefundAsked(
        payment_id=_checked(payment_id),
        lot_id=lot,
        credits=credits_,
        amount_minor=amount_minor,
        destination=to,
        by_hand=by_hand,
        reason=reason,
    )
    view = run(lambda operating: operating.operations.refund(asked, actor=who, key=once))
    return _shown(view, as_json=as_json)


def end_refund(
    payment_id: str,
    refund_id: str,
    *,
    reference: str | None,
    actor: str,
    reason: str,
    key: str | None,
    as_json: bool,
) -> int:
    """Record that a refund by hand was sent (with a reference), or cannot be (without)."""
    who, once = written_by(actor, key, f"end_refund {refund_id}")
    view = run(
        lambda operating: operating.operations.end_refund(
            _checked(payment_id),
            refund_id,
            sent=reference is not None,
            reference=reference,
            reason=reason,
            actor=who,
            key=once,
        )
    )
    return _shown(view, as_json=as_json)


def list_suspense(*, as_json: bool) -> int:
    """Money that waits, and notifications that fit nothing."""

    async def work(operating: Operating) -> dict[str, Any]:
        suspended, unmatched = await operating.attention.suspended(), await operating.attention.unmatched()
        return {"suspended": suspended, "unmatched": unmatched}

    found = run(work)
    if as_json:
        stack.print_json(found)
        return 0
    columns = ("payment_id", "money_ref", "status", "amount_minor", "asset", "first_seen_at", "going_back")
    show_table(found["suspended"], columns, "No money waits.")
    if found["unmatched"]:
        typer.echo("")
        show_table(found["unmatched"], ("id", "rail", "payment_id", "received_at", "last_problem"), "")
    return 0


def settle_suspense(
    action: str,
    payment_id: str,
    money_ref: str,
    *,
    credits_: int | None,
    to: str | None,
    by_hand: bool,
    actor: str,
    reason: str,
    key: str | None,
    as_json: bool,
) -> int:
    """Accept money in suspense at today's rate, assign it so many credits, or return it."""
    who, once = written_by(actor, key, f"{action} {money_ref}")

    async def work(operating: Operating) -> TopupView:
        if action == "return":
            asked = RefundAsked(
                payment_id=_checked(payment_id),
                money_ref=money_ref,
                destination=to,
                by_hand=by_hand,
                reason=reason,
            )
            return await operating.operations.refund(asked, actor=who, key=once)
        await operating.payments.rates.refresh()
        return await operating.operations.accept(
            _checked(payment_id), money_ref, credits_=credits_, reason=reason, actor=who, key=once
        )

    return _shown(run(work), as_json=as_json)


def list_disputes(*, as_json: bool) -> int:
    """Open disputes, the nearest deadline first."""
    found = run(lambda operating: operating.attention.disputes())
    columns = ("evidence_due_by", "payment_id", "account_id", "amount_minor", "asset", "external_ref")
    return _listed("disputes", found, columns, "Nothing is disputed.", as_json=as_json)


def list_debts(*, as_json: bool) -> int:
    """Accounts that owe credits, the largest debt first."""
    found = run(lambda operating: operating.attention.debts())
    columns = ("account_id", "debt", "posted")
    return _listed("debts", found, columns, "Nobody owes anything.", as_json=as_json)


def adjust(account: str, credits_: int, *, actor: str, reason: str, key: str | None, as_json: bool) -> int:
    """Grant credits, or take some away."""
    who, once = written_by(actor, key, f"adjust {account}")
    run(lambda operating: operating.operations.adjust(account, credits_, reason=reason, actor=who, key=once))
    return _balance(account, as_json=as_json)


def forgive(account: str, credits_: int, *, actor: str, reason: str, key: str | None, as_json: bool) -> int:
    """Let a debt, or a part of it, go."""
    who, once = written_by(actor, key, f"forgive {account}")
    run(lambda operating: operating.operations.forgive(account, credits_, reason=reason, actor=who, key=once))
    return _balance(account, as_json=as_json)


def change_operators(who: str, *, actor: str, added: bool) -> int:
    """Let a person act as an operator, or no more."""

    async def work(operating: Operating) -> list[str]:
        accounts = await operating.operators.people_named(who)
        for account in accounts:
            if added:
                await operating.operators.add(account, actor)
            else:
                await operating.operators.remove(account)
        return [str(account) for account in accounts]

    accounts = run(work)
    if not accounts:
        stack.fail("Nobody who ever signed in is known by this address or account.", code=1)
    for account in accounts:
        typer.echo(f"{account} is {'an operator now' if added else 'no operator any more'}.")
    return 0


def list_operators(*, as_json: bool) -> int:
    """Everybody who may act as an operator."""
    found = run(lambda operating: operating.operators.all())
    columns = ("account_id", "email", "added_by", "added_at")
    return _listed("operators", found, columns, "Nobody is an operator.", as_json=as_json)


def _listed(
    name: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], nothing: str, *, as_json: bool
) -> int:
    if as_json:
        stack.print_json({name: rows})
    else:
        show_table([_plain(row) for row in rows], columns, nothing)
    return 0


def _checked(payment_id: str) -> str:
    if not is_identifier(payment_id, "pay"):
        stack.fail("This is not the id of a payment.")
    return payment_id


def _shown(view: TopupView, *, as_json: bool) -> int:
    if as_json:
        stack.print_json(view.to_json())
        return 0
    typer.echo(f"{view.payment_id} is {view.state.value}; {view.credited} credits are credited for it.")
    for entry in view.refunds:
        typer.echo(
            f"  {entry.refund_id}: {entry.amount.minor} {entry.amount.asset.code}, {entry.state.value}"
        )
    return 0


def _balance(account: str, *, as_json: bool) -> int:
    async def work(operating: Operating) -> dict[str, Any]:
        owner = await operating.ledger.ownership.owner_of(AccountId(account))
        view = await operating.ledger.ledger.account(owner)
        return {"account_id": owner, "available": view.available, "debt": view.debt}

    shown = run(work)
    if as_json:
        stack.print_json(shown)
    else:
        typer.echo(f"{shown['account_id']} has {shown['available']} credits and owes {shown['debt']}.")
    return 0
