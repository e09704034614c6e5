"""Operators are told how far the chain was read, and why no further."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rails.contract import Follows, RailUnavailable
from tests.rails.liquid.outside import LiquidWorld, Till
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def healthy_afterwards(world: LiquidWorld) -> Iterator[None]:
    yield
    world.node.control("state")
    world.node.control("catch-up")


async def test_it_is_told_how_far_the_chain_was_read_and_when(till: Till):
    assert isinstance(till.rail, Follows)
    await till.ask()
    before = till.rail.following()
    assert before.height is not None
    assert (before.behind, before.fault) == (0, "")
    till.mine(2)
    await eventually(
        lambda: till.rail.following().height == before.height + 2, "both blocks were read by themselves"
    )
    after = till.rail.following()
    assert before.as_of is not None is not after.as_of
    assert after.as_of >= before.as_of


async def test_before_the_first_block_nothing_was_read(till: Till):
    till.world.node.control("state", syncing=True)
    await till.restart()
    with pytest.raises(RailUnavailable):
        await till.ask()
    found = till.rail.following()
    assert (found.height, found.as_of) == (None, None)
    assert "catching up with the network" in found.fault


async def test_a_fault_is_told_until_the_chain_is_read_again_and_so_is_when_it_was_read_last(till: Till):
    await till.ask()
    till.world.node.control("state", syncing=True)
    await eventually(lambda: till.rail.following().fault != "", "the fault is noticed by itself")
    read = till.rail.following().as_of
    with pytest.raises(RailUnavailable):
        await till.ask()
    assert till.rail.following().as_of == read
    till.world.node.control("state")
    await eventually(lambda: till.rail.following().fault == "", "it is over")
