"""The naive model of accounts, extended to all that a ledger does: plans, earnings, overage, merges.

Like `tests.ledger.naive` it shares no code with the ledger: every credit is an object, time is
asked again at every question, nothing is cached and nothing is ever forgotten.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from tests.ledger.naive import Credit, NaiveAccount, No, Terms


@dataclass
class Rules:
    """A plan as a person would write it down."""

    name: str
    rank: int
    daily: bool
    credits: int
    overage: int = 0
    grace: timedelta = timedelta(0)


@dataclass
class Stretch:
    """What a payment bought: a plan, from a day to a day."""

    plan: str
    start: datetime
    until: datetime
    payment: str = ""
    gone_since: datetime | None = None
    """Since when its money is not ours."""
    larger: list[Larger] = field(default_factory=list)
    """Larger plans for the rest of it."""

    def brings(self) -> str:
        return next((one.plan for one in reversed(self.larger) if not one.gone), self.plan)


@dataclass
class Larger:
    plan: str
    payment: str
    gone: bool = False


@dataclass
class Membership:
    name: str
    plan: str
    start: datetime
    end: datetime
    stretches: list[Stretch] = field(default_factory=list)
    paid_starts: list[datetime] = field(default_factory=list)
    granted: int = 0
    then: str = ""
    cancels: bool = False
    ended: bool = False


@dataclass
class Earning:
    first: date
    days: int
    money: int
    earned_days: int = 0


@dataclass(eq=False)
class Book(NaiveAccount):
    name: str = ""
    plans: dict[str, Rules] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    allowance_of: dict[str, str] = field(default_factory=dict)
    """The period whose allowance a lot is part of."""
    membership: Membership | None = None
    """The newest."""
    memberships: dict[str, Membership] = field(default_factory=dict)
    allowance_today: int = 0
    period: str = ""
    period_granted: int = 0
    period_used: int = 0
    period_overage: int = 0
    warned: int = 0
    warnings: list[tuple[str, int]] = field(default_factory=list)
    overage_owed: int = 0
    overage_of: dict[str, str] = field(default_factory=dict)
    earnings: dict[str, Earning] = field(default_factory=dict)
    earned: int = 0
    """Money earned by all schedules that ever were."""
    gone_to: str = ""

    # Plans

    def rules(self, now: datetime) -> Rules:
        found = [self.plans["free"]]
        for mine in self.memberships.values():
            here = [stretch for stretch in mine.stretches if stretch.gone_since is None]
            for stretch in here:
                rules = self.plans[stretch.brings()]
                is_last = all(stretch.until >= other.until for other in here)
                more = rules.grace if is_last and not mine.cancels and not mine.ended else timedelta(0)
                if stretch.start <= now < stretch.until + more:
                    found.append(rules)
        return max(found, key=lambda rules: rules.rank)

    def claim(self, now: datetime) -> None:
        rules, day = self.rules(now), now.astimezone(UTC).date().isoformat()
        if not rules.daily or self.debt or self.gone_to or day < self.last_day:
            return
        had = self.allowance_today if day == self.last_day else 0
        more = rules.credits - had
        if more <= 0:
            return
        self.last_day, self.allowance_today = day, had + more
        midnight = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1)
        lot = f"lot_{self.name.removeprefix('acct_')}_{day}" + (f"_{rules.name}" if had else "")
        self.put_in(lot, more, Terms(0, midnight, now, paid=False), "allowance")
        self.allowance_of[lot] = day
        self.count_granted(day, more)

    def count_granted(self, period: str, more: int) -> None:
        if period != self.period:
            self.period, self.period_granted, self.period_used = period, 0, 0
            self.period_overage = self.warned = 0
        self.period_granted += more
        while self.warned and self.period_used * 100 < self.period_granted * self.warned:
            self.warned = 80 if self.warned == 100 else 0

    def count_less(self, gone: list[Credit]) -> None:
        """Credits that nobody will use were not granted for use."""
        less = sum(self.allowance_of.get(credit.lot) == self.period for credit in gone)
        self.period_granted = max(0, self.period_granted - less)

    def put_in(self, lot: str, amount: int, terms: Terms, source: str) -> None:
        self.sources[lot] = source
        self.add(lot, amount, terms)

    def order_images(
        self, name: str, amount: int, deadline: datetime, now: datetime, *, only: str | None, allowance: bool
    ) -> None:
        """What a hold is to its owner: lapse, earn, claim, then take; all of it or nothing."""
        before = copy.deepcopy(self.__dict__)
        try:
            self._order(name, amount, deadline, now, only, allowance)
        except No:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _order(
        self, name: str, amount: int, deadline: datetime, now: datetime, only: str | None, allowance: bool
    ) -> None:
        if self.gone_to:
            raise No
        limit = self.rules(now).overage
        self.lapse(now, 32)
        self.earn(now, 32)
        if allowance:
            self.claim(now)
        usable = [
            c
            for c in self.usable(now)
            if only in (None, c.lot) and (allowance or self.sources[c.lot] != "allowance")
        ]
        missing = amount - len(usable)
        may_owe = only is None and allowance and not self.debt and deadline > now
        if missing > 0 and may_owe and missing <= limit - max(self.period_overage, self.overage_owed):
            self.put_in(f"over_{name}", missing, Terms(90, None, now, paid=False), "overage")
            self.overage_of[f"over_{name}"] = self.period
            self.period_overage += missing
            self.overage_owed += missing
            usable = self.usable(now)
        if amount <= 0 or name in self.holders or deadline <= now or self.debt or len(usable) < amount:
            raise No
        self.give_to(name, deadline, usable[:amount])

    def capture(self, name: str, amount: int | None, limit: int, now: datetime) -> None:
        spent = [c for c in self.credits if c.where == "spent"]
        super().capture(name, amount, limit, now)
        known = {id(c) for c in spent}
        used = [
            c
            for c in self.credits
            if c.where == "spent" and id(c) not in known and self.allowance_of.get(c.lot) == self.period
        ]
        # Credits that make up for a debt are paid, and those of a paid plan count as used by it, but
        # nobody ordered an image with them.
        used = [c for c in used if c not in self.repaid]
        self.period_used += len(used)
        if not used or not self.period:
            return
        for percent in (80, 100):
            if self.warned < percent and self.period_used * 100 >= self.period_granted * percent:
                self.warned = percent
                self.warnings.append((self.period, percent))

    repaid: list[Credit] = field(default_factory=list)

    def set_off(self, now: datetime) -> None:
        before = [c for c in self.credits if c.where == "left"]
        super().set_off(now)
        repaid = [c for c in before if c.where == "spent"]
        self.repaid += repaid
        self.count_less(repaid)

    def add(self, lot: str, amount: int, terms: Terms) -> None:
        super().add(lot, amount, terms)
        if self.gone_to or lot not in self.allowance_of:
            return
        self.count_less([c for c in self.credits if c.lot == lot and c.where == "spent"])

    def reverse(self, ref: str, lot: str, amount: int, now: datetime, *, dispute: bool) -> None:
        left = [c for c in self.credits if c.lot == lot and c.where == "left" and not self.over(lot, now)]
        super().reverse(ref, lot, amount, now, dispute=dispute)
        self.count_less([c for c in left if c.where == "gone"])

    def put_back(self, credits_: list[Credit], now: datetime) -> None:
        self.count_less([c for c in credits_ if c.revoked])
        beyond = [c for c in credits_ if self.sources[c.lot] == "overage"]
        for credit in beyond:
            # What was to be used beyond the plan and was not: nobody has it, and nobody owes it.
            credit.where = "gone"
            self.overage_owed -= 1
            if self.overage_of[credit.lot] == self.period:
                self.period_overage -= 1
        super().put_back([c for c in credits_ if c not in beyond], now)

    def resolve_refund(self, name: str, outcome: str, now: datetime) -> None:
        holder = self.holders.get(name)
        super().resolve_refund(name, outcome, now)
        if outcome == "sent" and holder is not None:
            self.count_less(holder.credits)

    def withdraw(self, amount: int, now: datetime) -> None:
        usable = self.usable(now)[:amount]
        super().withdraw(amount, now)
        self.count_less(usable)

    # Time

    def lapse(self, now: datetime, limit: int) -> None:
        over = {c.lot for c in self.credits if c.where == "left" and self.over(c.lot, now)}
        for lot in sorted(over, key=self.order)[:limit]:
            for credit in self.credits:
                if credit.lot == lot and credit.where == "left":
                    credit.where = "gone"

    def earn(self, now: datetime, limit: int) -> None:
        for name, earning in list(self.earnings.items()):
            passed = min(earning.days, (now.astimezone(UTC).date() - earning.first).days)
            while earning.earned_days < passed and limit > 0:
                before = earning.money * earning.earned_days // earning.days
                earning.earned_days += 1
                limit -= 1
                self.earned += earning.money * earning.earned_days // earning.days - before
            if earning.earned_days == earning.days:
                del self.earnings[name]

    def ends(self) -> list[datetime]:
        """When something of this account will be over."""
        ends = [
            end for lot, terms in self.lots.items() if (end := terms.expires_at) and self.count(lot, "held")
        ]
        ends += [
            end for lot, terms in self.lots.items() if (end := terms.expires_at) and self.count(lot, "left")
        ]
        ends += [holder.deadline for holder in self.holders.values() if holder.deadline]
        for mine in self.memberships.values():
            ends += [stretch.until for stretch in mine.stretches]
            ends += [
                mine.start + (mine.end - mine.start) // 3,
                mine.end,
                mine.end + self.plans[mine.plan].grace,
            ]
        return ends

    def sweep(self, now: datetime, limit: int) -> None:
        late = [(h.deadline, name) for name, h in self.holders.items() if h.deadline and h.deadline <= now]
        for _, name in sorted(late)[:limit]:
            self.expire(name, now)
        self.lapse(now, limit)
        self.earn(now, limit)

    # Subscriptions

    def pay_period(
        self, name: str, plan: str, start: datetime, end: datetime, lot: str, now: datetime
    ) -> None:
        if end <= start:
            raise No
        mine, rules = self.memberships.get(name), self.plans[plan]
        known = [] if mine is None else sorted(mine.paid_starts)[-24:]
        if start in known or (len(known) == 24 and start < known[0]):
            raise No
        begins = start
        if now - start > rules.grace:  # late: for its whole length from now, and whole days behind others
            ends = [s.until for s in mine.stretches if s.gone_since is None] if mine is not None else []
            last = max(ends, default=mine.start if mine is not None else now)
            begins = max(now, last) if rules.daily else now
        stretch = Stretch(plan, start, begins + (end - start), f"pay_{lot}")
        old = [] if mine is None else mine.stretches
        starts = [start] if mine is None else [*mine.paid_starts, start]
        is_newest = mine is None or start > mine.start
        if is_newest:
            mine = self.membership = self.memberships[name] = Membership(name, plan, start, end)
        assert mine is not None
        mine.stretches, mine.paid_starts = self._not_over([*old, stretch], now), starts
        self.bring(
            rules, rules.credits, lot, self.price(rules), now, mine, start, begins, stretch.until, is_newest
        )

    @staticmethod
    def _not_over(stretches: list[Stretch], now: datetime) -> list[Stretch]:
        """What is over is forgotten when something is paid, but for the one that lasted longest."""
        last = max((s for s in stretches if s.gone_since is None), key=lambda s: s.until)
        return sorted((s for s in stretches if s.until > now or s is last), key=lambda s: s.start)

    def money_of_a_plan_goes(self, name: str, payment: str, now: datetime) -> None:
        mine = self.memberships.get(name)
        for stretch in mine.stretches if mine else ():
            if stretch.payment == payment:
                stretch.gone_since = stretch.gone_since or now
            for one in stretch.larger:
                one.gone = one.gone or one.payment == payment
        self._what_the_newest_brings(mine)

    def money_of_a_plan_comes(
        self, name: str, payment: str, lot: str, money: int | None, now: datetime
    ) -> None:
        mine, until = self.memberships.get(name), now
        for stretch in mine.stretches if mine else ():
            if stretch.payment == payment:
                if stretch.gone_since is not None:
                    stretch.until += max(now - stretch.gone_since, timedelta(0))
                    stretch.gone_since = None
                until = stretch.until
            for one in stretch.larger:
                if one.payment == payment:
                    one.gone, until = False, stretch.until
        self._what_the_newest_brings(mine)
        if money is not None:
            today, end = now.astimezone(UTC).date(), until.astimezone(UTC).date()
            self.earnings[lot] = Earning(today, max(1, (end - today).days), money)

    @staticmethod
    def _what_the_newest_brings(mine: Membership | None) -> None:
        for stretch in mine.stretches if mine else ():
            if mine and stretch.start == mine.start:
                mine.plan = stretch.brings()

    @staticmethod
    def price(rules: Rules) -> int:
        return 100 * rules.credits

    def bring(
        self,
        rules: Rules,
        amount: int,
        lot: str,
        money: int | None,
        now: datetime,
        mine: Membership,
        period: datetime,
        begins: datetime,
        until: datetime,
        is_newest: bool = True,
    ) -> None:
        name = period.astimezone(UTC).isoformat()
        if not rules.daily and amount > 0:
            terms = Terms(10, until + rules.grace, now, paid=money is not None, payment=f"pay_{lot}")
            if is_newest:
                self.count_granted(name, amount)
                mine.granted += amount
            self.allowance_of[lot] = name
            self.put_in(lot, amount, terms, "subscription")
        elif money is not None:
            first = max(begins, min(now, until)).astimezone(UTC).date()
            days = max(1, (until.astimezone(UTC).date() - first).days)
            self.earnings[lot] = Earning(first, days, money)

    def active(self, name: str) -> Membership:
        mine = self.memberships.get(name)
        if mine is None or mine.ended:
            raise No
        return mine

    def change(self, name: str, target: str, lot: str, money: int | None, now: datetime) -> None:
        mine = self.active(name)
        new, old = self.plans[target], self.plans[mine.plan]
        if target == mine.plan:
            mine.then, mine.cancels = "", False
        elif new.rank < old.rank:
            mine.then, mine.cancels = target, False
        else:
            whole, rest = mine.end - mine.start, min(max(mine.end - now, timedelta(0)), mine.end - mine.start)
            gap = max(0, new.credits - (0 if old.daily else old.credits))
            more = self._more(gap, rest, whole, new.credits - mine.granted)
            mine.plan, mine.then, mine.cancels = target, "", False
            until = mine.end
            for stretch in mine.stretches:
                if stretch.start == mine.start:
                    stretch.larger.append(Larger(target, f"pay_{lot}" if money is not None else ""))
                    until = max(until, stretch.until)
            self.bring(new, more, lot, money, now, mine, mine.start, mine.start, until)

    @staticmethod
    def _more(gap: int, rest: timedelta, whole: timedelta, room: int) -> int:
        """The largest number of credits whose share of time is not beyond the rest of the period."""
        more = 0
        while more < gap and whole * (more + 1) <= rest * gap:
            more += 1
        return max(0, min(more, room))

    def cancel(self, name: str) -> None:
        self.active(name).cancels = True

    def resume(self, name: str) -> None:
        mine = self.active(name)
        mine.then, mine.cancels = "", False

    def end(self, name: str) -> None:
        mine = self.active(name)
        mine.ended, mine.stretches = True, []

    def stop_earning(self, lot: str) -> None:
        if self.earnings.pop(lot, None) is None:
            raise No

    def bill(self, amount: int) -> None:
        if not 0 < amount <= self.overage_owed:
            raise No
        self.overage_owed -= amount

    # Money that goes back

    def take_back(self, ref: str, lot: str, amount: int, now: datetime, *, dispute: bool) -> None:
        if self.gone_to:
            raise No
        if lot in self.lots:
            self.reverse(ref, lot, amount, now, dispute=dispute)
            return
        if ref in self.disputes:
            raise No
        # Nobody knows the lot here: it counts as spent.
        self.debt += amount
        if dispute:
            self.disputes[ref] = (lot, amount, Terms(30, None, now, paid=True, payment=f"pay_{lot}"), now)
        self.set_off(now)

    def restore(self, ref: str, lot: str, now: datetime) -> None:
        self.sources[lot] = "restored"
        super().restore(ref, lot, now)

    # Guests

    def move_to(self, person: Book, now: datetime) -> None:
        if person is self or self.gone_to not in ("", person.name) or (person.gone_to and not self.gone_to):
            raise No
        self.gone_to = person.name
        person.disputes.update(self.disputes)
        self.disputes.clear()
        person.debt += self.debt
        self.debt = 0
        arriving: list[tuple[str, str]] = []
        for lot in sorted(self.lots, key=self.order):
            if self.lots[lot].paid and self.count(lot, "left") and not self.over(lot, now):
                name = lot
                while name in person.lots:
                    name += "_rest"
                arriving.append((lot, name))
        for lot, name in arriving:
            self._move_lot(lot, name, person)
        for lot, terms in self.lots.items():
            used_up = not self.count(lot, "left") and not self.count(lot, "held")
            if terms.paid and used_up and lot not in person.lots:
                person.remember(lot, self)
        person.set_off(now)

    def _move_lot(self, lot: str, name: str, person: Book) -> None:
        """What is left arrives; what was spent, or may be, is known there."""
        mine = [c for c in self.credits if c.lot == lot]
        left = [c for c in mine if c.where == "left"]
        person.put_in(name, len(left), self.lots[lot], self.sources[lot])
        person.allowance_of[name] = self.allowance_of.get(lot, "-")
        used = [c for c in mine if c.where == "held" or (c.where == "spent" and not c.reversed)]
        person.credits += [Credit(name, "spent") for _ in used]
        for credit in left:
            credit.where = "gone"
        self.count_less(left)

    def remember(self, lot: str, guest: Book) -> None:
        self.lots[lot], self.sources[lot] = guest.lots[lot], guest.sources[lot]
        spent = sum(c.lot == lot and c.where == "spent" and not c.reversed for c in guest.credits)
        self.credits += [Credit(lot, "spent") for _ in range(spent)]
