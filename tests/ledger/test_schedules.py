"""What is paid for daily images is earned day by day."""

from __future__ import annotations

import msgspec

from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import EarnRevenue, StopEarning
from ledger.domain.consideration import Worth
from ledger.domain.events import EarningScheduled, RevenueEarned
from ledger.domain.view import plan_in_force
from tests.ledger.subscribing import END, PRO, START, UNLIMITED, change, pay, subscribed, with_allowance
from tests.ledger.world import DAY, NOON, after, balance, events_of, paid


def test_unlimited_is_a_daily_lot_without_money_and_its_money_is_earned_by_the_day():
    account = subscribed(UNLIMITED)
    assert account.lots == ()
    [schedule] = account.status.schedules
    assert (schedule.days, schedule.consideration.worth.net_minor) == (30, 4_000)
    account = with_allowance(account, plan_in_force(account, NOON))
    assert balance(account) == (1_000, 0, 0)
    assert account.lots[0].terms.consideration is None


def test_each_day_that_passed_is_earned_once_and_the_whole_in_the_end():
    account = subscribed(UNLIMITED)
    assert events_of(account, EarnRevenue(), START) == []
    days = events_of(account, EarnRevenue(), START + 3 * DAY)
    assert [(event.day.isoformat(), event.ordinal) for event in days] == [
        ("2026-11-01", 1),
        ("2026-11-02", 2),
        ("2026-11-03", 3),
    ]
    account = after(account, EarnRevenue(), now=START + 3 * DAY)
    assert events_of(account, EarnRevenue(), START + 3 * DAY) == []
    assert events_of(account, EarnRevenue(), START + DAY) == []
    rest = events_of(account, EarnRevenue(limit=1_000), END + 90 * DAY)
    assert all(isinstance(event, RevenueEarned) for event in rest)
    assert sum(event.worth.net_minor for event in (*days, *rest)) == 4_000
    assert after(account, EarnRevenue(limit=1_000), now=END).status.schedules == ()


def test_earning_is_bounded_per_step():
    assert len(events_of(subscribed(UNLIMITED), EarnRevenue(limit=7), END)) == 7


def test_money_that_goes_back_stops_its_schedule():
    account = after(subscribed(UNLIMITED), EarnRevenue(), now=START + 3 * DAY)
    stop = StopEarning(schedule_id="lot_unlimited_20261101", worth=Worth(4_000, 0, 0, 4_000))
    [stopped] = events_of(account, stop)
    assert stopped.unearned.net_minor == 4_000 - 400
    assert after(account, stop).status.schedules == ()


def test_an_upgrade_to_unlimited_earns_its_money_over_the_days_left():
    account = subscribed(PRO)
    command = msgspec.structs.replace(change(PRO, UNLIMITED), consideration=paid(1_000))
    _, scheduled = events_of(account, command, START + 20 * DAY)
    assert isinstance(scheduled, EarningScheduled)
    assert (scheduled.first_day.isoformat(), scheduled.days) == ("2026-11-21", 10)


def test_a_schedule_that_is_finished_leaves_and_the_others_go_on():
    short = pay(UNLIMITED, START, START + DAY)
    long = pay(UNLIMITED, START + DAY, START + 5 * DAY)
    account = after(ACCOUNTS.initial, short, now=START)
    account = after(account, long, now=START + DAY)
    account = after(account, EarnRevenue(), now=START + 2 * DAY)
    [going_on] = account.status.schedules
    assert (going_on.schedule_id, going_on.earned_days) == (long.lot_id, 1)
