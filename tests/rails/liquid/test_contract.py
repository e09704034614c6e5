"""The Liquid rail passes the suite of every rail, against a real process with real confidential payments."""

from __future__ import annotations

from dataclasses import replace

from tests.rails.contract import Desk, RailContract, World, only_piece


class TestLiquidContract(RailContract):
    """See `conftest.world`."""

    async def test_a_fresh_process_sees_the_same_money(self, desk: Desk, world: World) -> None:
        # A process that was not there learns the time from the block: the contract allows it
        # ("block time if we were down"), and a node forgets when it first saw a mined transaction.
        instructions = await desk.open()
        await world.pay(instructions)
        before = only_piece(await desk.settled(instructions))
        await desk.restart()
        seen = await desk.observe_until(instructions, lambda observation: bool(observation.pieces))
        after = only_piece(seen)
        assert replace(after, first_seen_at=before.first_seen_at) == before
        assert after.first_seen_at >= before.first_seen_at.replace(microsecond=0)
