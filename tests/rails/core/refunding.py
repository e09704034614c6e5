"""What tests of refunds share: a paid top-up, a round of the sweeper, and credits that are used."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from ledger.domain.applying import act_in
from ledger.domain.commands import CaptureHold, Command, HoldCredits
from ledger.identifiers import CommandKey
from ledger.log.model import Transaction
from rails.contract import RailUnavailable
from rails.domain.refunding import RefundRecord
from rails.domain.topup import TopupView, payment_of
from rails.payments.refunds import RefundAsked, RefundOutcomeUnknown
from rails.store.tables import REFUND_ROWS
from tests.rails.core.platform import Platform, opened, settled

ACTOR = "operator:test"


async def paid(platform: Platform, account_id: str | None = None, credits_: int = 500) -> TopupView:
    """A top-up of so many credits, a cent each, that is paid."""
    topup = await opened(platform, account_id, wanted=credits_)
    await platform.pay(topup.payment_id)
    return await settled(platform, topup)


async def request(platform: Platform, topup: TopupView, key: str | None = None, **asked: Any) -> str:
    """An operator asks for a refund; its id."""
    return await platform.payments.refunds.request(
        topup.account_id,
        RefundAsked(payment_id=topup.payment_id, **{"reason": "asked for", **asked}),
        actor=ACTOR,
        key=None if key is None else CommandKey(key),
    )


async def waiting(platform: Platform) -> list[dict[str, Any]]:
    """The rows that a sweeper works off."""
    if hasattr(platform.log, "tables"):
        kept = [row for (table, _), row in platform.log.tables.items() if table == "rail_refunds"]
        return [row for row in kept if not row["by_hand"]]
    async with platform.store._engine.connect() as connection:
        rows = await connection.execute(sa.select(REFUND_ROWS).where(~REFUND_ROWS.c.by_hand))
        return [dict(row) for row in rows.mappings()]


async def send_all(platform: Platform) -> None:
    """One round of the sweeper, whatever comes of each."""
    for row in await waiting(platform):
        with contextlib.suppress(RailUnavailable, RefundOutcomeUnknown):
            await platform.payments.refunds.send(row)


async def refund_of(platform: Platform, topup: TopupView, refund_id: str) -> RefundRecord:
    """The refund, as its payment knows it."""
    row = await platform.store.payment(topup.payment_id)
    assert row is not None
    return payment_of(row).refunds[refund_id]


async def act(platform: Platform, account_id: str, *commands: Command) -> None:
    """Commands of the account, each in a transaction of its own."""
    for command in commands:

        def decide(uow: Any, command: Command = command) -> None:
            act_in(uow, account_id, command)

        await platform.log.submit(
            Transaction(
                key=platform.ids.command(),
                actor=account_id,
                body=None,
                streams=(account_id,),
                decide=decide,
                keeps_refusals=False,
            )
        )


async def spend(platform: Platform, account_id: str, credits_: int) -> None:
    """Use credits, as delivered images do."""
    hold_id = platform.ids.hold()
    held = HoldCredits(
        hold_id=hold_id,
        job_id="job",
        credits=credits_,
        deadline=platform.clock() + timedelta(minutes=5),
        allowance=False,
    )
    await act(platform, account_id, held, CaptureHold(hold_id=hold_id))
