"""The Liquid rail passes the suite of every rail, against a real process with real confidential payments."""

from __future__ import annotations

from dataclasses import replace

from rails.testing.contract_suite import RailContract
from rails.testing.harness import RailHarness, only_receipt
from rails.testing.worlds import World


class TestLiquidContract(RailContract):
    """See `conftest.world`."""

    async def test_a_fresh_process_sees_the_same_money(self, harness: RailHarness, world: World) -> None:
        # A process that was not there learns the time from the block: the contract allows it
        # ("block time if we were down"), and a node forgets when it first saw a mined transaction.
        instructions = await harness.open()
        await world.pay(instructions)
        before = only_receipt(await harness.settled(instructions))
        await harness.restart()
        seen = await harness.observe_until(instructions, lambda observation: bool(observation.receipts))
        after = only_receipt(seen)
        assert replace(after, first_seen_at=before.first_seen_at) == before
        assert after.first_seen_at >= before.first_seen_at.replace(microsecond=0)
