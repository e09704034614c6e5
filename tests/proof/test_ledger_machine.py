"""The whole ledger on the real log against a naive model, whatever happens to the processes.

Two sequencers write to one PostgreSQL. Commands come one by one, in batches, twice, at both
processes at once; connections are killed before and after COMMIT; processes are replaced;
clocks go forth and back. After each step the naive model is asked in the order in which the log
says things happened, and must agree.

`LLAMASKETCH_PROOF_EXAMPLES=2000 python -m pytest tests/proof` looks longer.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ledger.domain import commands as c
from ledger.domain import drafts
from ledger.domain import events as e
from ledger.domain.account import ACCOUNTS
from ledger.domain.consideration import Worth
from ledger.domain.holds import each
from ledger.domain.invariants import check_step
from ledger.domain.journal import CREDIT, postings
from ledger.domain.lots import PRIORITY, Source
from ledger.domain.movements import movement
from ledger.domain.state import Account
from ledger.errors import IdempotencyConflict, Refusal
from ledger.identifiers import AccountId, CommandKey
from ledger.log import cache
from ledger.log.model import Draft, Receipt, Transaction
from ledger.log.recorder import LogRecorder, open_datastore
from ledger.plans import Plan
from tests.ledger.naive import No, Terms
from tests.ledger.world import paid
from tests.proof.desk import NOT_ANSWERED, Desk, result_of
from tests.proof.naive_ledger import Book, Rules

EXAMPLES = int(os.environ.get("LLAMASKETCH_PROOF_EXAMPLES", "40"))
STEPS = 60
PLANS = {
    plan.name: plan
    for plan in (
        Plan(name="free", label="", price_usd_minor=0, period="day", credits=5, rank=0),
        Plan(
            name="starter",
            label="",
            price_usd_minor=0,
            period="month",
            credits=8,
            rank=1,
            overage_limit=4,
            grace_seconds=86_400,
        ),
        Plan(
            name="pro", label="", price_usd_minor=0, period="month", credits=20, rank=2, grace_seconds=3_600
        ),
        Plan(name="unlimited", label="", price_usd_minor=0, period="day", credits=9, rank=3),
    )
}
RULES = {
    "free": Rules("free", 0, True, 5),
    "starter": Rules("starter", 1, False, 8, 4, timedelta(days=1)),
    "pro": Rules("pro", 2, False, 20, 0, timedelta(hours=1)),
    "unlimited": Rules("unlimited", 3, True, 9),
}
PAID_PLANS = st.sampled_from(["starter", "pro", "unlimited"])

WHO = st.integers(0, 2)
PROCESS = st.integers(0, 1)
PICKS = st.integers(0, 99)
AMOUNTS = st.integers(0, 9)
SECONDS = st.sampled_from([-90, -1, 0, 1, 20, 300, 3_600, 86_400, 3 * 86_400])
LIVES = st.none() | st.sampled_from([1, 60, 3_000, 100_000])
SOURCES = st.sampled_from([Source.PAYMENT, Source.PAYMENT, Source.PROMOTION, Source.PASS])
Naive = Callable[[datetime], None]


@dataclass
class Command:
    """A command as sent, and what the model thinks that it does."""

    transaction: Transaction
    naive: Naive
    answer: Any = None
    """The first answer, once there is one."""


class Ledger(RuleBasedStateMachine):
    desk: ClassVar[Desk]

    @initialize()
    def begin(self) -> None:
        start = self.desk.new_life()
        names = [AccountId(f"acct_{self.desk.lives:06d}{part}") for part in "abp"]
        self.names = names
        self.books = {name: Book(name=name, plans=RULES) for name in names}
        self.accounts: dict[str, Account] = dict.fromkeys(names, ACCOUNTS.initial)
        self.commands: dict[str, Command] = {}
        self.decided: set[str] = set()
        self.now = start - timedelta(days=1)
        self.sums: Counter[tuple[str, str]] = Counter()
        self.moved: Counter[tuple[str, str]] = Counter()
        self.earned: Counter[str] = Counter()
        self.warnings: dict[str, list[tuple[str, int]]] = {name: [] for name in names}
        self.resolved: set[str] = set()
        self.queue: list[Command] = []
        self.gather = 0
        self.made = 0

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.flush(0)
            assert self.desk.all_rows() == self.desk.rows, "the log has changed behind its readers"

    # Sending

    def new(self, kind: str) -> str:
        self.made += 1
        return f"{kind}_{self.desk.lives:06d}_{self.made:04d}"

    def command(
        self, streams: Sequence[str], body: Any, decide: Callable[[Draft], Any], naive: Naive
    ) -> Command:
        key = CommandKey(self.new("cmd"))
        command = Command(
            Transaction(key=key, actor="system:test", body=body, streams=streams, decide=decide), naive
        )
        self.commands[key] = command
        return command

    def send(self, command: Command, process: int) -> None:
        """Now, or together with others as one batch."""
        self.queue.append(command)
        if len(self.queue) > self.gather:
            self.flush(process)

    def act(self, who: str, process: int, command: c.Command, naive: Naive) -> None:
        def decide(draft: Draft) -> list[str]:
            return [type(event).__name__ for event in drafts.act_in(draft, who, command)]

        body = [who, type(command).__name__, command]
        self.send(self.command((who,), body, decide, naive), process)

    def flush(self, process: int) -> None:
        """Send what was gathered. What is not answered is sent again, to a process that lives."""
        batch, self.queue = self.queue, []
        if not batch:
            return
        number = process
        for _ in range(4):
            answers = self.desk.submit(number, [command.transaction for command in batch])
            again = []
            for command, answer in zip(batch, answers, strict=True):
                if isinstance(answer, NOT_ANSWERED):
                    again.append(command)
                else:
                    self.note(command, answer)
            if self.desk.processes[number].killer.dead:
                self.desk.replace(number)
                number = 1 - number
            batch = again
            if not batch:
                break
        assert not batch, "somebody never got an answer"
        self.settle()

    def note(self, command: Command, answer: Any) -> None:
        assert isinstance(answer, Receipt | Refusal), repr(answer)
        result = result_of(answer)
        assert command.answer in (None, result), "another answer than the first"
        command.answer = result

    def settle(self) -> None:
        """Ask the model in the log's order, then compare everything."""
        for outcome in self.desk.news():
            assert outcome.key not in self.decided, "decided twice"
            self.decided.add(outcome.key)
            assert outcome.recorded_at >= self.now, "the log's time went back"
            self.now = outcome.recorded_at
            command = self.commands[outcome.key]
            try:
                command.naive(self.now)
                allowed = True
            except No:
                allowed = False
            assert allowed == (outcome.refusal is None), (
                f"{command.transaction.body} at {self.now}: {outcome.refusal or 'accepted'}"
            )
        accepted = {
            key for key in self.decided if (self.commands[key].answer or ["accepted"])[0] == "accepted"
        }
        for envelope in self.desk.events():
            assert envelope.key in accepted, "a refused command left an event"
            self.fold(envelope.stream, envelope.event)
        self.compare()

    def fold(self, stream: str, event: Any) -> None:
        before = self.accounts[stream]
        after = ACCOUNTS.evolve(before, event)
        assert check_step(before, event, after) == []
        self.accounts[stream] = after
        lines: Counter[tuple[str, str]] = Counter()
        for posting in postings(event):
            lines["minor", posting.asset.code] += posting.amount_minor
            lines["usd", posting.asset.code] += posting.usd_minor
            self.sums[posting.account, posting.asset.code] += posting.amount_minor
        assert not any(lines.values()), f"{event} does not add up"
        change = movement(event)
        if change is not None:
            self.moved[stream, "posted"] += change.posted
            self.moved[stream, "held"] += change.held
            self.moved[stream, "debt"] += change.debt
        match event:
            case e.UsageWarned():
                self.warnings[stream].append((event.period, event.percent))
            case e.RevenueEarned():
                self.earned[stream] += event.worth.net_minor
            case e.HoldCaptured() | e.HoldReleased() | e.HoldExpired():
                assert event.hold_id not in self.resolved, "a second resolution"
                self.resolved.add(event.hold_id)

    # What must always be so

    def compare(self) -> None:
        for name, account in self.accounts.items():
            self.compare_one(name, account, self.books[name])
        left = sum(lot.left for account in self.accounts.values() for lot in account.lots)
        assert self.sums["Equity:Credits:Available", CREDIT.code] == left
        assert self.sums["Equity:Credits:Held", CREDIT.code] == sum(a.held() for a in self.accounts.values())
        assert self.sums["Equity:Credits:Debt", CREDIT.code] == sum(a.debt for a in self.accounts.values())
        assert self.sums["Equity:Credits:Transit", CREDIT.code] == 0
        assert self.sums["Liabilities:Transit:Card", "USD"] == 0

    def compare_one(self, name: str, account: Account, book: Book) -> None:
        now = self.now
        assert account.posted(now) == book.posted(now) >= 0
        assert account.held() == book.held() >= 0
        assert account.available(now) == account.posted(now) - account.held()
        assert account.debt == book.debt >= 0
        assert {lot.terms.lot_id: lot.left for lot in account.lots} == book.left_by_lot()
        assert {lot.terms.lot_id: lot.held for lot in account.lots if lot.held} == {
            lot: n for lot in book.lots if (n := book.count(lot, "held"))
        }
        assert {hold.hold_id: hold.deadline for hold in each(account.holds)} == {
            hold: holder.deadline for hold, holder in book.holders.items() if holder.deadline
        }
        standing = account.standing
        assert {r.refund_id for r in standing.refunds} == {
            n for n, h in book.holders.items() if not h.deadline
        }
        assert {d.reversal_id for d in standing.disputes} == set(book.disputes)
        assert {s.schedule_id: s.earned_days for s in standing.schedules} == {
            lot: earning.earned_days for lot, earning in book.earnings.items()
        }
        assert (standing.overage_owed, standing.merged_into) == (book.overage_owed, book.gone_to)
        usage = account.usage
        assert (usage.period, usage.granted, usage.used) == (
            book.period,
            book.period_granted,
            book.period_used,
        )
        assert self.warnings[name] == book.warnings
        assert self.earned[name] == book.earned
        mine, theirs = standing.subscription, book.membership
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            assert (mine.plan, mine.next_plan, mine.cancels, mine.ended_at is not None, mine.granted) == (
                theirs.plan,
                theirs.then,
                theirs.cancels,
                theirs.ended,
                theirs.granted,
            )
        booked = sum(lot.left + lot.held for lot in account.lots)
        assert (self.moved[name, "posted"], self.moved[name, "held"]) == (booked, account.held())
        assert self.moved[name, "debt"] == account.debt

    @invariant()
    def a_snapshot_is_as_good_as_the_account(self) -> None:
        for account in getattr(self, "accounts", {}).values():
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(account), type=Account) == account

    # What can happen to processes

    @rule(seconds=SECONDS, process=PROCESS, both=st.booleans())
    def a_clock_steps(self, seconds: int, process: int, both: bool) -> None:
        for number in (0, 1) if both else (process,):
            self.desk.processes[number].clock.advance(timedelta(seconds=seconds))

    @rule(many=st.integers(2, 5))
    def the_next_commands_come_together(self, many: int) -> None:
        self.flush(0)
        self.gather = many

    @rule(process=PROCESS)
    def the_commands_that_wait_are_sent(self, process: int) -> None:
        self.flush(process)
        self.gather = 0

    @rule(
        process=PROCESS,
        plan=st.lists(st.sampled_from(["before", "after", ""]), min_size=1, max_size=3),
        dies=st.booleans(),
    )
    def the_next_commits_are_unlucky(self, process: int, plan: list[str], dies: bool) -> None:
        killer = self.desk.processes[process].killer
        killer.plan, killer.dies = plan, dies

    @rule(process=PROCESS)
    def a_process_is_replaced(self, process: int) -> None:
        self.desk.replace(process)

    @rule(process=PROCESS)
    def an_idle_connection_is_lost(self, process: int) -> None:
        self.desk.disconnect(process)

    @rule(pick=PICKS, process=PROCESS, other_body=st.booleans())
    def a_command_comes_again(self, pick: int, process: int, other_body: bool) -> None:
        self.flush(process)
        if not self.commands:
            return
        command = list(self.commands.values())[pick % len(self.commands)]
        if other_body:
            changed = msgspec.structs.replace(command.transaction, body=[command.transaction.body, "more"])
            [answer] = self.until_answered(process, changed)
            assert isinstance(answer, IdempotencyConflict)
        else:
            [answer] = self.until_answered(process, command.transaction)
            self.note(command, answer)
            assert not isinstance(answer, Receipt) or answer.replayed
        self.settle()

    @rule(
        pick=PICKS,
        who=WHO,
        amount=st.integers(1, 4),
        process=PROCESS,
        killed=st.sampled_from(["", "before", "after"]),
    )
    def the_same_command_at_both_processes(
        self, pick: int, who: int, amount: int, process: int, killed: str
    ) -> None:
        """And another one beside it, so that the order matters."""
        self.flush(process)
        name = self.names[who]
        one, other = self.holding(name, amount, 3_600), self.holding(name, 1 + pick % 4, 60)
        if killed:
            self.desk.processes[process].killer.plan = [killed]
            self.desk.processes[process].killer.dies = False
        t, u = one.transaction, other.transaction
        answers = self.desk.race([(0, t), (1, u), (1, t), (0, u)])
        for number in (0, 1):
            if self.desk.processes[number].killer.dead:
                self.desk.replace(number)
        for command, answer in zip((one, other, one, other), answers, strict=True):
            if isinstance(answer, NOT_ANSWERED):
                [answer] = self.until_answered(process, command.transaction)
            self.note(command, answer)
        self.settle()

    def until_answered(self, process: int, transaction: Transaction) -> list[Any]:
        for number in (process, 1 - process, process):
            answers = self.desk.submit(number, [transaction])
            if self.desk.processes[number].killer.dead:
                self.desk.replace(number)
            if not isinstance(answers[0], NOT_ANSWERED):
                return answers
        raise AssertionError("never answered")

    # Commands: lots

    @rule(
        who=WHO, process=PROCESS, amount=st.integers(0, 20), life=LIVES, source=SOURCES, again=st.booleans()
    )
    def grant(
        self, who: int, process: int, amount: int, life: int | None, source: Source, again: bool
    ) -> None:
        name = self.names[who]
        book, lot = self.books[name], self.new("lot")
        bought = [lot for lot, kind in book.sources.items() if kind == "payment" and not book.gone_to]
        if again and bought and source is Source.PAYMENT:
            lot = bought[-1]
        expires_at = None if life is None else self.desk.processes[0].clock() + timedelta(seconds=life)
        is_paid = source is not Source.PROMOTION
        minor = 1 + amount * 30
        money = paid(minor, tax=minor // 6, fee=minor // 30, payment_id=f"pay_{lot}") if is_paid else None
        command = c.GrantCredits(
            lot_id=lot, credits=amount, source=source, expires_at=expires_at, consideration=money
        )

        def naive(now: datetime) -> None:
            terms = Terms(PRIORITY[source], expires_at, now, is_paid, f"pay_{lot}")
            book.grant(lot, amount, terms, now)
            book.sources[lot] = source.value

        self.act(name, process, command, naive)

    @rule(who=WHO, process=PROCESS, amount=st.integers(-3, 4))
    def adjust(self, who: int, process: int, amount: int) -> None:
        name, lot = self.names[who], self.new("lot")
        book = self.books[name]
        command = c.AdjustCredits(
            adjustment_id="adj", lot_id=lot, credits=amount, actor="operator:1", reason="r"
        )

        def naive(now: datetime) -> None:
            if amount < 0:
                book.withdraw(-amount, now)
            else:
                book.grant(lot, amount, Terms(25, None, now, paid=False), now)
                book.sources[lot] = "adjustment"

        self.act(name, process, command, naive)

    @rule(who=WHO, process=PROCESS, limit=st.sampled_from([1, 2, 100]))
    def sweep(self, who: int, process: int, limit: int) -> None:
        name = self.names[who]
        book = self.books[name]
        command = self.command(
            (name,),
            ["sweep", name, limit],
            lambda draft: drafts.sweep_in(draft, name, limit),
            lambda now: book.sweep(now, limit),
        )
        self.send(command, process)

    # Commands: holds

    def holding(
        self, name: str, amount: int, seconds: int, *, only: str | None = None, allowance: bool = True
    ) -> Command:
        hold, book = self.new("hold"), self.books[name]
        deadline = self.desk.processes[0].clock() + timedelta(seconds=seconds)
        command = c.HoldCredits(
            hold_id=hold,
            job_id=f"job_{hold}",
            credits=amount,
            deadline=deadline,
            only_lot=only,
            allowance=allowance,
            overage_lot=f"over_{hold}",
        )
        return self.command(
            (name,),
            ["hold", name, command],
            lambda draft: drafts.hold_in(draft, name, command, PLANS).hold_id,
            lambda now: book.order_images(hold, amount, deadline, now, only=only, allowance=allowance),
        )

    @rule(
        who=WHO,
        process=PROCESS,
        amount=AMOUNTS,
        seconds=st.sampled_from([-1, 1, 90, 4_000, 200_000]),
        only=st.integers(0, 9),
        allowance=st.booleans(),
    )
    def hold(self, who: int, process: int, amount: int, seconds: int, only: int, allowance: bool) -> None:
        name = self.names[who]
        lots = list(self.books[name].lots)
        lot = lots[only % len(lots)] if lots and only < 2 else None
        self.send(self.holding(name, amount, seconds, only=lot, allowance=allowance or only < 8), process)

    def some_hold(self, name: str, pick: int) -> str:
        """Mostly an open one; sometimes one long closed, or never there."""
        names = sorted(hold.hold_id for hold in each(self.accounts[name].holds))
        if pick % 7 and names:
            return names[pick % len(names)]
        closed = sorted(self.resolved)
        return closed[pick % len(closed)] if closed and pick % 2 else "hold_none"

    @rule(who=WHO, process=PROCESS, pick=PICKS, amount=st.none() | AMOUNTS, limit=st.integers(0, 3))
    def capture(self, who: int, process: int, pick: int, amount: int | None, limit: int) -> None:
        name = self.names[who]
        hold, book = self.some_hold(name, pick), self.books[name]
        command = c.CaptureHold(hold_id=hold, credits=amount, overage_limit=limit)
        self.act(name, process, command, lambda now: book.capture(hold, amount, limit, now))

    @rule(who=WHO, process=PROCESS, pick=PICKS)
    def release(self, who: int, process: int, pick: int) -> None:
        name = self.names[who]
        hold, book = self.some_hold(name, pick), self.books[name]
        self.act(name, process, c.ReleaseHold(hold_id=hold), lambda now: book.release(hold, now))

    @rule(who=WHO, process=PROCESS, pick=PICKS)
    def expire(self, who: int, process: int, pick: int) -> None:
        name = self.names[who]
        hold, book = self.some_hold(name, pick), self.books[name]
        self.act(name, process, c.ExpireHold(hold_id=hold), lambda now: book.expire(hold, now))

    @rule(who=WHO, process=PROCESS, pick=PICKS, onto=PICKS, seconds=st.sampled_from([-1, 60, 4_000]))
    def move(self, who: int, process: int, pick: int, onto: int, seconds: int) -> None:
        name = self.names[who]
        hold, book = self.some_hold(name, pick), self.books[name]
        to = self.some_hold(name, onto) if onto % 3 == 0 else self.new("hold")
        if to in self.resolved:
            to = hold
        deadline = self.desk.processes[0].clock() + timedelta(seconds=seconds)
        command = c.MoveHold(hold_id=hold, to_hold_id=to, job_id="job_2", deadline=deadline)
        self.act(name, process, command, lambda now: book.move(hold, to, deadline, now))

    # Commands: money that goes back

    def bought(self, name: str, pick: int) -> str:
        lots = [lot for lot, terms in self.books[name].lots.items() if terms.paid]
        return lots[-1 - pick % min(5, len(lots))] if lots else "lot_none"

    @rule(
        who=WHO,
        process=PROCESS,
        pick=PICKS,
        amount=st.integers(0, 25),
        cause=st.sampled_from(["dispute", "dispute", "reversal", "refund"]),
        again=st.integers(0, 5),
    )
    def money_goes_back(self, who: int, process: int, pick: int, amount: int, cause: str, again: int) -> None:
        """As a payment does it: at the account, or where the account has gone."""
        name = AccountId(self.books[self.names[who]].gone_to or self.names[who])
        lot = self.bought(self.names[who], pick)
        book, ref = self.books[name], self.new("rev")
        if again == 0 and book.disputes:
            ref = sorted(book.disputes)[-1]
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
        self.act(
            name,
            process,
            command,
            lambda now: book.take_back(ref, lot, amount, now, dispute=cause == "dispute"),
        )

    @rule(who=WHO, process=PROCESS, pick=PICKS, won=st.booleans())
    def a_dispute_ends(self, who: int, process: int, pick: int, won: bool) -> None:
        name, lot = self.names[who], self.new("lot")
        book = self.books[name]
        refs = sorted(book.disputes) or ["rev_none"]
        ref = refs[pick % len(refs)]
        if won:
            command: c.Command = c.RestoreReversal(reversal_id=ref, lot_id=lot)
            self.act(name, process, command, lambda now: book.restore(ref, lot, now))
        else:
            self.act(name, process, c.LoseDispute(reversal_id=ref), lambda _: book.lose(ref))

    @rule(who=WHO, process=PROCESS, pick=PICKS, amount=AMOUNTS, again=st.booleans())
    def a_refund_opens(self, who: int, process: int, pick: int, amount: int, again: bool) -> None:
        name = self.names[who]
        book = self.books[name]
        lots = [lot for lot in book.lots if book.sources.get(lot) in ("payment", "promotion", "pass")]
        if not lots:
            return
        lot = lots[pick % len(lots)]
        open_ones = [ref for ref, holder in book.holders.items() if holder.deadline is None]
        ref = open_ones[0] if again and open_ones else self.new("refund")
        command = c.OpenRefund(refund_id=ref, lot_id=lot, credits=amount)
        self.act(name, process, command, lambda now: book.refund(ref, lot, amount, now))

    @rule(who=WHO, process=PROCESS, pick=PICKS, outcome=st.sampled_from(["sent", "failed", "unknown"]))
    def a_refund_ends(self, who: int, process: int, pick: int, outcome: str) -> None:
        name = self.names[who]
        book = self.books[name]
        refs = [ref for ref, holder in book.holders.items() if holder.deadline is None] or ["refund_none"]
        ref = refs[pick % len(refs)]
        command = c.ResolveRefund(refund_id=ref, outcome=outcome)
        self.act(name, process, command, lambda now: book.resolve_refund(ref, outcome, now))

    @rule(who=WHO, process=PROCESS, amount=st.integers(0, 5))
    def forgive(self, who: int, process: int, amount: int) -> None:
        name = self.names[who]
        command = c.ForgiveDebt(credits=amount, actor="operator:1", reason="r")
        self.act(name, process, command, lambda _: self.books[name].forgive(amount))

    # Commands: plans

    @rule(
        who=WHO,
        process=PROCESS,
        plan=PAID_PLANS,
        ago=st.integers(-1, 3),
        days=st.integers(0, 5),
        other=st.integers(0, 5),
        renews=st.booleans(),
    )
    def pay_a_period(
        self, who: int, process: int, plan: str, ago: int, days: int, other: int, renews: bool
    ) -> None:
        name, lot = self.names[who], self.new("lot")
        book = self.books[name]
        start = self.desk.processes[0].clock() - timedelta(days=ago)
        mine = book.membership
        if renews and mine is not None:
            start = mine.end
        subscription = f"sub_{other // 5}"
        end = start + timedelta(days=days, hours=5)
        if days == 0:
            end = start
        money = paid(Book.price(RULES[plan]) + 4, tax=3, fee=1, payment_id=f"pay_{lot}")
        command = c.PayPeriod(
            subscription_id=subscription,
            plan=PLANS[plan],
            period_start=start,
            period_end=end,
            lot_id=lot,
            consideration=money,
        )
        self.act(
            name, process, command, lambda now: book.pay_period(subscription, plan, start, end, lot, now)
        )

    @rule(who=WHO, process=PROCESS, to_plan=PAID_PLANS, money=st.none() | st.integers(700, 900))
    def change_plans(self, who: int, process: int, to_plan: str, money: int | None) -> None:
        name, lot = self.names[who], self.new("lot")
        self.flush(process)
        book = self.books[name]
        mine = book.membership
        subscription, current = ("sub_0", "starter") if mine is None else (mine.name, mine.plan)
        command = c.ChangePlan(
            subscription_id=subscription,
            current=PLANS[current],
            target=PLANS[to_plan],
            lot_id=lot,
            consideration=None if money is None else paid(money, payment_id=f"pay_{lot}"),
        )
        self.act(name, process, command, lambda now: book.change(subscription, to_plan, lot, money, now))
        self.flush(process)

    @rule(who=WHO, process=PROCESS, what=st.sampled_from(["cancel", "resume", "end", "end it twice"]))
    def turn_a_subscription(self, who: int, process: int, what: str) -> None:
        name = self.names[who]
        book = self.books[name]
        subscription = "sub_0" if book.membership is None else book.membership.name
        match what:
            case "cancel":
                command: c.Command = c.CancelSubscription(subscription_id=subscription)
                self.act(name, process, command, lambda _: book.cancel(subscription))
            case "resume":
                command = c.ResumeSubscription(subscription_id=subscription)
                self.act(name, process, command, lambda _: book.resume(subscription))
            case _:
                command = c.EndSubscription(subscription_id=subscription, reason="unpaid")
                self.act(name, process, command, lambda _: book.end(subscription))

    @rule(who=WHO, process=PROCESS, amount=st.integers(0, 4))
    def bill(self, who: int, process: int, amount: int) -> None:
        name = self.names[who]
        command = c.BillOverage(credits=amount, consideration=paid(amount + 1, payment_id="pay_over"))
        self.act(name, process, command, lambda _: self.books[name].bill(amount))

    @rule(who=WHO, process=PROCESS, pick=PICKS)
    def an_earning_stops(self, who: int, process: int, pick: int) -> None:
        name = self.names[who]
        book = self.books[name]
        lots = sorted(book.earnings) or ["lot_none"]
        lot = lots[pick % len(lots)]
        command = c.StopEarning(schedule_id=lot, worth=Worth(5, 0, 0, 5))
        self.act(name, process, command, lambda _: book.stop_earning(lot))

    @rule(who=WHO, into=WHO, process=PROCESS)
    def merge(self, who: int, into: int, process: int) -> None:
        guest, person = self.names[who], self.names[into]
        command = self.command(
            (guest, person),
            ["merge", guest, person],
            lambda draft: drafts.merge_in(draft, guest, person),
            lambda now: self.books[guest].move_to(self.books[person], now),
        )
        self.send(command, process)


TestLedger = Ledger.TestCase
TestLedger.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True, scope="module")
def database(make_database: Callable[..., str]) -> Iterator[None]:
    """One database for all lives; snapshots after few events, so that short lives load them too."""
    url = make_database()
    with open_datastore(url) as datastore:
        LogRecorder(datastore).create_schema(url)
    with pytest.MonkeyPatch.context() as patched, structlog.testing.capture_logs():
        patched.setattr(cache, "SNAPSHOT_EVERY", 4)
        Ledger.desk = Desk(url)
        yield
        report = Ledger.desk.verified()
        Ledger.desk.close()
    assert report.ok, report.findings
