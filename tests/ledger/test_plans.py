"""The daily allowance, paid periods, and changes of plan."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import CancelSubscription, ChangePlan, EndSubscription, ResumeSubscription
from ledger.domain.events import CancellationScheduled, CreditsGranted, DowngradeScheduled
from ledger.domain.granting import due_allowance
from ledger.domain.periods import months_after
from ledger.domain.refusals import PeriodAlreadyGranted, SubscriptionNotFound
from ledger.domain.state import STARTS_KEPT
from ledger.domain.view import plan_in_force, view
from ledger.plans import PLANS
from tests.ledger.subscribing import (
    END,
    FREE,
    PRO,
    START,
    STARTER,
    UNLIMITED,
    change,
    pay,
    subscribed,
    with_allowance,
)
from tests.ledger.world import DAY, HOUR, NOON, after, balance, events_of, hold

# The daily allowance


def test_the_allowance_is_granted_once_a_day_however_often_asked():
    account = with_allowance(ACCOUNTS.initial)
    assert balance(account) == (20, 0, 0)
    for later in (NOON, NOON + HOUR, datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)):
        assert due_allowance(account, FREE, later, account_id="acct_1") == []


def test_the_day_is_a_utc_day_whatever_the_time_zone_of_the_clock():
    auckland = timezone(timedelta(hours=13))
    [granted] = due_allowance(ACCOUNTS.initial, FREE, NOON.astimezone(auckland), account_id="acct_1")
    assert isinstance(granted, CreditsGranted)
    assert granted.period == "2026-11-22"
    assert granted.expires_at == datetime(2026, 11, 23, tzinfo=UTC)
    account = with_allowance(ACCOUNTS.initial)
    midnight_there = datetime(2026, 11, 23, 0, 30, tzinfo=auckland)
    assert due_allowance(account, FREE, midnight_there, account_id="acct_1") == []


def test_unused_allowance_ends_with_its_day():
    account = with_allowance(ACCOUNTS.initial)
    tomorrow = datetime(2026, 11, 23, tzinfo=UTC)
    assert balance(account, tomorrow) == (0, 0, 0)
    assert balance(with_allowance(account, now=tomorrow), tomorrow) == (20, 0, 0)


def test_a_clock_set_back_grants_nothing_twice():
    account = with_allowance(with_allowance(ACCOUNTS.initial), now=NOON + DAY)
    for past in (NOON, NOON - DAY):
        assert due_allowance(account, FREE, past, account_id="acct_1") == []


def test_two_plans_on_one_day_give_the_larger_allowance_and_never_the_sum():
    account = with_allowance(with_allowance(ACCOUNTS.initial, FREE), UNLIMITED)
    assert balance(account) == (1_000, 0, 0)
    assert due_allowance(account, FREE, NOON, account_id="acct_1") == []


def test_the_view_shows_what_today_can_still_claim():
    seen = view(ACCOUNTS.initial, FREE, NOON)
    assert (seen.posted, seen.held, seen.available, seen.claimable) == (20, 0, 20, 20)
    assert [lot.claimable for lot in seen.lots] == [True]
    seen = view(after(with_allowance(ACCOUNTS.initial), hold(3)), FREE, NOON)
    assert (seen.posted, seen.held, seen.available, seen.claimable) == (20, 3, 17, 0)


# Paid periods


def test_a_paid_period_grants_its_credits_once():
    account = subscribed(STARTER)
    assert balance(account) == (2_000, 0, 0)
    for end in (END, END + DAY):
        with pytest.raises(PeriodAlreadyGranted):
            events_of(account, pay(STARTER, START, end))


MONTHS = [months_after(START, count) for count in range(-3, 4)]


@given(st.permutations(range(6)))
def test_periods_are_granted_once_in_whatever_order_they_are_paid(order):
    """Those that others had overtaken too: each brings its credits, and none moves the newest back."""
    account, now = ACCOUNTS.initial, MONTHS[-1]
    for place, month in enumerate(order):
        account = after(account, pay(STARTER, MONTHS[month], MONTHS[month + 1]), now=now)
        newest = account.status.subscription
        assert newest.period_start == max(MONTHS[paid] for paid in order[: place + 1])
        assert (newest.plan, newest.granted, account.usage.granted) == ("starter", 2_000, 2_000)
        assert account.usage.period == newest.period_start.isoformat()
        assert account.available(now) == 2_000 * (place + 1)
    for month in order:
        with pytest.raises(PeriodAlreadyGranted):
            events_of(account, pay(STARTER, MONTHS[month], MONTHS[month + 1]), now)


def test_a_period_that_is_paid_late_lives_as_long_from_its_payment_as_it_would_have_lived():
    late = END + 3 * DAY
    account = after(subscribed(STARTER), pay(STARTER, END, END + 31 * DAY), now=late + 10 * DAY)
    [lot] = [lot for lot in account.lots if lot.terms.granted_at != START]
    assert lot.terms.expires_at == late + 10 * DAY + 31 * DAY + DAY
    assert plan_in_force(account, late + 41 * DAY) is STARTER
    assert plan_in_force(account, late + 42 * DAY) is FREE


def test_a_period_paid_within_the_grace_is_not_late():
    account = after(subscribed(STARTER), pay(STARTER, END, END + 31 * DAY), now=END + DAY)
    assert account.lots[-1].terms.expires_at == END + 32 * DAY
    assert account.status.subscription.lasts_until == END + 31 * DAY


def test_the_days_of_a_daily_plan_that_is_paid_late_come_behind_those_that_are_paid():
    """Two months of Unlimited at once would be one month for the price of two."""
    account = after(ACCOUNTS.initial, pay(UNLIMITED, END, END + 31 * DAY), now=END)
    account = after(account, pay(UNLIMITED, START, END), now=END + 10 * DAY)
    assert plan_in_force(account, END + 61 * DAY - HOUR) is UNLIMITED
    assert plan_in_force(account, END + 62 * DAY) is FREE
    first, second = account.status.schedules
    assert (first.first_day, second.first_day) == (END.date(), (END + 31 * DAY).date())
    assert (first.days, second.days) == (31, 30)


def test_what_is_paid_of_a_subscription_that_is_over_still_brings_what_was_paid_for():
    ended = after(subscribed(UNLIMITED), EndSubscription(subscription_id="sub_1", reason="unpaid"), now=END)
    account = after(ended, pay(UNLIMITED, START - 30 * DAY, START), now=END + DAY)
    assert plan_in_force(account, END + 2 * DAY) is UNLIMITED
    assert view(account, UNLIMITED, END + 2 * DAY).subscription is None, "there is nothing to cancel"
    with pytest.raises(SubscriptionNotFound):
        events_of(account, CancelSubscription(subscription_id="sub_1"))


def test_what_began_before_all_that_is_remembered_counts_as_granted():
    account = ACCOUNTS.initial
    for month in range(STARTS_KEPT + 2):
        start = months_after(START, month)
        account = after(account, pay(STARTER, start, months_after(START, month + 1)), now=start)
    subscription = account.status.subscription
    assert (len(subscription.starts), len(subscription.periods)) == (STARTS_KEPT, 1)
    for start in (START, START + DAY):
        with pytest.raises(PeriodAlreadyGranted):
            events_of(account, pay(STARTER, start, start + DAY))


def test_of_two_subscriptions_both_are_granted_and_the_higher_rank_counts():
    for order in ((STARTER, PRO), (PRO, STARTER)):
        account = ACCOUNTS.initial
        for plan in order:
            account = after(account, pay(plan, subscription_id=f"sub_{plan.name}"), now=START)
        assert balance(account) == (10_000, 0, 0)
        assert plan_in_force(account, NOON) is PRO
        seen = view(account, PRO, NOON)
        assert seen.subscription.subscription_id == "sub_pro"
        assert {one.plan for one in seen.subscriptions} == {"starter", "pro"}
        cancelled = after(account, CancelSubscription(subscription_id="sub_pro"))
        [mine] = [one for one in view(cancelled, PRO, NOON).subscriptions if one.cancels]
        assert mine.subscription_id == "sub_pro"
        ended = after(account, EndSubscription(subscription_id="sub_pro"))
        assert plan_in_force(ended, NOON) is STARTER
        with pytest.raises(PeriodAlreadyGranted):
            events_of(account, pay(STARTER, subscription_id="sub_starter"))


def test_a_period_paid_ahead_begins_when_the_present_one_ends():
    account = after(subscribed(PRO), pay(STARTER, END, END + 31 * DAY))
    assert plan_in_force(account, NOON) is PRO
    assert plan_in_force(account, END) is STARTER
    seen = view(account, PRO, NOON).subscription
    assert (seen.plan, seen.period_end, seen.lasts_until) == ("pro", END, END + 31 * DAY)


def test_a_subscription_that_begins_later_is_shown_and_brings_nothing_yet():
    account = after(subscribed(STARTER), pay(PRO, END, END + 31 * DAY, subscription_id="sub_2"))
    assert plan_in_force(account, NOON) is STARTER
    seen = view(account, STARTER, NOON)
    assert seen.subscription.subscription_id == "sub_1"
    assert [(one.plan, one.period_start) for one in seen.subscriptions] == [("pro", END), ("starter", START)]


def test_who_bought_a_plan_keeps_it_as_it_was_sold():
    smaller = {**PLANS, "unlimited": msgspec.structs.replace(UNLIMITED, credits=100)}
    without = {name: plan for name, plan in PLANS.items() if name != "unlimited"}
    account = subscribed(UNLIMITED)
    for plans in (smaller, without):
        assert plan_in_force(account, NOON, plans).credits == 1_000
    changed = after(subscribed(PRO), change(PRO, UNLIMITED))
    assert plan_in_force(changed, NOON, without).credits == 1_000


def test_a_renewal_grants_again_and_the_old_credits_expire_after_the_grace():
    account = after(subscribed(STARTER), pay(STARTER, END, END + 31 * DAY), now=END + HOUR)
    assert balance(account, END + HOUR) == (4_000, 0, 0)
    assert balance(account, END + DAY) == (2_000, 0, 0)


def test_a_subscriber_has_no_free_allowance_until_the_plan_is_over():
    account = subscribed(STARTER)
    assert plan_in_force(account, END + HOUR) is STARTER
    assert plan_in_force(account, END + DAY) is FREE
    assert plan_in_force(after(account, CancelSubscription(subscription_id="sub_1")), END) is FREE
    assert due_allowance(account, STARTER, NOON, account_id="acct_1") == []


# Changing plans


@pytest.mark.parametrize(
    ("at", "more"),
    [(START, 6_000), (START + 15 * DAY, 3_000), (END - timedelta(microseconds=1), 0), (END, 0)],
)
def test_an_upgrade_grants_the_difference_for_the_remaining_time_rounded_down(at, more):
    account = after(subscribed(STARTER), change(STARTER, PRO), now=at)
    granted = sum(lot.terms.credits for lot in account.lots)
    assert granted == 2_000 + more
    assert plan_in_force(account, max(START, at - timedelta(microseconds=1))) is PRO


def test_an_upgrade_after_a_third_rounds_down():
    account = subscribed(STARTER)
    [_, granted] = events_of(account, change(STARTER, PRO), START + timedelta(days=10, seconds=1))
    assert granted.credits == 6_000 * (20 * 86_400 - 1) // (30 * 86_400)


@given(st.lists(st.tuples(st.sampled_from([STARTER, PRO]), st.integers(0, 30)), max_size=12))
def test_cycling_plans_never_yields_more_than_the_larger_one(changes):
    account = subscribed(STARTER)
    for target, day in sorted(changes, key=lambda c: c[1]):
        now = START + day * DAY
        current = PLANS[account.status.subscription.plan]
        command = ChangePlan(
            subscription_id="sub_1", current=current, target=target, lot_id=f"lot_{len(account.lots)}x"
        )
        account = after(account, command, now=now)
    assert sum(lot.terms.credits for lot in account.lots) <= PRO.credits


def test_a_downgrade_waits_for_the_end_of_the_period():
    account = subscribed(PRO)
    [event] = events_of(account, change(PRO, STARTER))
    assert isinstance(event, DowngradeScheduled)
    assert event.at == END
    account = after(account, change(PRO, STARTER))
    assert plan_in_force(account, NOON) is PRO
    assert events_of(account, change(PRO, STARTER)) == []
    account = after(account, pay(STARTER, END, END + 31 * DAY), now=END)
    assert plan_in_force(account, END) is STARTER
    assert account.status.subscription.next_plan == ""


def test_a_downgrade_chosen_again_takes_a_cancellation_back():
    account = after(subscribed(PRO), change(PRO, STARTER), CancelSubscription(subscription_id="sub_1"))
    account = after(account, change(PRO, STARTER))
    assert (account.status.subscription.next_plan, account.status.subscription.cancels) == (
        "starter",
        False,
    )


def test_choosing_the_present_plan_again_takes_a_downgrade_back_and_grants_nothing():
    account = after(subscribed(PRO), change(PRO, STARTER))
    back = after(account, change(PRO, PRO))
    assert back.status.subscription.next_plan == ""
    assert back.lots == account.lots


def test_cancelling_ends_with_the_period_and_can_be_taken_back():
    cancel, resume = CancelSubscription(subscription_id="sub_1"), ResumeSubscription(subscription_id="sub_1")
    account = after(subscribed(PRO), cancel)
    assert isinstance(events_of(subscribed(PRO), cancel)[0], CancellationScheduled)
    assert events_of(account, cancel) == []
    assert view(account, PRO, NOON).subscription.cancels
    assert after(account, resume) == subscribed(PRO)
    assert events_of(subscribed(PRO), resume) == []


def test_a_subscription_that_ended_is_over_at_once_and_unknown_afterwards():
    account = after(subscribed(PRO), EndSubscription(subscription_id="sub_1", reason="unpaid"))
    assert plan_in_force(account, NOON) is FREE
    for command in (
        CancelSubscription(subscription_id="sub_1"),
        change(PRO, STARTER),
        EndSubscription(subscription_id="sub_1"),
    ):
        with pytest.raises(SubscriptionNotFound):
            events_of(account, command)
    with pytest.raises(PeriodAlreadyGranted):
        events_of(account, pay(PRO))


def test_what_was_granted_on_another_day_does_not_count_towards_todays_allowance():
    account = with_allowance(with_allowance(ACCOUNTS.initial), now=NOON + DAY)
    assert (account.status.allowance_day, account.status.allowance_granted) == ("2026-11-23", 20)
    assert due_allowance(account, UNLIMITED, NOON + DAY, account_id="acct_1")[0].credits == 980
