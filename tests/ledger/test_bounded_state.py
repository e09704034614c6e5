"""A snapshot is as large as what is open, whatever has been: thousands of random commands on one account."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import msgspec
import pytest

from ledger.domain import commands as c
from ledger.domain.account import ACCOUNTS, decide, evolve
from ledger.domain.applying import housekeeping
from ledger.domain.consideration import Worth
from ledger.domain.granting import due_allowance
from ledger.domain.holds import due, each
from ledger.domain.lots import Source, is_expired
from ledger.domain.merging import decide_merge
from ledger.domain.state import CLOSED_LOTS_KEPT, OTHERS_KEPT, Account
from ledger.domain.view import plan_in_force
from ledger.errors import Refusal
from ledger.log.model import Event
from ledger.plans import PLANS
from tests.ledger.world import DAY, HOUR, MINUTE, NOON, after, apply, hold, paid

COMMANDS = 20_000
SUBSCRIPTION_BYTES, PERIOD_BYTES = 1_200, 250
STANDING_BYTES = 500 + (1 + OTHERS_KEPT) * (SUBSCRIPTION_BYTES + PERIOD_BYTES)
"""The account itself: usage, allowance, subscriptions with the starts of the periods that were granted."""
LOT_BYTES, SLICE_BYTES, HOLD_BYTES, DISPUTE_BYTES, SCHEDULE_BYTES, CLOSED_BYTES = 400, 150, 150, 450, 350, 110
RESTING_BYTES = STANDING_BYTES + CLOSED_LOTS_KEPT * CLOSED_BYTES


def size(account: Account) -> int:
    """In bytes, as a snapshot stores it."""
    return len(msgspec.msgpack.encode(account))


def most(account: Account) -> int:
    """What the size may be for what is open, in bytes."""
    holders = [hold.slices for hold in each(account.holds)] + [r.held for r in account.status.refunds]
    return (
        RESTING_BYTES
        + LOT_BYTES * len(account.lots)
        + HOLD_BYTES * len(holders)
        + SLICE_BYTES * sum(len(slices) for slices in holders)
        + DISPUTE_BYTES * len(account.status.disputes)
        + SCHEDULE_BYTES * len(account.status.schedules)
        + PERIOD_BYTES * sum(len(subscription.periods) for subscription in account.status.subscriptions())
    )


class Life:
    """One account to which everything happens, in any order."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.account = ACCOUNTS.initial
        self.now = NOON
        self.made = self.accepted = 0
        self.bought: list[str] = []
        self.guests: dict[str, Account] = {}
        self.kinds: set[type[Event]] = set()

    def new(self, kind: str) -> str:
        self.made += 1
        return f"{kind}_{self.made:07d}"

    def take(self, events: list[Event]) -> None:
        for event in events:
            self.account = evolve(self.account, event)
            self.kinds.add(type(event))

    def ask(self, command: c.Command) -> None:
        try:
            self.take(decide(self.account, command, self.now))
            self.accepted += 1
        except Refusal:
            pass

    def step(self) -> None:
        ways = (self.use, self.use, self.use, self.buy, self.give_back, self.subscribe, self.merge)
        self.dice.choice(ways)()
        self.now += self.dice.choice([timedelta(0), MINUTE, HOUR, DAY])
        self.take(housekeeping(self.account, self.now))

    def buy(self) -> None:
        lot, amount = self.new("lot"), self.dice.randint(1, 9)
        source = self.dice.choice([Source.PAYMENT, Source.PASS, Source.PROMOTION])
        money = None if source is Source.PROMOTION else paid(amount * 13, tax=amount, payment_id=f"pay_{lot}")
        lasts = self.dice.choice([None, HOUR, 3 * DAY])
        self.ask(
            c.GrantCredits(
                lot_id=lot,
                credits=amount,
                source=source,
                expires_at=None if lasts is None else self.now + lasts,
                consideration=money,
            )
        )
        self.bought = [*self.bought[-40:], lot]
        signed = self.dice.choice([-2, 3])
        self.ask(
            c.AdjustCredits(
                adjustment_id="a", lot_id=self.new("lot"), credits=signed, actor="operator:1", reason="r"
            )
        )

    def use(self) -> None:
        plan = plan_in_force(self.account, self.now)
        self.take(due_allowance(self.account, plan, self.now, account_id="acct_1"))
        for _ in range(self.dice.randint(1, 4)):
            self.ask(
                c.HoldCredits(
                    hold_id=self.new("hold"),
                    job_id=self.new("job"),
                    credits=self.dice.choice([1, 2, 5, 40, 700]),
                    deadline=self.now + self.dice.choice([MINUTE, HOUR]),
                    overage_lot=self.new("lot"),
                    overage_limit=self.dice.choice([0, 0, 30]),
                )
            )
        for held in list(each(self.account.holds)):
            match self.dice.randint(0, 4):
                case 0:
                    self.ask(c.ReleaseHold(hold_id=held.hold_id))
                case 1 | 2:
                    amount = self.dice.choice([None, 1, held.credits + 1])
                    self.ask(c.CaptureHold(hold_id=held.hold_id, credits=amount, overage_limit=1))
                case 3:
                    new = self.new("hold")
                    later = self.now + HOUR
                    self.ask(c.MoveHold(hold_id=held.hold_id, to_hold_id=new, job_id="job_2", deadline=later))
        for late in due(self.account.holds, self.now, 100):
            self.ask(c.ExpireHold(hold_id=late.hold_id))
        self.ask(c.BillOverage(credits=max(1, self.account.status.overage_owed), consideration=paid(40)))

    def give_back(self) -> None:
        lot = self.dice.choice(self.bought or ["lot_none"])
        cause = self.dice.choice(["dispute", "dispute", "reversal"])
        amount = self.dice.randint(1, 9)
        worth = Worth(amount * 12, amount, 0, amount * 12, amount)
        if self.dice.random() < 0.4:
            self.ask(
                c.ReverseCredits(
                    reversal_id=self.new("rev"),
                    lot_id=lot,
                    credits=amount,
                    cause=cause,
                    asset="USD",
                    rail="card",
                    payment_id=f"pay_{lot}",
                    worth=worth,
                )
            )
        self.ask(c.OpenRefund(refund_id=self.new("re"), lot_id=lot))
        for refund in self.account.status.refunds:
            outcome = self.dice.choice(["sent", "failed", "unknown"])
            self.ask(c.ResolveRefund(refund_id=refund.refund_id, outcome=outcome))
        for dispute in self.account.status.disputes:
            match self.dice.randint(0, 3):
                case 0:
                    self.ask(c.LoseDispute(reversal_id=dispute.reversal_id))
                case 1:
                    self.ask(c.RestoreReversal(reversal_id=dispute.reversal_id, lot_id=self.new("lot")))
        if self.account.debt:
            self.ask(c.ForgiveDebt(credits=self.account.debt, actor="operator:1", reason="r"))

    def subscribe(self) -> None:
        plan = PLANS[self.dice.choice(["starter", "pro", "unlimited"])]
        mine = self.account.status.subscription
        if mine is None or self.dice.random() < 0.2:
            name, start = self.new("sub"), self.now
        else:
            name, start = mine.subscription_id, max(mine.period_end, self.now - DAY)
            if start > self.now + 2 * DAY:  # nobody pays that far ahead
                return self.turn()
        self.ask(
            c.PayPeriod(
                subscription_id=name,
                plan=plan,
                period_start=start,
                period_end=start + self.dice.choice([5, 31]) * DAY,
                lot_id=self.new("lot"),
                consideration=paid(plan.price_usd_minor, tax=9, payment_id=self.new("pay")),
            )
        )
        return self.turn()

    def turn(self) -> None:
        mine = self.account.status.subscription
        assert mine is not None
        current, target = PLANS[mine.plan], PLANS[self.dice.choice(["starter", "pro", "unlimited"])]
        name = mine.subscription_id
        turns: list[c.Command] = [
            c.ChangePlan(subscription_id=name, current=current, target=target, lot_id=self.new("lot")),
            c.CancelSubscription(subscription_id=name),
            c.ResumeSubscription(subscription_id=name),
            c.EndSubscription(subscription_id=name),
        ]
        self.ask(self.dice.choice(turns))
        for period in [] if mine is None else mine.periods:
            if self.dice.random() < 0.2:
                revoke = c.RevokePeriod(subscription_id=mine.subscription_id, payment_id=period.payment_id)
                self.ask(revoke)
            elif period.revoked_at is not None and self.dice.random() < 0.5:
                restore = c.RestorePeriod(subscription_id=mine.subscription_id, payment_id=period.payment_id)
                self.ask(restore)
        for schedule in self.account.status.schedules[:-1]:
            if self.dice.random() < 0.3:
                self.ask(c.StopEarning(schedule_id=schedule.schedule_id, worth=Worth(5)))

    def merge(self) -> None:
        """A new guest, or one who has come before and whose job has ended since."""
        if self.guests and self.dice.random() < 0.5:
            name = self.dice.choice(sorted(self.guests))
            guest = self.guests.pop(name)
            for held in list(each(guest.holds)):
                guest = apply(guest, decide(guest, c.ReleaseHold(hold_id=held.hold_id), self.now))
        else:
            name, lot = self.new("acct"), self.new("lot")
            bought = c.GrantCredits(lot_id=lot, credits=6, consideration=paid(60, payment_id=f"pay_{lot}"))
            guest = after(ACCOUNTS.initial, bought, now=self.now)
            guest = after(guest, hold(2, deadline=self.now + HOUR), now=self.now)
            self.guests[name] = guest
            self.bought.append(lot)
        out, arrived = decide_merge(guest, self.account, name, "acct_1", self.now)
        if name in self.guests:
            self.guests[name] = apply(guest, out)
        self.take(arrived)

    def rest(self) -> None:
        """Everything that is open comes to an end."""
        self.now += 40 * DAY
        self.take(housekeeping(self.account, self.now))
        for held in list(each(self.account.holds)):
            self.ask(c.ExpireHold(hold_id=held.hold_id))
        for refund in self.account.status.refunds:
            self.ask(c.ResolveRefund(refund_id=refund.refund_id, outcome="sent"))
        for dispute in self.account.status.disputes:
            self.ask(c.LoseDispute(reversal_id=dispute.reversal_id))
        while housekeeping(self.account, self.now):
            self.take(housekeeping(self.account, self.now))
        left = self.account.available(self.now)
        if left:
            self.ask(
                c.AdjustCredits(
                    adjustment_id="a", lot_id="", credits=-left, actor="operator:1", reason="to the last"
                )
            )


def is_alive(account: Account, now: datetime) -> bool:
    """Nothing is kept of what is over."""
    return (
        all(lot.held or (lot.left and not is_expired(lot, now)) for lot in account.lots)
        and len(account.status.closed) <= CLOSED_LOTS_KEPT
        and all(schedule.earned_days < schedule.days for schedule in account.status.schedules)
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_snapshot_is_bounded_by_what_is_open_whatever_has_been(seed: int) -> None:
    life = Life(seed)
    resting = []
    while life.accepted < COMMANDS:
        for _ in range(100):
            life.step()
            assert size(life.account) <= most(life.account)
        life.rest()
        assert is_alive(life.account, life.now)
        assert (life.account.lots, life.account.holds) == ((), ())
        status = life.account.status
        assert status.disputes == status.refunds == status.schedules == ()
        resting.append(size(life.account))
    assert max(resting) <= RESTING_BYTES
    assert len(life.kinds) >= len(ACCOUNTS.events) - 1, "nearly everything has happened"
