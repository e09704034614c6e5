"""Turns among people: weighted fair queueing in integers.

Virtual time moves on as jobs are claimed. A job's tag is the later of the queue's virtual time and
its owner's; its cost divided by the owner's weight moves the owner's on. So a hundred waiting jobs of
one person lie far behind the first job of another. A job's rank is its tag less its tier's bonus.
"""

from __future__ import annotations

from typing import NamedTuple

SLOT = 1_000_000
"""Virtual time of one image of a person of weight 1."""
VARIATION_SLOTS = 8
"""How many single-image turns variations of a live session stand behind its frames."""


class Tier(NamedTuple):
    """How a plan is served."""

    weight: int
    bonus_slots: int
    """How many single-image turns ahead of others it stands."""
    in_flight_max: int


FREE = Tier(weight=1, bonus_slots=0, in_flight_max=24)
PAID = Tier(weight=2, bonus_slots=2, in_flight_max=200)
PRIORITY = Tier(weight=4, bonus_slots=20, in_flight_max=400)


class Turn(NamedTuple):
    """A job's place: in the order by rank, and in the fair order."""

    rank: int
    tag: int

    def behind(self, slots: int) -> Turn:
        """The same, so many single-image turns later."""
        return Turn(self.rank + slots * SLOT, self.tag + slots * SLOT)

    def just_before(self) -> Turn:
        """Ahead of whoever came after it: a job that replaces another keeps its place."""
        return Turn(self.rank - 1, self.tag - 1)


NO_TURN = Turn(0, 0)
"""Of a job that is not in line: its payment is awaited."""


def turn_of(virtual_time: int, finish: int, cost_credits: int, tier: Tier) -> tuple[Turn, int]:
    """(place, new finish of its owner) of a job that is asked for at `virtual_time` of the queue."""
    start = max(virtual_time, finish)
    return Turn(start - tier.bonus_slots * SLOT, start), start + cost_credits * SLOT // tier.weight
