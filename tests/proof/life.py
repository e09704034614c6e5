"""One life of a ledger: what is sent, what the model says to it, and what happens to the processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ledger.domain import applying
from ledger.domain import commands as c
from ledger.domain import events as e
from ledger.domain.account import ACCOUNTS
from ledger.domain.consideration import Worth
from ledger.domain.holds import each
from ledger.domain.invariants import check_step
from ledger.domain.journal import CREDIT, postings
from ledger.domain.movements import movement
from ledger.domain.state import Account
from ledger.domain.touched import check_touched
from ledger.errors import IdempotencyConflict, Refusal
from ledger.identifiers import AccountId, CommandKey
from ledger.log.model import Receipt, Transaction, UnitOfWork
from tests.ledger.naive import No
from tests.proof.harness import NOT_ANSWERED, Harness, result_of
from tests.proof.naive_ledger import Book, Rules

RULES = {
    "free": Rules("free", 0, True, 5),
    "starter": Rules("starter", 1, False, 8, 4, timedelta(days=1)),
    # Between two plans by the period, so that one period can see both and the daily one in between.
    "unlimited": Rules("unlimited", 2, True, 9),
    "pro": Rules("pro", 3, False, 20, 0, timedelta(hours=1)),
}
PROCESS = st.integers(0, 1)
PICKS = st.integers(0, 99)
SECONDS = st.sampled_from([-90, -1, 0, 1, 20, 300, 3_600, 86_400, 3 * 86_400])
Naive = Callable[[datetime], None]


@dataclass
class Command:
    """A command as sent, and what the model thinks that it does."""

    transaction: Transaction
    naive: Naive
    answer: Any = None
    """The first answer, once there is one."""


class Life(RuleBasedStateMachine):
    """Sends commands, asks the model, compares; and all that may happen to processes meanwhile."""

    harness: ClassVar[Harness]

    @initialize()
    def begin(self) -> None:
        start = self.harness.new_life()
        names = [AccountId(f"acct_{self.harness.lives:06d}{part}") for part in "abp"]
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
            assert self.harness.all_rows() == self.harness.rows, "the log has changed behind its readers"

    # Sending

    def new(self, kind: str) -> str:
        self.made += 1
        return f"{kind}_{self.harness.lives:06d}_{self.made:04d}"

    def command(
        self, streams: Sequence[str], body: Any, decide: Callable[[UnitOfWork], Any], naive: Naive
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
        def decide(uow: UnitOfWork) -> list[str]:
            return [type(event).__name__ for event in applying.act_in(uow, who, command)]

        body = [who, type(command).__name__, command]
        self.send(self.command((who,), body, decide, naive), process)

    def flush(self, process: int) -> None:
        """Send what was gathered. What is not answered is sent again, to a process that lives."""
        batch, self.queue = self.queue, []
        if not batch:
            return
        number = process
        for _ in range(4):
            answers = self.harness.submit(number, [command.transaction for command in batch])
            again = []
            for command, answer in zip(batch, answers, strict=True):
                if isinstance(answer, NOT_ANSWERED):
                    again.append(command)
                else:
                    self.note(command, answer)
            if self.harness.processes[number].killer.dead:
                self.harness.replace(number)
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
        for outcome in self.harness.news():
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
        for envelope in self.harness.events():
            assert envelope.key in accepted, "a refused command left an event"
            self.fold(envelope.stream, envelope.event)
        self.compare()

    def fold(self, stream: str, event: Any) -> None:
        before = self.accounts[stream]
        after = ACCOUNTS.evolve(before, event)
        assert check_step(before, event, after) == []
        assert check_touched(before, event, after) is None
        self.accounts[stream] = after
        lines: Counter[tuple[str, str]] = Counter()
        for posting in postings(event):
            lines["minor", posting.asset.code] += posting.amount_minor
            lines["usd", posting.asset.code] += posting.usd_minor
            self.sums[posting.account, posting.asset.code] += posting.amount_minor
            self.sums[posting.account, "usd"] += posting.usd_minor
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
        unearned = [worth for account in self.accounts.values() for worth in worths_open(account)]
        deferred = (
            self.sums["Liabilities:Deferred:Card", "USD"],
            self.sums["Liabilities:Deferred:Card", "usd"],
        )
        assert deferred == (-sum(w.earned_minor for w in unearned), -sum(w.usd_minor for w in unearned))

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
        status = account.status
        assert {r.refund_id for r in status.refunds} == {n for n, h in book.holders.items() if not h.deadline}
        assert {d.reversal_id for d in status.disputes} == set(book.disputes)
        assert {s.schedule_id: s.earned_days for s in status.schedules} == {
            lot: earning.earned_days for lot, earning in book.earnings.items()
        }
        assert (status.overage_owed, status.merged_into) == (book.overage_owed, book.gone_to)
        usage = account.usage
        assert (usage.period, usage.granted, usage.used) == (
            book.period,
            book.period_granted,
            book.period_used,
        )
        assert self.warnings[name] == book.warnings
        assert self.earned[name] == book.earned
        assert (status.subscription is None) == (book.membership is None)
        if status.subscription is not None and book.membership is not None:
            assert status.subscription.subscription_id == book.membership.name
        assert {s.subscription_id for s in status.subscriptions()} == set(book.memberships)
        for mine in status.subscriptions():
            theirs = book.memberships[mine.subscription_id]
            still = {stretch.until for stretch in theirs.stretches if stretch.until > now}
            assert {period.until for period in mine.periods if period.until > now} == still
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
            self.harness.processes[number].clock.advance(timedelta(seconds=seconds))

    @rule(pick=PICKS, beside=st.sampled_from([-1, 0, 0, 1]))
    def the_clocks_reach_something(self, pick: int, beside: int) -> None:
        """An instant at which a lot, a hold or a period ends, or one just beside it."""
        found = sorted({end for book in self.books.values() for end in book.ends() if end > self.now})
        if found:
            for process in self.harness.processes:
                process.clock.set(found[pick % min(6, len(found))] + timedelta(seconds=beside))

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
        killer = self.harness.processes[process].killer
        killer.plan, killer.dies = plan, dies

    @rule(process=PROCESS)
    def a_process_is_replaced(self, process: int) -> None:
        self.harness.replace(process)

    @rule(process=PROCESS)
    def an_idle_connection_is_lost(self, process: int) -> None:
        self.harness.disconnect(process)

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

    def until_answered(self, process: int, transaction: Transaction) -> list[Any]:
        for number in (process, 1 - process, process):
            answers = self.harness.submit(number, [transaction])
            if self.harness.processes[number].killer.dead:
                self.harness.replace(number)
            if not isinstance(answers[0], NOT_ANSWERED):
                return answers
        raise AssertionError("never answered")


def worths_open(account: Account) -> list[Worth]:
    """All that was paid and not earned, lapsed or sent back."""
    slices = [portion for hold in each(account.holds) for portion in hold.slices]
    slices += [portion for refund in account.status.refunds for portion in refund.held]
    worths = [lot.left_worth for lot in account.lots] + [portion.worth for portion in slices if portion.worth]
    return worths + [s.consideration.worth - s.earned for s in account.status.schedules]
