"""How simulated people behave: who they are, when they draw, and when they look at what came."""

from __future__ import annotations

import random
from dataclasses import dataclass

from generation.domain.fairness import FREE, PAID, PRIORITY, Tier
from ledger.identifiers import AccountId

PLANS = {"free": FREE, "paid": PAID, "pro": PRIORITY}
SHARES = {"free": 80, "paid": 15, "pro": 5}
HABITS = {"live": 86, "single": 10, "batch": 4}
"""In percent: sketch live; ask for one image after the other; ask for a batch at once now and then."""
CREDITS = 20_000
POOR_EVERY = 25
"""Every so manieth person on the free plan has today's free images and nothing else."""
SITTING_SECONDS = 300.0
STROKE_SECONDS = 1.2
STROKES = (3, 8)
"""Strokes in a row before somebody looks at the picture."""
LOOK_SECONDS = 6.0
BATCH = 12
BATCH_SECONDS = 240.0
NOBODY = AccountId("")


@dataclass
class Sketcher:
    """One person."""

    number: int
    plan: str
    habit: str
    chance: random.Random
    account_id: AccountId = NOBODY
    sitting_until: float = 0.0
    session: int = 0
    seq: int = 0
    strokes_left: int = 0
    waiting: str | None = None
    """The live frame that a newer one would replace."""

    @property
    def credits(self) -> int:
        """What they begin with; with nothing they have today's free images."""
        return 0 if self.plan == "free" and self.number % POOR_EVERY == 0 else CREDITS

    @property
    def tier(self) -> Tier:
        """How the plan is served."""
        return PLANS[self.plan]

    def first_sits_at(self, drawing: float) -> float:
        """When they first sit down, if this share of all draws at any time."""
        return 0.0 if self.chance.random() < drawing else self.stays_away(drawing)

    def stays_away(self, drawing: float) -> float:
        """How many seconds between two sittings."""
        return self.chance.expovariate(1 / (SITTING_SECONDS * (1 / drawing - 1) + 1e-9))

    def sits_down(self, now: float) -> None:
        """A new session."""
        self.sitting_until = now + self.chance.expovariate(1 / SITTING_SECONDS)
        self.session += 1
        self.seq = 0
        self.waiting = None  # a frame of another session replaces nothing
        self.strokes_left = self.chance.randint(*STROKES)

    def next_stroke_in(self) -> float:
        """Seconds from one frame to the next: a stroke, or a look first."""
        self.strokes_left -= 1
        if self.strokes_left > 0:
            return 0.3 + self.chance.expovariate(1 / STROKE_SECONDS)
        self.strokes_left = self.chance.randint(*STROKES)
        return 1.0 + self.chance.expovariate(1 / LOOK_SECONDS)

    def looks_for(self) -> float:
        """Seconds before they ask for the next single image."""
        return 1.0 + self.chance.expovariate(1 / LOOK_SECONDS)

    def next_batch_in(self) -> float:
        """Seconds between two batches."""
        return self.chance.expovariate(1 / BATCH_SECONDS)


def draw_person(number: int, chance: random.Random) -> Sketcher:
    """Somebody, by chance."""
    plan = chance.choices(list(SHARES), list(SHARES.values()))[0]
    habit = chance.choices(list(HABITS), list(HABITS.values()))[0]
    return Sketcher(number, plan, habit, random.Random(chance.random()))
