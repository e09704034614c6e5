"""Refunds of cards by the whole core, with the real SDK against the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from ledger.domain.refusals import LotDisputed
from rails.domain.refunding import RefundState
from rails.domain.topup import TopupState, TopupView, payment_of
from rails.payments.refunds import RefundAsked
from rails.testing.harness import Core
from tests.rails.stripe.outside import CardWorld


@pytest.fixture
async def core(world: CardWorld) -> AsyncIterator[Core]:
    async with Core.on(world) as core:
        yield core


async def paid(core: Core) -> TopupView:
    """2,000 credits for 20 dollars."""
    topup = await core.open()
    await core.world.pay(core.instructions(topup))
    seen = await core.payments.observe(topup.payment_id)
    assert seen.state is TopupState.PAID
    return seen


async def request(core: Core, topup: TopupView, credits_: int | None = None) -> str:
    asked = RefundAsked(payment_id=topup.payment_id, credits=credits_, reason="a test")
    return await core.payments.refunds.request(topup.account_id, asked, actor="operator:test")


async def send(core: Core) -> None:
    """A round of the sweeper."""
    rows = [row for (table, _), row in core.log.tables.items() if table == "rail_refunds"]
    for row in rows:
        await core.payments.refunds.send(row)


async def state_of(core: Core, topup: TopupView, refund_id: str) -> RefundState:
    row = await core.store.payment(topup.payment_id)
    assert row is not None
    return payment_of(row).refunds[refund_id].state


async def refunds_at(world: CardWorld, core: Core, topup: TopupView) -> list[dict[str, Any]]:
    """As the processor lists them, the newest first."""
    reference = core.instructions(topup).reference
    intent = (await world.sandbox.control(f"checkout/{reference}"))["payment_intent"]
    listed: list[dict[str, Any]] = (
        await world.sandbox.api("GET", f"refunds?payment_intent={intent}")
    ).json()["data"]
    return listed


async def test_a_refund_is_at_the_processor_once_and_no_reversal(core: Core, world: CardWorld) -> None:
    topup = await paid(core)
    refund_id = await request(core, topup, 700)
    await send(core)
    assert await state_of(core, topup, refund_id) is RefundState.SENT
    [refund] = await refunds_at(world, core, topup)
    # Net and fee of 700 credits are rounded down each: a cent stays.
    assert (refund["amount"], refund["metadata"]) == (699, {"refund_key": refund_id})
    assert (await core.payments.observe(topup.payment_id)).credited == 1_300
    assert await core.posted(topup) == 1_300


async def test_one_that_bounces_days_later_brings_the_credits_back(core: Core, world: CardWorld) -> None:
    topup = await paid(core)
    refund_id = await request(core, topup)
    await send(core)
    [refund] = await refunds_at(world, core, topup)
    await world.sandbox.control("refund", {"refund": refund["id"], "status": "failed"})
    for _ in range(2):
        await core.payments.observe(topup.payment_id)
    assert await state_of(core, topup, refund_id) is RefundState.RETURNED
    assert await core.posted(topup) == 2_000
    again = await request(core, topup)
    await send(core)
    assert await state_of(core, topup, again) is RefundState.SENT
    assert await core.posted(topup) == 0


async def test_what_the_dashboard_refunds_comes_on_top_of_our_own(core: Core, world: CardWorld) -> None:
    topup = await paid(core)
    await request(core, topup, 700)
    await send(core)
    session = core.instructions(topup).reference
    await world.sandbox.control("refund", {"session": session, "amount": 300})
    await core.payments.observe(topup.payment_id)
    assert await core.posted(topup) == 1_000
    last = await request(core, topup)
    await send(core)
    assert await state_of(core, topup, last) is RefundState.SENT
    amounts = [refund["amount"] for refund in await refunds_at(world, core, topup)]
    assert amounts == [1_000, 300, 699]


async def test_what_the_processor_refuses_gives_the_credits_back(core: Core, world: CardWorld) -> None:
    topup = await paid(core)
    refund_id = await request(core, topup)
    # The bank is faster than the sweeper.
    await world.sandbox.control("refund", {"session": core.instructions(topup).reference, "amount": 1_999})
    await send(core)
    assert await state_of(core, topup, refund_id) is RefundState.FAILED
    await core.payments.observe(topup.payment_id)
    assert await core.posted(topup) == 1
    assert len(await refunds_at(world, core, topup)) == 1


async def test_a_dispute_says_until_when_evidence_is_taken_and_bars_refunds(
    core: Core, world: CardWorld
) -> None:
    topup = await paid(core)
    await world.dispute(core.instructions(topup))
    assert (await core.payments.observe(topup.payment_id)).state is TopupState.DISPUTED
    row = await core.store.payment(topup.payment_id)
    assert row is not None
    [receipt] = payment_of(row).receipts.values()
    assert receipt.evidence_due_by is not None
    assert receipt.evidence_due_by > world.clock() + timedelta(days=1)
    with pytest.raises(LotDisputed):
        await request(core, topup)
