"""How much can arrive: offered no more than that, and operators hear of it before payers do."""

from __future__ import annotations

import pytest

from ledger.money import BTC
from rails.lightning.rail import LightningRail
from tests.rails.lightning.node import Refused, SandboxNode

RESERVE_SAT = 354


async def receivable(rail: LightningRail) -> int:
    health = await rail.health()
    assert health.ok, health.detail
    assert health.receivable is not None
    return health.receivable[BTC.code]


async def test_what_the_other_side_has_less_what_it_keeps_can_arrive(
    node: SandboxNode, rail: LightningRail
) -> None:
    await node.faults(remote_sat=1_000_354)
    assert await receivable(rail) == 990_000_000
    health = await rail.health()
    assert "can receive 990000 sat now" in health.detail


async def test_that_much_does_arrive_and_what_the_channel_lacks_does_not(
    node: SandboxNode, rail: LightningRail
) -> None:
    await node.faults(remote_sat=1_000_354)
    fits = await rail.open(node.order(msat=await receivable(rail)))
    assert (await node.pay(fits.text or ""))["state"] == "paid"
    with pytest.raises(Refused, match="cannot receive"):
        await node.pay((await rail.open(node.order(msat=1_000_001_000))).text or "")


@pytest.mark.parametrize("fault", [{"channel_active": False}, {"remote_sat": 0}, {"remote_sat": RESERVE_SAT}])
async def test_without_a_way_in_nothing_can_arrive(
    node: SandboxNode, rail: LightningRail, fault: dict[str, int]
) -> None:
    await node.faults(**fault)
    assert await receivable(rail) == 0


async def test_plenty_is_no_news(rail: LightningRail) -> None:
    assert await receivable(rail) > rail.capabilities.maximum[BTC.code]
    assert (await rail.health()).detail == ""


async def test_that_it_cannot_be_asked_closes_nothing(node: SandboxNode, rail: LightningRail) -> None:
    await node.faults(unavailable=1, method="ListChannels")
    health = await rail.health()
    assert health.ok
    assert health.receivable is None
    assert "not known" in health.detail
