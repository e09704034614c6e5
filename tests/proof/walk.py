"""Long lives from a seed: hypothesis finds small cases, a weighted walk goes deep."""

from __future__ import annotations

import random
from collections.abc import Callable

from ledger.domain.lots import Source
from tests.proof.random_commands import Ledger

STEPS = 250
Step = tuple[int, Callable[[], object]]


def live(seed: int, steps: int = STEPS) -> None:
    """One life. Raises what the machine finds."""
    life = Ledger()
    life.begin()
    walk = Walk(life, random.Random(seed))
    possible = [*walk.processes(), *walk.credits(), *walk.money(), *walk.plans()]
    weights, steps_ = [weight for weight, _ in possible], [step for _, step in possible]
    for _ in range(steps):
        [step] = walk.dice.choices(steps_, weights)
        step()
    life.teardown()


class Walk:
    """What may happen next, and how often."""

    def __init__(self, life: Ledger, dice: random.Random) -> None:
        self.life = life
        self.dice = dice

    def below(self, end: int) -> int:
        return self.dice.randrange(end)

    def whom(self) -> dict[str, int]:
        """Mostly the same account, so that much happens to it."""
        return {"who": self.dice.choice([0, 0, 0, 1, 2]), "process": self.below(2)}

    def lasting(self) -> int | None:
        return self.dice.choice([None, None, 60, 3_000, 100_000])

    def processes(self) -> list[Step]:
        life, dice, below = self.life, self.dice, self.below
        killed = ["before", "after", ""]
        return [
            (
                8,
                lambda: life.a_clock_steps(
                    dice.choice([-90, 1, 20, 300, 3_600, 50_000]), below(2), both=dice.random() < 0.8
                ),
            ),
            (6, lambda: life.the_clocks_reach_something(below(100), dice.choice([-1, 0, 0, 1]))),
            (2, lambda: life.the_next_commands_come_together(dice.randint(2, 5))),
            (3, lambda: life.the_commands_that_wait_are_sent(below(2))),
            (
                2,
                lambda: life.the_next_commits_are_unlucky(
                    below(2), dice.choices(killed, k=dice.randint(1, 3)), dies=dice.random() < 0.4
                ),
            ),
            (1, lambda: life.a_process_is_replaced(below(2))),
            (1, lambda: life.an_idle_connection_is_lost(below(2))),
            (4, lambda: life.a_command_comes_again(below(100), below(2), other_body=dice.random() < 0.3)),
            (
                2,
                lambda: life.the_same_command_at_both_processes(
                    below(100), below(3), dice.randint(1, 4), below(2), dice.choice(["", *killed])
                ),
            ),
        ]

    def credits(self) -> list[Step]:
        life, dice, below = self.life, self.dice, self.below
        sources = [Source.PAYMENT, Source.PAYMENT, Source.PROMOTION, Source.PASS]
        amounts = [None, None, 1, 2, 3, 6]
        return [
            (
                8,
                lambda: life.grant(
                    **self.whom(),
                    amount=below(15),
                    life=self.lasting(),
                    source=dice.choice(sources),
                    again=dice.random() < 0.1,
                ),
            ),
            (
                8,
                lambda: life.an_image_is_bought_and_made(
                    **self.whom(),
                    bought=dice.randint(2, 12),
                    used=dice.randint(1, 12),
                    captured=dice.choice([None, 1, 2]),
                    life=self.lasting(),
                    kept=below(3),
                ),
            ),
            (2, lambda: life.adjust(**self.whom(), amount=dice.randint(-3, 4))),
            (3, lambda: life.sweep(**self.whom(), limit=dice.choice([1, 2, 100]))),
            (
                14,
                lambda: life.hold(
                    **self.whom(),
                    amount=below(8),
                    seconds=dice.choice([-1, 90, 4_000, 4_000, 200_000]),
                    only=below(10),
                    allowance=dice.random() < 0.7,
                ),
            ),
            (
                12,
                lambda: life.capture(
                    **self.whom(), pick=below(100), amount=dice.choice(amounts), limit=below(4)
                ),
            ),
            (5, lambda: life.release(**self.whom(), pick=below(100))),
            (3, lambda: life.expire(**self.whom(), pick=below(100))),
            (
                3,
                lambda: life.move(
                    **self.whom(), pick=below(100), onto=below(100), seconds=dice.choice([-1, 60, 4_000])
                ),
            ),
        ]

    def money(self) -> list[Step]:
        life, dice, below = self.life, self.dice, self.below
        causes, outcomes = ["dispute", "dispute", "reversal", "refund"], ["sent", "failed", "unknown"]
        return [
            (
                5,
                lambda: life.money_goes_back(
                    **self.whom(),
                    pick=below(100),
                    amount=below(20),
                    cause=dice.choice(causes),
                    again=below(6),
                ),
            ),
            (3, lambda: life.a_dispute_ends(**self.whom(), pick=below(100), won=dice.random() < 0.7)),
            (
                4,
                lambda: life.a_refund_opens(
                    **self.whom(), pick=below(100), amount=below(7), again=dice.random() < 0.1
                ),
            ),
            (4, lambda: life.a_refund_ends(**self.whom(), pick=below(100), outcome=dice.choice(outcomes))),
            (3, lambda: life.forgive(**self.whom(), amount=below(6))),
            (1, lambda: life.merge(below(3), below(3), below(2))),
            (1, self.a_guest_signs_in_and_takes_money_back),
        ]

    def a_guest_signs_in_and_takes_money_back(self) -> None:
        """With something spent before, so that the person owes what the guest has used."""
        life, below = self.life, self.below
        guest, process = below(3), below(2)
        life.an_image_is_bought_and_made(guest, process, bought=9, used=4, captured=None, life=None, kept=1)
        life.merge(guest, below(3), process)
        life.money_goes_back(guest, process, pick=below(100), amount=20, cause="dispute", again=1)

    def plans(self) -> list[Step]:
        life, dice, below = self.life, self.dice, self.below
        plans = ["starter", "starter", "pro", "unlimited"]
        turns = ["cancel", "resume", "cancel", "resume", "end"]
        return [
            (
                5,
                lambda: life.pay_a_period(
                    **self.whom(),
                    plan=dice.choice(plans),
                    ago=dice.randint(-1, 3),
                    days=dice.choice([0, 2, 3, 5, 5]),
                    other=below(6),
                    renews=dice.random() < 0.5,
                ),
            ),
            (
                8,
                lambda: life.change_plans(
                    **self.whom(), to_plan=dice.choice(plans[1:]), money=dice.choice([None, 700, 850])
                ),
            ),
            (4, lambda: life.turn_a_subscription(**self.whom(), what=dice.choice(turns))),
            (
                5,
                lambda: life.money_of_a_plan_goes_or_comes(
                    **self.whom(),
                    pick=below(3),
                    comes=dice.random() < 0.4,
                    money=dice.choice([None, None, 50]),
                ),
            ),
            (2, lambda: life.bill(**self.whom(), amount=below(4))),
            (1, lambda: life.an_earning_stops(**self.whom(), pick=below(100))),
            (2, self.a_plan_goes_up_twice),
            (1, self.a_plan_is_cancelled_and_its_end_comes),
        ]

    def a_new_member(self) -> int | None:
        """Somebody pays for a period; as whom the life knows that member, if it was accepted."""
        life, who = self.life, self.below(3)
        life.pay_a_period(
            who, self.below(2), plan="starter", ago=0, days=5, other=self.below(6), renews=False
        )
        life.flush(0)
        members = [name for name in life.names if (m := life.books[name].membership) and not m.ended]
        return members.index(life.names[who]) if life.names[who] in members else None

    def a_plan_goes_up_twice(self) -> None:
        """In one period, by way of a daily plan."""
        member = self.a_new_member()
        for target in ("unlimited", "pro") if member is not None else ():
            self.life.change_plans(member, self.below(2), target, None)

    def a_plan_is_cancelled_and_its_end_comes(self) -> None:
        """What is asked for then is asked for under Free."""
        life, member = self.life, self.a_new_member()
        if member is None:
            return
        name = life.member(member)
        life.turn_a_subscription(member, self.below(2), what="cancel")
        life.flush(0)
        book = life.books[name]
        if book.membership is not None and book.membership.end > life.now:
            for process in life.harness.processes:
                process.clock.set(book.membership.end)
        life.send(life.holding(name, self.below(7), 3_600), self.below(2))
