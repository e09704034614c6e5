"""Sentences of the ledger's terms that no other test shows alone. `docs/ledger-proof.md` lists all of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import msgspec
import pytest

from generation.domain.requests import price_of
from ledger.clock import ManualClock
from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import CaptureHold, EarnRevenue, ExpireHold, ExpireLots, PayPeriod, ReleaseHold
from ledger.domain.events import EarningScheduled, UsageWarned
from ledger.domain.granting import due_allowance, pack_grant
from ledger.domain.lots import PRIORITY, Source
from ledger.domain.refusals import HoldNotOpen, PeriodAlreadyGranted
from ledger.domain.state import Account
from ledger.domain.view import plan_in_force
from ledger.errors import IdempotencyConflict
from ledger.identifiers import Identifiers
from ledger.plans import NO_PLANS, PACKS, PLANS
from ledger.service import Ledger
from ledger.testing.memory_log import MemoryLog
from tests.ledger.subscribing import change, pay, subscribed, use
from tests.ledger.test_reversals import bought, reverse
from tests.ledger.world import (
    DAY,
    HOUR,
    MINUTE,
    NOON,
    after,
    apply,
    balance,
    events_of,
    funded,
    grant,
    hold,
    paid,
)

FREE, STARTER, PRO, UNLIMITED = (PLANS[name] for name in ("free", "starter", "pro", "unlimited"))
TOKYO, HONOLULU = timezone(timedelta(hours=9)), timezone(timedelta(hours=-10))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# Holds


@pytest.mark.parametrize("holds_since", [0, 1_000])
def test_a_capture_of_a_hold_long_closed_is_refused_and_the_state_does_not_remember_it(
    holds_since: int,
) -> None:
    account = after(funded(2_000), hold(1, "old"), CaptureHold(hold_id="old"))
    for number in range(holds_since):
        name = f"h{number}"
        account = after(account, hold(1, name), CaptureHold(hold_id=name))
    for command in (CaptureHold(hold_id="old"), ReleaseHold(hold_id="old"), ExpireHold(hold_id="old")):
        with pytest.raises(HoldNotOpen) as refused:
            events_of(account, command, NOON + 400 * DAY)
        assert refused.value.details == {"hold_id": "old"}
    assert b"old" not in msgspec.json.encode(account)
    assert len(msgspec.json.encode(account)) < 400


def test_a_deadline_is_the_first_instant_at_which_a_capture_is_late() -> None:
    account = after(funded(5), hold(1, deadline=NOON + MINUTE))
    assert (
        after(account, CaptureHold(hold_id="h1"), now=NOON + MINUTE - timedelta(microseconds=1)).held() == 0
    )
    assert [e.code for e in late_refusals(account, NOON + MINUTE)] == ["hold_past_deadline"]


def late_refusals(account: Account, now: datetime) -> list[Exception]:
    with pytest.raises(Exception) as refused:
        events_of(account, CaptureHold(hold_id="h1"), now)
    return [refused.value]


# Periods: time zones, month ends, leap days, clock steps


@pytest.mark.parametrize(
    ("before", "then"),
    [
        ("2028-02-28T23:59:59", "2028-02-29T00:00:00"),
        ("2028-02-29T23:59:59", "2028-03-01T00:00:00"),
        ("2027-02-28T23:59:59", "2027-03-01T00:00:00"),
        ("2026-12-31T23:59:59", "2027-01-01T00:00:00"),
        ("2026-03-29T23:59:59", "2026-03-30T00:00:00"),
    ],
)
def test_an_allowance_lasts_from_one_utc_midnight_to_the_next_on_every_calendar_day(
    before: str, then: str
) -> None:
    account = ACCOUNTS.initial
    for now in (at(before), at(then)):
        for zone in (UTC, TOKYO, HONOLULU):
            account = apply(account, due_allowance(account, FREE, now.astimezone(zone), account_id="acct_1"))
        assert account.available(now) == 20
    assert account.available(at(then) - timedelta(microseconds=1)) == 40, "one of each day, and no more"


def test_a_paid_period_is_granted_once_whatever_time_zone_its_start_is_told_in() -> None:
    account = subscribed(STARTER)
    for zone in (TOKYO, HONOLULU):
        again = pay(STARTER, datetime(2026, 11, 1, tzinfo=UTC).astimezone(zone))
        with pytest.raises(PeriodAlreadyGranted):
            events_of(account, again)


def test_months_that_end_on_a_leap_day_renew_without_a_gap_or_an_overlap() -> None:
    ends = [at("2027-12-31"), at("2028-01-31"), at("2028-02-29"), at("2028-03-31"), at("2028-04-30")]
    account = ACCOUNTS.initial
    for start, end in pairwise(ends):
        account = after(account, pay(STARTER, start, end), now=start)
        assert plan_in_force(account, end - timedelta(microseconds=1)) is STARTER
    assert sum(lot.terms.credits for lot in account.lots) == 4 * 2_000
    assert account.available(at("2028-03-31")) == 4_000, "two of them are over, one of those in its grace"


def test_a_clock_set_back_earns_nothing_twice_and_forgets_nothing() -> None:
    account = subscribed(UNLIMITED)
    start = datetime(2026, 11, 1, tzinfo=UTC)
    earned = 0
    for now in (
        start + 3 * DAY,
        start + DAY,
        start - DAY,
        start + 5 * DAY,
        start + 4 * DAY,
        start + 40 * DAY,
    ):
        events = events_of(account, EarnRevenue(), now)
        earned += sum(event.worth.net_minor for event in events)
        account = apply(account, events)
    assert earned == 4_000


def test_a_leap_month_of_unlimited_is_earned_over_its_29_days() -> None:
    command = pay(UNLIMITED, at("2028-02-01"), at("2028-03-01"))
    _, scheduled = events_of(ACCOUNTS.initial, command, at("2028-02-01"))
    assert isinstance(scheduled, EarningScheduled)
    account = after(ACCOUNTS.initial, command, now=at("2028-02-01"))
    days = events_of(account, EarnRevenue(), at("2028-03-01"))
    assert [day.ordinal for day in days] == list(range(1, 30))
    assert sum(day.worth.net_minor for day in days) == 4_000
    assert {day.worth.net_minor for day in days} == {137, 138}


# Plans


def test_a_period_of_months_warns_at_80_and_100_percent_and_again_after_an_upgrade() -> None:
    account = subscribed(STARTER)
    account, marks = use(account, 1_600)
    assert marks == [80]
    account, marks = use(account, 400)
    assert marks == [100]
    upgraded = events_of(account, change(STARTER, PRO), NOON)
    account = apply(account, upgraded)
    larger = 2_000 + upgraded[1].credits
    missing = -(-larger * 80 // 100) - 2_000
    account, marks = use(account, missing - 1)
    assert marks == []
    account, marks = use(account, 1)
    assert marks == [80]


def test_one_capture_that_crosses_both_marks_records_both_in_order() -> None:
    account = after(subscribed(STARTER), hold(2_000))
    *_, first, second = events_of(account, CaptureHold(hold_id="h1"))
    assert isinstance(first, UsageWarned)
    assert isinstance(second, UsageWarned)
    assert (first.percent, second.percent) == (80, 100)


def test_going_up_by_way_of_cancelling_and_resuming_grants_nothing_more() -> None:
    account = subscribed(STARTER)
    for _ in range(5):
        for current, target in ((STARTER, PRO), (PRO, STARTER), (PRO, PRO)):
            plan = PLANS[account.status.subscription.plan] if account.status.subscription else current
            account = after(account, change(plan, target), now=datetime(2026, 11, 1, tzinfo=UTC))
    assert sum(lot.terms.credits for lot in account.lots) == 8_000


def test_a_pass_is_used_before_what_lasts_and_is_over_after_its_time() -> None:
    account = after(
        ACCOUNTS.initial,
        grant(5, "lot_pack", money=paid(5)),
        grant(3, "lot_pass", money=paid(3, payment_id="pay_2"), source=Source.PASS, expires_at=NOON + HOUR),
    )
    [held] = events_of(account, hold(4))
    assert [(portion.lot_id, portion.credits) for portion in held.slices] == [
        ("lot_pass", 3),
        ("lot_pack", 1),
    ]
    assert account.available(NOON + HOUR) == 5
    assert PRIORITY[Source.PASS] < PRIORITY[Source.SUBSCRIPTION] < PRIORITY[Source.PAYMENT]


@pytest.mark.parametrize(("name", "lasts"), [("session", 4 * HOUR), ("hour", HOUR)])
def test_a_session_or_an_hour_is_bought_like_a_pack_and_is_over_in_its_time(
    name: str, lasts: timedelta
) -> None:
    """With its breakage booked; the pack beside it stays."""
    bought_pass, pack = PACKS[name], PACKS["pack_500"]
    account = after(
        ACCOUNTS.initial,
        pack_grant(pack, "lot_pack", paid(pack.price_usd_minor), NOON),
        pack_grant(bought_pass, "lot_pass", paid(bought_pass.price_usd_minor, payment_id="pay_2"), NOON),
    )
    assert [(lot.terms.source, lot.terms.expires_at) for lot in account.lots] == [
        ("pass", NOON + lasts),
        ("payment", None),
    ]
    account = after(account, hold(50), CaptureHold(hold_id="h1"))
    assert account.available(NOON + lasts - timedelta(microseconds=1)) == 450 + bought_pass.credits
    assert account.available(NOON + lasts) == 500
    [lapsed] = events_of(account, ExpireLots(), NOON + lasts)
    assert lapsed.expired.credits == bought_pass.credits - 50
    share = bought_pass.price_usd_minor * 50 // bought_pass.credits
    assert lapsed.expired.worth.net_minor == bought_pass.price_usd_minor - share
    assert account.usage == ACCOUNTS.initial.usage, "a pass has no marks: it is not a plan's allowance"


def test_prices_of_larger_work_come_from_one_function() -> None:
    """A credit is one image at standard size, and a started megapixel more is a credit more."""
    sides = [(64, 64), (1024, 1024), (1025, 1024), (2048, 1024), (2048, 2048)]
    assert [price_of(*side) for side in sides] == [1, 1, 2, 2, 4]


# Debts


@pytest.mark.parametrize("source", sorted(set(Source) - {Source.ALLOWANCE}))
def test_whatever_its_source_only_a_grant_with_money_behind_it_reduces_a_debt(source: Source) -> None:
    owing = after(ACCOUNTS.initial, bought(), hold(10), CaptureHold(hold_id="h1"), reverse(10))
    assert after(owing, grant(4, "lot_2", source=source)).debt == 10
    assert after(owing, grant(4, "lot_2", source=source, money=paid(4, payment_id="pay_2"))).debt == 6


def test_of_a_lot_taken_back_free_credits_go_first_then_held_ones_then_a_debt_is_made() -> None:
    account = after(ACCOUNTS.initial, bought(), hold(1, "spent"), CaptureHold(hold_id="spent"), hold(4))
    steps = [(5, (4, 4, 0)), (7, (4, 4, 0)), (9, (4, 4, 0)), (10, (4, 4, 1))]
    for amount, expected in steps:
        assert balance(after(account, reverse(amount))) == expected
    assert balance(after(account, reverse(9), ReleaseHold(hold_id="h1"))) == (0, 0, 0)
    assert balance(after(account, reverse(10), CaptureHold(hold_id="h1"))) == (0, 0, 5)


# Reading and repeating


def a_ledger() -> tuple[Ledger, ManualClock, Identifiers]:
    clock = ManualClock(NOON)
    log, ids = MemoryLog([ACCOUNTS], clock), Identifiers(clock)
    return Ledger(log, log, clock=clock, identifiers=ids, plans=NO_PLANS), clock, ids


async def test_the_lots_of_the_past_are_as_readable_as_its_balance() -> None:
    ledger, clock, _ = a_ledger()
    account = ledger.open()
    first = await ledger.grant(account, 5, expires_at=NOON + DAY)
    clock.advance(HOUR)
    second = await ledger.grant(account, 7)
    held = await ledger.hold(account, 6, job_id="job_1", deadline=NOON + 2 * HOUR)
    await ledger.capture(account, held)
    now = {lot.lot_id: (lot.left, lot.spent) for lot in (await ledger.account(account)).lots}
    then = {lot.lot_id: lot.left for lot in (await ledger.account(account, at_time=NOON)).lots}
    between = await ledger.account(account, at_position=3)
    assert now == {second: (6, 1)}
    assert then == {first: 5}
    assert {lot.lot_id: (lot.left, lot.held) for lot in between.lots} == {first: (0, 5), second: (6, 1)}


async def test_a_key_is_known_for_ever() -> None:
    ledger, clock, ids = a_ledger()
    account, key = ledger.open(), ids.command()
    lot = await ledger.grant(account, 5, key=key)
    for _ in range(500):
        await ledger.grant(account, 1)
    clock.advance(3_650 * DAY)
    assert await ledger.grant(account, 5, key=key) == lot
    with pytest.raises(IdempotencyConflict):
        await ledger.grant(account, 6, key=key)
    assert (await ledger.account(account)).posted == 505


def test_a_period_that_was_paid_in_the_past_is_granted_whole_and_lasts_as_long_from_then() -> None:
    """Whoever pays late has paid for as many days as whoever pays in time."""
    start = datetime(2026, 11, 1, tzinfo=UTC)
    command: PayPeriod = pay(STARTER)
    for reported_by, over in ((start, start + 31 * DAY), (start + 20 * DAY, start + 51 * DAY)):
        account = after(ACCOUNTS.initial, command, now=reported_by)
        assert account.available(over - MINUTE) == 2_000
        assert account.available(over) == 0
