"""The conformance suite of rails that tell their own books.

Subclass `MovementsContract` beside `RailContract` and give it the same `harness` fixture.
"""

from __future__ import annotations

from datetime import timedelta
from typing import cast

from ledger.money import Money
from rails.contract import Instructions
from rails.movements import Movement, MovementKind, Movements
from rails.testing.harness import RailHarness, only_receipt
from rails.testing.worlds import Disputes, Reverses

PAGES_MAX = 1_000


async def everything(harness: RailHarness, cursor: str | None = None) -> tuple[list[Movement], str | None]:
    """All that the rail has to tell after a cursor, and the cursor behind it."""
    books = cast(Movements, harness.rail)
    found: list[Movement] = []
    since = harness.world.clock() - timedelta(days=1)
    for _ in range(PAGES_MAX):
        page = await books.movements(cursor, since)
        found += page.movements
        cursor = page.cursor
        if page.complete:
            return found, cursor
    raise AssertionError("the rail's books go on without end")


async def paid(harness: RailHarness) -> tuple[Instructions, str]:
    """Somebody has paid; the money's name."""
    instructions = await harness.open()
    await harness.world.pay(instructions)
    return instructions, only_receipt(await harness.settled(instructions)).money_ref


def about(found: list[Movement], money_ref: str) -> list[Movement]:
    """Movements of one money, each once, in order."""
    return sorted(
        {each.movement_ref: each for each in found if each.money_ref == money_ref}.values(),
        key=lambda each: (each.occurred_at, each.kind is not MovementKind.RECEIVED),
    )


def held(movements: list[Movement]) -> int:
    """What the movements add to what is held, in minor units."""
    return sum(each.amount.minor - (each.fee.minor if each.fee else 0) for each in movements)


class MovementsContract:
    """What a rail's own books must tell."""

    async def test_money_that_came_is_one_movement_with_the_fee_that_observe_gives(
        self, harness: RailHarness
    ) -> None:
        assert isinstance(harness.rail, Movements)
        instructions, money = await paid(harness)
        receipt = only_receipt(await harness.rail.observe(instructions.reference))
        found, _ = await everything(harness)
        [movement] = about(found, money)
        assert (movement.kind, movement.amount) == (MovementKind.RECEIVED, receipt.amount)
        assert (movement.fee or Money(0, receipt.amount.asset)).minor == (
            receipt.fee.minor if receipt.fee else 0
        )

    async def test_asking_again_gives_the_same_names(self, harness: RailHarness) -> None:
        _, money = await paid(harness)
        first, _ = await everything(harness)
        again, _ = await everything(harness)
        assert about(first, money) == about(again, money)

    async def test_after_a_cursor_nothing_that_moves_later_is_missed(self, harness: RailHarness) -> None:
        _, before = await everything(harness)
        moneys = [(await paid(harness))[1] for _ in range(3)]
        found, cursor = await everything(harness, before)
        assert [len(about(found, money)) for money in moneys] == [1, 1, 1]
        await harness.restart()
        later = (await paid(harness))[1]
        found, _ = await everything(harness, cursor)
        assert len(about(found, later)) == 1

    async def test_what_is_held_changes_as_the_movements_say(self, harness: RailHarness) -> None:
        books = cast(Movements, harness.rail)
        before = {each.asset: each.minor for each in await books.holdings()}
        _, money = await paid(harness)
        found, _ = await everything(harness)
        [movement] = about(found, money)
        after = {each.asset: each.minor for each in await books.holdings()}
        asset = movement.amount.asset
        assert after[asset] - before.get(asset, 0) == held([movement])

    async def test_money_taken_back_leaves_nothing_of_its_amount(self, harness: RailHarness) -> None:
        if not isinstance(harness.world, Reverses):
            return
        instructions, money = await paid(harness)
        await harness.world.reverse(instructions)
        found, _ = await everything(harness)
        mine = about(found, money)
        assert [each.kind for each in mine] == [MovementKind.RECEIVED, MovementKind.TAKEN_BACK]
        assert sum(each.amount.minor for each in mine) == 0

    async def test_a_dispute_takes_and_gives_back_what_observe_says(self, harness: RailHarness) -> None:
        if not isinstance(harness.world, Disputes):
            return
        instructions, money = await paid(harness)
        for won in (None, True):
            if won is None:
                await harness.world.dispute(instructions)
            else:
                await harness.world.end_dispute(instructions, won=won)
            receipt = only_receipt(await harness.rail.observe(instructions.reference))
            found, _ = await everything(harness)
            mine = about(found, money)
            back = [each for each in mine if each.kind is MovementKind.TAKEN_BACK]
            taken = receipt.reversed_amount.minor if receipt.reversed_amount else 0
            if won is None and receipt.reversed_amount is None:
                taken = receipt.amount.minor
            assert -sum(each.amount.minor for each in back) == taken
            assert sum(each.fee.minor if each.fee else 0 for each in back) == (
                receipt.costs.minor if receipt.costs else 0
            )
