"""Random interleavings of every command, against the naive model and the books."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.domain import commands as c
from ledger.domain.account import ACCOUNTS, decide, evolve
from ledger.domain.consideration import NOTHING, Worth
from ledger.domain.events import UsageWarned
from ledger.domain.granting import due_allowance
from ledger.domain.holds import due, each
from ledger.domain.invariants import check_step
from ledger.domain.journal import CREDIT, postings
from ledger.domain.lots import PRIORITY, Source
from ledger.domain.merging import decide_merge
from ledger.domain.movements import movement
from ledger.domain.state import Account
from ledger.domain.touched import check_touched
from ledger.errors import Refusal
from ledger.log.model import Event
from ledger.money import USD
from ledger.plans import PLANS
from tests.effort import lives
from tests.ledger.naive import NaiveAccount, No, Terms
from tests.ledger.world import NOON, grant, paid

SECONDS = st.integers(-60, 90)
PICKS = st.integers(0, 99)
AMOUNTS = st.integers(0, 9)
LIVES = st.none() | st.integers(0, 300)
HOLDS = st.sampled_from([f"h{n}" for n in range(6)])
REFUNDS = st.sampled_from(["r0", "r1"])
DISPUTES = st.sampled_from(["d0", "d1", "d2"])
SOURCES = st.sampled_from([Source.PAYMENT, Source.PROMOTION, Source.PASS])


with_open_holds = precondition(lambda self: bool(self.account.holds))
with_bought_lots = precondition(lambda self: bool(self.bought))


class Accounts(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.now = NOON
        self.account: Account = ACCOUNTS.initial
        self.model = NaiveAccount()
        self.books: Counter[tuple[str, str]] = Counter()
        self.moved = [0, 0, 0]
        self.bought: list[str] = []
        self.lots = 0
        self.warned: list[tuple[str, int]] = []

    # Both sides must agree, and a refusal must leave no trace

    def both(self, command: c.Command, naive: Callable[[], None]) -> None:
        before = msgspec.json.encode(self.account)
        try:
            events: list[Event] | None = decide(self.account, command, self.now)
        except Refusal:
            events = None
        try:
            naive()
            allowed = True
        except No:
            allowed = False
        assert (events is not None) == allowed, (
            f"{command}: the ledger {'allows' if events else 'refuses'} it"
        )
        if events is None:
            assert msgspec.json.encode(self.account) == before
        else:
            self.record(events)

    def record(self, events: list[Event]) -> None:
        for event in events:
            stored = msgspec.json.decode(msgspec.json.encode(event), type=type(event))
            assert stored == event
            then = evolve(self.account, stored)
            assert check_step(self.account, stored, then) == []
            assert check_touched(self.account, stored, then) is None
            self.account = then
            for posting in postings(stored):
                self.books[posting.account, posting.asset.code] += posting.amount_minor
            change = movement(stored)
            if change is not None:
                for place, part in enumerate((change.posted, change.held, change.debt)):
                    self.moved[place] += part
            if isinstance(stored, UsageWarned):
                assert (stored.period, stored.percent) not in self.warned
                self.warned.append((stored.period, stored.percent))

    def new_lot(self) -> str:
        self.lots += 1
        return f"lot_{self.lots}"

    # Commands

    @rule(seconds=SECONDS)
    def the_clock_steps(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(
        amount=st.integers(0, 20), life=LIVES, source=SOURCES, minor=st.integers(1, 500), again=st.booleans()
    )
    def grant(self, amount: int, life: int | None, source: Source, minor: int, again: bool) -> None:
        expires_at = None if life is None else self.now + timedelta(seconds=life)
        is_paid = source is not Source.PROMOTION
        lot = self.bought[-1] if again and self.bought and is_paid else self.new_lot()
        money = paid(minor, tax=minor // 6, fee=minor // 30, payment_id=f"pay_{lot}") if is_paid else None
        terms = Terms(PRIORITY[source], expires_at, self.now, is_paid, f"pay_{lot}")
        command = grant(amount, lot, money=money, source=source, expires_at=expires_at)
        self.both(command, lambda: self.model.grant(lot, amount, terms, self.now))
        if is_paid and lot in self.model.lots and lot not in self.bought:
            self.bought.append(lot)

    @rule()
    def claim_the_allowance(self) -> None:
        events = due_allowance(self.account, PLANS["free"], self.now, account_id="acct_1")
        self.record(events)
        day = f"{self.now:%Y-%m-%d}"
        midnight = self.now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        self.model.allowance(day, f"lot_1_{day}", Terms(0, midnight, self.now, paid=False))

    @rule(name=HOLDS, amount=AMOUNTS, seconds=st.integers(-3, 240), only=st.booleans())
    def hold(self, name: str, amount: int, seconds: int, only: bool) -> None:
        deadline = self.now + timedelta(seconds=seconds)
        lot = self.bought[-1] if only and self.bought else None
        command = c.HoldCredits(hold_id=name, job_id="job", credits=amount, deadline=deadline, only_lot=lot)
        self.both(command, lambda: self.model.hold(name, amount, deadline, self.now, lot))

    def some_hold(self, pick: int) -> str:
        """Mostly an open one: refusals are easily found anyway."""
        names = sorted(hold.hold_id for hold in each(self.account.holds))
        return names[pick % len(names)] if pick % 7 and names else f"h{pick % 6}"

    @with_open_holds
    @rule(pick=PICKS, amount=st.none() | AMOUNTS, limit=st.integers(0, 3))
    def capture(self, pick: int, amount: int | None, limit: int) -> None:
        name = self.some_hold(pick)
        command = c.CaptureHold(hold_id=name, credits=amount, overage_limit=limit)
        self.both(command, lambda: self.model.capture(name, amount, limit, self.now))

    @with_open_holds
    @rule(pick=PICKS)
    def release(self, pick: int) -> None:
        name = self.some_hold(pick)
        self.both(c.ReleaseHold(hold_id=name), lambda: self.model.release(name, self.now))

    @with_open_holds
    @rule(pick=PICKS)
    def expire_one(self, pick: int) -> None:
        self.expire(self.some_hold(pick))

    def expire(self, name: str) -> None:
        self.both(c.ExpireHold(hold_id=name), lambda: self.model.expire(name, self.now))

    @precondition(lambda self: bool(self.account.holds))
    @rule(limit=st.integers(1, 3))
    def sweep_holds(self, limit: int) -> None:
        late = due(self.account.holds, self.now, limit)
        assert len(late) <= limit
        for hold in late:
            self.expire(hold.hold_id)

    @with_open_holds
    @rule(pick=PICKS, to=HOLDS, seconds=st.integers(-5, 120))
    def move(self, pick: int, to: str, seconds: int) -> None:
        name = self.some_hold(pick)
        deadline = self.now + timedelta(seconds=seconds)
        command = c.MoveHold(hold_id=name, to_hold_id=to, job_id="job_2", deadline=deadline)
        self.both(command, lambda: self.model.move(name, to, deadline, self.now))

    @rule()
    def expire_lots(self) -> None:
        self.both(c.ExpireLots(), lambda: self.model.expire_lots(self.now))

    @with_bought_lots
    @rule(
        pick=PICKS,
        amount=st.integers(0, 25),
        ref=DISPUTES,
        cause=st.sampled_from(["dispute", "reversal"]),
    )
    def reverse(self, pick: int, amount: int, ref: str, cause: str) -> None:
        lot = self.bought[-1 - pick % min(4, len(self.bought))]
        ref = ref if cause == "dispute" else f"rev_{self.new_lot()}"
        command = c.ReverseCredits(
            reversal_id=ref,
            lot_id=lot,
            credits=amount,
            cause=cause,
            asset="USD",
            rail="card",
            payment_id=f"pay_{lot}",
            worth=Worth(amount * 10, amount, 0, amount * 10, amount),
        )
        dispute = cause == "dispute"
        self.both(command, lambda: self.model.reverse(ref, lot, amount, self.now, dispute=dispute))

    @precondition(lambda self: bool(self.model.disputes))
    @rule(ref=DISPUTES)
    def win_a_dispute(self, ref: str) -> None:
        lot = self.new_lot()
        command = c.RestoreReversal(reversal_id=ref, lot_id=lot)
        self.both(command, lambda: self.model.restore(ref, lot, self.now))

    @precondition(lambda self: bool(self.model.disputes))
    @rule(ref=DISPUTES)
    def lose_a_dispute(self, ref: str) -> None:
        self.both(c.LoseDispute(reversal_id=ref), lambda: self.model.lose(ref))

    @precondition(lambda self: bool(self.account.lots))
    @rule(pick=PICKS, name=REFUNDS, amount=AMOUNTS)
    def open_a_refund(self, pick: int, name: str, amount: int) -> None:
        lots = [lot.terms.lot_id for lot in self.account.lots]
        lot = lots[pick % len(lots)]
        found = next(found for found in self.account.lots if found.terms.lot_id == lot)
        if found.left_worth.gross_minor < found.left:
            return  # so little money that some credits cost nothing at all: nothing to refund
        command = c.OpenRefund(refund_id=name, lot_id=lot, credits=amount)
        self.both(command, lambda: self.model.refund(name, lot, amount, self.now))

    @precondition(lambda self: bool(self.account.status.refunds))
    @rule(name=REFUNDS, outcome=st.sampled_from(["sent", "failed", "unknown"]))
    def resolve_a_refund(self, name: str, outcome: str) -> None:
        command = c.ResolveRefund(refund_id=name, outcome=outcome)
        self.both(command, lambda: self.model.resolve_refund(name, outcome, self.now))

    @precondition(lambda self: bool(self.account.lots))
    @rule(amount=st.integers(1, 3))
    def take_away_by_hand(self, amount: int) -> None:
        command = c.AdjustCredits(
            adjustment_id="a", lot_id="", credits=-amount, actor="operator:1", reason="r"
        )
        self.both(command, lambda: self.model.withdraw(amount, self.now))

    @precondition(lambda self: bool(self.model.debt))
    @rule(amount=AMOUNTS)
    def forgive(self, amount: int) -> None:
        command = c.ForgiveDebt(credits=amount, actor="operator:1", reason="r")
        self.both(command, lambda: self.model.forgive(amount))

    @rule(amount=st.integers(1, 9), minor=st.integers(1, 100))
    def merge_a_guest(self, amount: int, minor: int) -> None:
        lot = self.new_lot()
        guest = ACCOUNTS.initial
        for event in decide(guest, grant(amount, lot, money=paid(minor, payment_id=f"pay_{lot}")), self.now):
            guest = evolve(guest, event)
        _, arrived = decide_merge(guest, self.account, "acct_guest", "acct_1", self.now)
        self.record(arrived)
        self.model.add(
            lot, amount, Terms(PRIORITY[Source.PAYMENT], None, self.now, paid=True, payment=f"pay_{lot}")
        )
        self.bought.append(lot)

    # What must always be so

    @invariant()
    def balances_agree_with_the_model(self) -> None:
        if not hasattr(self, "account"):
            return
        account, model = self.account, self.model
        assert account.posted(self.now) == model.posted(self.now) >= 0
        assert account.held() == model.held() >= 0
        assert account.debt == model.debt >= 0
        lots = {lot.terms.lot_id: lot.left for lot in account.lots}
        assert lots == model.left_by_lot()
        assert {hold.hold_id for hold in each(account.holds)} == {
            name for name, holder in model.holders.items() if holder.deadline is not None
        }

    @invariant()
    def the_books_agree_with_the_account(self) -> None:
        if not hasattr(self, "account"):
            return
        account = self.account
        left = sum(lot.left for lot in account.lots)
        assert self.books["Equity:Credits:Available", CREDIT.code] == left
        assert self.books["Equity:Credits:Held", CREDIT.code] == account.held()
        assert self.books["Equity:Credits:Debt", CREDIT.code] == account.debt
        assert self.moved == [left + account.held(), account.held(), account.debt]
        unearned = NOTHING
        for lot in account.lots:
            unearned = unearned + lot.left_worth
        open_slices = [portion for hold in each(account.holds) for portion in hold.slices]
        for portion in open_slices + [
            portion for refund in account.status.refunds for portion in refund.held
        ]:
            unearned = unearned + (portion.worth or NOTHING)
        assert self.books["Liabilities:Deferred:Card", USD.code] == -unearned.earned_minor

    @invariant()
    def a_snapshot_is_as_good_as_the_account(self) -> None:
        if hasattr(self, "account"):
            stored = msgspec.json.encode(self.account)
            assert msgspec.json.decode(stored, type=Account) == self.account


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(
    max_examples=lives(100), stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)


WALKS = 25
STEPS = 400


@pytest.mark.parametrize("seed", range(WALKS))
def test_a_long_life_agrees_with_the_model(seed: int) -> None:
    """Hypothesis finds small cases; a seeded walk goes deep: many lots, debts, and closed lots."""
    dice = random.Random(seed)
    life = Accounts()
    life.start()

    def seconds(low: int, high: int) -> int:
        return dice.randint(low, high)

    def pick() -> int:
        return dice.randint(0, 99)

    def some(amount_max: int) -> int:
        return dice.randint(0, amount_max)

    def grant_one() -> None:
        lifetime = dice.choice([None, None, 30, 300, 3_000])
        source = dice.choice([Source.PAYMENT, Source.PAYMENT, Source.PROMOTION, Source.PASS])
        life.grant(some(20), lifetime, source, dice.randint(1, 900), again=dice.random() < 0.05)

    steps: list[tuple[int, Callable[[], None]]] = [
        (6, lambda: life.the_clock_steps(seconds(-20, 60))),
        (8, grant_one),
        (1, life.claim_the_allowance),
        (20, lambda: life.hold(f"h{some(9)}", some(9), seconds(-1, 300), only=dice.random() < 0.1)),
        (16, lambda: life.capture(pick(), dice.choice([None, None, some(9)]), some(3))),
        (4, lambda: life.release(pick())),
        (2, lambda: life.expire_one(pick())),
        (2, lambda: life.sweep_holds(2)),
        (2, lambda: life.move(pick(), f"h{some(9)}", seconds(-1, 300))),
        (2, life.expire_lots),
        (1, lambda: life.take_away_by_hand(1)),
        (2, lambda: life.merge_a_guest(dice.randint(1, 9), dice.randint(1, 99))),
    ]
    if_bought: list[tuple[int, Callable[[], None]]] = [
        (3, lambda: life.reverse(pick(), some(25), f"d{some(3)}", dice.choice(["dispute", "reversal"]))),
        (2, lambda: life.win_a_dispute(f"d{some(3)}")),
        (1, lambda: life.lose_a_dispute(f"d{some(3)}")),
        (1, lambda: life.forgive(some(3))),
        (3, lambda: life.resolve_a_refund(f"r{some(1)}", dice.choice(["sent", "failed", "unknown"]))),
    ]
    for _ in range(STEPS):
        possible = steps + (if_bought if life.bought else [])
        if life.account.lots:
            possible = [*possible, (3, lambda: life.open_a_refund(pick(), f"r{some(1)}", some(9)))]
        [step] = dice.choices([do for _, do in possible], [weight for weight, _ in possible])
        step()
        life.balances_agree_with_the_model()
        life.the_books_agree_with_the_account()
    life.a_snapshot_is_as_good_as_the_account()
