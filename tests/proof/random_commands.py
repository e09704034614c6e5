"""Every command of the ledger as a rule: what is sent, and beside it what the model does."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ledger.domain import applying
from ledger.domain import commands as c
from ledger.domain.consideration import Worth
from ledger.domain.holds import each
from ledger.domain.lots import PRIORITY, Source
from ledger.identifiers import AccountId
from ledger.plans import Plan
from tests.ledger.naive import Terms
from tests.ledger.world import paid
from tests.proof.harness import NOT_ANSWERED
from tests.proof.life import PICKS, PROCESS, RULES, Command, Life
from tests.proof.naive_ledger import Book

PLANS = {
    rules.name: Plan(
        name=rules.name,
        label="",
        price_usd_minor=0,
        period="day" if rules.daily else "month",
        credits=rules.credits,
        rank=rules.rank,
        overage_limit=rules.overage,
        grace_seconds=int(rules.grace.total_seconds()),
    )
    for rules in RULES.values()
}
PAID_PLANS = st.sampled_from(["starter", "pro", "unlimited"])
WHO = st.integers(0, 2)
AMOUNTS = st.integers(0, 9)
LIVES = st.none() | st.sampled_from([1, 60, 3_000, 100_000])
SOURCES = st.sampled_from([Source.PAYMENT, Source.PAYMENT, Source.PROMOTION, Source.PASS])


class Ledger(Life):
    """A life in which everything is asked for."""

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
            self.harness.processes[process].killer.plan = [killed]
            self.harness.processes[process].killer.dies = False
        t, u = one.transaction, other.transaction
        answers = self.harness.race([(0, t), (1, u), (1, t), (0, u)])
        for number in (0, 1):
            if self.harness.processes[number].killer.dead:
                self.harness.replace(number)
        for command, answer in zip((one, other, one, other), answers, strict=True):
            if isinstance(answer, NOT_ANSWERED):
                [answer] = self.until_answered(process, command.transaction)
            self.note(command, answer)
        self.settle()

    # What is granted

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
        expires_at = None if life is None else self.harness.processes[0].clock() + timedelta(seconds=life)
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
            lambda uow: applying.sweep_in(uow, name, limit),
            lambda now: book.sweep(now, limit),
        )
        self.send(command, process)

    # What is reserved

    def holding(
        self, name: str, amount: int, seconds: int, *, only: str | None = None, allowance: bool = True
    ) -> Command:
        hold, book = self.new("hold"), self.books[name]
        deadline = self.harness.processes[0].clock() + timedelta(seconds=seconds)
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
            lambda uow: applying.hold_in(uow, name, command, PLANS).hold_id,
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

    @rule(
        who=WHO,
        process=PROCESS,
        bought=st.integers(2, 12),
        used=st.integers(1, 12),
        captured=st.none() | st.integers(1, 3),
        life=LIVES,
        kept=st.integers(0, 3),
    )
    def an_image_is_bought_and_made(
        self,
        who: int,
        process: int,
        bought: int,
        used: int,
        captured: int | None,
        life: int | None,
        kept: int,
    ) -> None:
        """The usual life, so that unusual ones meet credits that are spent, held and left."""
        name = self.names[who]
        self.grant(who, process, bought, life, Source.PAYMENT, again=False)
        command = self.holding(name, min(used, bought), 4_000, allowance=False)
        self.send(command, process)
        if kept:
            hold, book = command.transaction.body[2].hold_id, self.books[name]
            command = c.CaptureHold(hold_id=hold, credits=captured)
            self.act(name, process, command, lambda now: book.capture(hold, captured, 0, now))

    def whose(self, who: int) -> AccountId:
        """An account with open holds, if there is one."""
        working = [name for name in self.names if self.accounts[name].holds]
        return working[who % len(working)] if working else self.names[who]

    def member(self, who: int) -> AccountId:
        """An account with a subscription, if there is one."""
        members = [name for name in self.names if (m := self.books[name].membership) and not m.ended]
        return members[who % len(members)] if members else self.names[who]

    def some_hold(self, name: str, pick: int) -> str:
        """Mostly an open one; sometimes one long closed, or never there."""
        names = sorted(hold.hold_id for hold in each(self.accounts[name].holds))
        if pick % 7 and names:
            return names[pick % len(names)]
        closed = sorted(self.resolved)
        return closed[pick % len(closed)] if closed and pick % 2 else "hold_none"

    @rule(who=WHO, process=PROCESS, pick=PICKS, amount=st.none() | AMOUNTS, limit=st.integers(0, 3))
    def capture(self, who: int, process: int, pick: int, amount: int | None, limit: int) -> None:
        name = self.whose(who)
        hold, book = self.some_hold(name, pick), self.books[name]
        command = c.CaptureHold(hold_id=hold, credits=amount, overage_limit=limit)
        self.act(name, process, command, lambda now: book.capture(hold, amount, limit, now))

    @rule(who=WHO, process=PROCESS, pick=PICKS)
    def release(self, who: int, process: int, pick: int) -> None:
        name = self.whose(who)
        hold, book = self.some_hold(name, pick), self.books[name]
        self.act(name, process, c.ReleaseHold(hold_id=hold), lambda now: book.release(hold, now))

    @rule(who=WHO, process=PROCESS, pick=PICKS)
    def expire(self, who: int, process: int, pick: int) -> None:
        name = self.whose(who)
        hold, book = self.some_hold(name, pick), self.books[name]
        self.act(name, process, c.ExpireHold(hold_id=hold), lambda now: book.expire(hold, now))

    @rule(who=WHO, process=PROCESS, pick=PICKS, onto=PICKS, seconds=st.sampled_from([-1, 60, 4_000]))
    def move(self, who: int, process: int, pick: int, onto: int, seconds: int) -> None:
        name = self.whose(who)
        hold, book = self.some_hold(name, pick), self.books[name]
        to = self.some_hold(name, onto) if onto % 3 == 0 else self.new("hold")
        if to in self.resolved:
            to = hold
        deadline = self.harness.processes[0].clock() + timedelta(seconds=seconds)
        command = c.MoveHold(hold_id=hold, to_hold_id=to, job_id="job_2", deadline=deadline)
        self.act(name, process, command, lambda now: book.move(hold, to, deadline, now))

    # Money that goes back

    def bought(self, name: str, pick: int) -> str:
        book = self.books[name]
        lots = [lot for lot, terms in book.lots.items() if terms.paid]
        if pick % 2:
            lots = [lot for lot in lots if book.count(lot, "spent")] or lots
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
            ref = max(book.disputes)
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

    # What is subscribed to

    @rule(
        who=WHO,
        process=PROCESS,
        plan=PAID_PLANS,
        ago=st.integers(-1, 6),
        days=st.sampled_from([0, 1, 2, 2, 3, 5, 5, 5]),
        other=st.integers(0, 5),
        renews=st.booleans(),
    )
    def pay_a_period(
        self, who: int, process: int, plan: str, ago: int, days: int, other: int, renews: bool
    ) -> None:
        name, lot = self.names[who], self.new("lot")
        book = self.books[name]
        start = self.harness.processes[0].clock() - timedelta(days=ago)
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
        name, lot = self.member(who), self.new("lot")
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

    @rule(who=WHO, process=PROCESS, pick=PICKS, comes=st.booleans(), money=st.none() | st.integers(1, 90))
    def money_of_a_plan_goes_or_comes(
        self, who: int, process: int, pick: int, comes: bool, money: int | None
    ) -> None:
        """Of a period, or of a larger plan for the rest of one; sometimes of none."""
        name, lot = self.member(who), self.new("lot")
        self.flush(process)
        book = self.books[name]
        mine = book.membership
        subscription = "sub_0" if mine is None else mine.name
        stretches = [] if mine is None else mine.stretches
        payments = [s.payment for s in stretches] + [one.payment for s in stretches for one in s.larger]
        payments = [payment for payment in payments if payment] or ["pay_none"]
        payment = payments[-1 - pick % len(payments)]
        if not comes:
            command: c.Command = c.RevokePeriod(subscription_id=subscription, payment_id=payment)
            self.act(
                name, process, command, lambda now: book.money_of_a_plan_goes(subscription, payment, now)
            )
            return
        command = c.RestorePeriod(
            subscription_id=subscription,
            payment_id=payment,
            schedule_id=lot,
            consideration=None if money is None else paid(money, payment_id=payment),
        )
        self.act(
            name,
            process,
            command,
            lambda now: book.money_of_a_plan_comes(subscription, payment, lot, money, now),
        )
        self.flush(process)

    @rule(who=WHO, process=PROCESS, what=st.sampled_from(["cancel", "resume", "cancel", "resume", "end"]))
    def turn_a_subscription(self, who: int, process: int, what: str) -> None:
        name = self.member(who)
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
            lambda uow: applying.merge_in(uow, guest, person),
            lambda now: self.books[guest].move_to(self.books[person], now),
        )
        self.send(command, process)
