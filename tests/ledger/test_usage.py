"""What is shown of a plan's allowance, and which mark is mailed: over renewals, changes, refunds, in any order."""

from __future__ import annotations

from datetime import datetime

import msgspec
import pytest

from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import (
    CaptureHold,
    OpenRefund,
    ReleaseHold,
    ResolveRefund,
    ReverseCredits,
    RevokePeriod,
)
from ledger.domain.events import UsageWarned
from ledger.domain.state import Account
from ledger.domain.usage import UsageView, usage_now
from ledger.domain.view import plan_in_force, view
from mail.domain.letters import UsageReached
from processes.mails import usage_reached
from tests.ledger.subscribing import (
    END,
    PRO,
    START,
    STARTER,
    UNLIMITED,
    change,
    pay,
    subscribed,
    with_allowance,
)
from tests.ledger.world import DAY, HOUR, after, apply, events_of, grant, hold, paid

MID = START + 10 * DAY


def shown(account: Account, now: datetime = MID) -> UsageView:
    return view(account, plan_in_force(account, now), now, account_id="acct_1").usage


def figures(account: Account, now: datetime = MID) -> tuple[int, int, int]:
    """(used, granted, percent)."""
    usage = shown(account, now)
    return usage.used, usage.granted, usage.percent


def spent(
    account: Account, amount: int, now: datetime = MID, name: str = "h1"
) -> tuple[Account, list[UsageReached]]:
    """After so many images, and the letters about them."""
    account = after(account, hold(amount, hold_id=name, deadline=now + HOUR), now=now)
    letters = []
    for event in events_of(account, CaptureHold(hold_id=name), now):
        account = apply(account, [event])
        if isinstance(event, UsageWarned):
            letters.append(usage_reached(event, account, now))
    return account, [letter for letter in letters if letter is not None]


def refund(account: Account, amount: int, outcome: str = "sent", now: datetime = MID) -> Account:
    lot_id = account.lots[0].terms.lot_id
    account = after(account, OpenRefund(refund_id="re_1", lot_id=lot_id, credits=amount), now=now)
    return after(account, ResolveRefund(refund_id="re_1", outcome=outcome), now=now)


def reversal(account: Account, amount: int) -> ReverseCredits:
    """So many of the only lot's credits were paid with money that went back."""
    money = paid(800)
    return ReverseCredits(
        reversal_id="rev_1",
        lot_id=account.lots[0].terms.lot_id,
        credits=amount,
        cause="refund",
        asset="USD",
        rail=money.rail,
        payment_id=money.payment_id,
        worth=money.worth,
    )


def test_a_period_shows_what_it_granted_and_when_the_next_begins() -> None:
    account, letters = spent(subscribed(STARTER), 1_000)
    usage = shown(account)
    assert (usage.used, usage.granted, usage.percent, usage.ends_at) == (1_000, 2_000, 50, END)
    assert letters == []


def test_each_mark_of_a_period_is_one_letter_and_both_at_once_are_the_last() -> None:
    account, letters = spent(subscribed(STARTER), 1_600)
    assert [(letter.percent, letter.used, letter.granted, letter.ends_at) for letter in letters] == [
        (80, 1_600, 2_000, END)
    ]
    account, letters = spent(account, 399)
    assert letters == []
    account, letters = spent(account, 1)
    assert [(letter.percent, letter.plan_label) for letter in letters] == [(100, "Starter")]
    _, letters = spent(subscribed(STARTER), 2_000)
    assert [letter.percent for letter in letters] == [100]


def test_a_renewal_begins_anew_and_is_told_again() -> None:
    account, first = spent(subscribed(STARTER), 2_000)
    account = after(account, pay(STARTER, END, END + 31 * DAY), now=END)
    assert figures(account, END + DAY) == (0, 2_000, 0)
    account, second = spent(account, 1_600, END + DAY)
    assert [letter.percent for letter in (*first, *second)] == [100, 80]


def test_a_late_period_that_a_newer_one_has_overtaken_changes_nothing_of_what_is_used() -> None:
    account = after(ACCOUNTS.initial, pay(STARTER, END, END + 31 * DAY), now=END + DAY)
    account, _ = spent(account, 1_000, END + DAY)
    account = after(account, pay(STARTER), now=END + 2 * DAY)
    assert figures(account, END + 3 * DAY) == (1_000, 2_000, 50)
    assert shown(account, END + 3 * DAY).ends_at == END + 31 * DAY


def test_after_the_period_nothing_of_it_is_shown_and_nobody_is_told_of_it() -> None:
    account = after(subscribed(STARTER), hold(2_000, deadline=END + 3 * HOUR), now=END - HOUR)
    later = END + 2 * HOUR
    assert shown(account, later) == UsageView()
    events = events_of(account, CaptureHold(hold_id="h1"), later)
    warned = [event for event in events if isinstance(event, UsageWarned)]
    assert [usage_reached(event, apply(account, events), later) for event in warned] == [None, None]


def test_a_larger_plan_counts_what_was_used_of_the_smaller_one_and_is_told_of_its_own_marks() -> None:
    account, first = spent(subscribed(STARTER), 1_600)
    account = after(account, change(STARTER, PRO), now=START + 15 * DAY)
    assert figures(account, START + 16 * DAY) == (1_600, 5_000, 32)
    account, second = spent(account, 2_400, START + 16 * DAY, "h2")
    assert [(letter.percent, letter.plan_label) for letter in (*first, *second)] == [
        (80, "Starter"),
        (80, "Pro"),
    ]


def test_what_was_refunded_was_not_granted_so_that_the_rest_is_told_of_in_time() -> None:
    account, _ = spent(subscribed(STARTER), 500)
    account = refund(account, 500)
    assert figures(account) == (500, 1_500, 33)
    account, letters = spent(account, 700)
    assert [(letter.percent, letter.granted) for letter in letters] == [(80, 1_500)]


@pytest.mark.parametrize("outcome", ["failed", "unknown"])
def test_a_refund_that_was_not_sent_leaves_the_allowance(outcome: str) -> None:
    assert figures(refund(subscribed(STARTER), 500, outcome)) == (0, 2_000, 0)


def test_money_that_went_back_takes_the_unused_part_of_the_allowance_and_what_is_held_when_it_returns() -> (
    None
):
    account = after(subscribed(STARTER), hold(100, deadline=MID + HOUR), now=MID)
    account = after(
        account,
        reversal(account, 2_000),
        RevokePeriod(subscription_id="sub_1", payment_id=paid(800).payment_id),
        now=MID,
    )
    assert account.usage.granted == 100
    assert plan_in_force(account, MID).name == "free"
    assert (shown(account).period, shown(account).granted) == ("2026-11-11", 20)
    account = after(account, ReleaseHold(hold_id="h1"), now=MID)
    assert account.usage.granted == 0


def test_credits_that_made_up_for_a_debt_were_not_granted_for_use() -> None:
    account = msgspec.structs.replace(ACCOUNTS.initial, debt=600)
    account = after(account, pay(STARTER), now=START)
    assert figures(account) == (0, 1_400, 0)


def test_credits_bought_besides_are_no_part_of_it() -> None:
    account = after(subscribed(STARTER), grant(1_000, money=paid(100)), now=MID)
    account, letters = spent(account, 2_500)
    assert figures(account) == (2_000, 2_000, 100)
    assert [letter.percent for letter in letters] == [100]


def test_a_daily_allowance_is_todays_whatever_was_used_yesterday_and_is_not_mailed() -> None:
    yesterday = MID - DAY
    account, letters = spent(with_allowance(ACCOUNTS.initial, now=yesterday), 20, yesterday)
    assert letters == []
    assert figures(account, yesterday) == (20, 20, 100)
    assert figures(account, MID) == (0, 20, 0)
    assert shown(account, MID).ends_at == datetime(2026, 11, 12, tzinfo=MID.tzinfo)


def test_a_daily_plan_shows_what_the_next_hold_would_grant() -> None:
    account, _ = spent(with_allowance(ACCOUNTS.initial, now=MID), 15)
    account = after(account, pay(UNLIMITED), now=MID)
    assert figures(account) == (15, 1_000, 1)


def test_without_a_plan_that_brings_anything_nothing_is_shown() -> None:
    assert usage_now(ACCOUNTS.initial, STARTER, 0, MID) == UsageView()


def test_a_capture_that_takes_credits_off_the_allowance_warns_of_what_is_left_of_it() -> None:
    account = after(subscribed(STARTER), hold(1_000, deadline=MID + HOUR), now=MID)
    account = after(account, reversal(account, 1_990), now=MID)
    assert account.usage.granted == 1_000
    events = events_of(account, CaptureHold(hold_id="h1", credits=10), MID)
    assert [event.percent for event in events if isinstance(event, UsageWarned)] == [80, 100]
    account = apply(account, events)
    assert (account.usage.used, account.usage.granted) == (10, 10)
