"""What an automatic top-up does next: pure, from how it stands and what is seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.plans import PACKS
from processes.auto_topups.deciding import (
    HARD,
    WAITS,
    AutoState,
    AutoTopup,
    OffReason,
    charge_ended,
    looked,
    method_seen,
    off,
    page_seen,
)
from rails.domain.topup import TopupState
from rails.saved import AUTHENTICATION, SavedMethod, SavingState

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
PACK = PACKS["pack_500"]


def a_topup(**changes: object) -> AutoTopup:
    given_ = AutoTopup(
        account_id="acct_1",
        rail="card",
        state=AutoState.ON,
        reason="",
        pack=PACK,
        threshold=50,
        limit_minor=1_000,
        consent="yes",
        consented_at=NOW,
        saving_id="saving_1",
        method="cus/pm",
        method_label="Visa •••• 4242",
        month="2026-11",
        not_before=NOW,
        due_at=NOW,
    )
    return msgspec.structs.replace(given_, **changes)


def seen(state: SavingState, expires_at: datetime | None = None) -> SavedMethod:
    return SavedMethod(state=state, method="cus/pm2", label="Visa •••• 0001", expires_at=expires_at)


def test_a_balance_below_the_threshold_begins_one_charge_with_its_key() -> None:
    then, letter = looked(a_topup(), 49, PACK, "cmd_1", NOW)
    assert (then.state, then.charge_key, then.charged_minor, letter) == (
        AutoState.CHARGING,
        "cmd_1",
        500,
        None,
    )


@pytest.mark.parametrize("available", [50, 51, 10_000])
def test_a_balance_at_the_threshold_or_above_begins_none_and_forgives_declines(available: int) -> None:
    then, letter = looked(a_topup(state=AutoState.WAITING, declines=2), available, PACK, "cmd_1", NOW)
    assert (then.state, then.declines, then.charge_key, letter) == (AutoState.ON, 0, "", None)
    assert then.not_before > NOW


def test_the_limit_of_a_month_stops_it_until_the_next_one_with_one_letter() -> None:
    full = a_topup(charged_minor=600)
    then, letter = looked(full, 0, PACK, "cmd_1", NOW)
    december = datetime(2026, 12, 1, tzinfo=UTC)
    assert (then.state, then.due_at, then.charged_minor) == (AutoState.LIMITED, december, 600)
    assert letter is not None
    assert letter.reason == "limit"
    again, letter = looked(then, 0, PACK, "cmd_1", NOW)
    assert (again.state, letter) == (AutoState.LIMITED, None)
    fresh, _ = looked(again, 0, PACK, "cmd_2", december)
    assert (fresh.state, fresh.month, fresh.charged_minor) == (AutoState.CHARGING, "2026-12", 500)


@given(st.lists(st.sampled_from(["paid", "declined", "asked", "away"]), max_size=30), st.integers(500, 3_000))
def test_a_month_never_charges_more_than_its_limit(outcomes: list[str], limit: int) -> None:
    record, charged = a_topup(limit_minor=limit), 0
    for number, outcome in enumerate(outcomes):
        record = looked(record, 0, PACK, f"cmd_{number}", NOW).then
        if record.state is not AutoState.CHARGING:
            break
        state, code = {
            "paid": (TopupState.PAID, None),
            "declined": (TopupState.DECLINED, "card_declined"),
            "asked": (TopupState.DECLINED, AUTHENTICATION),
            "away": (TopupState.EXPIRED, None),
        }[outcome]
        step = charge_ended(record, state, code, NOW)
        assert step is not None
        charged += PACK.price_usd_minor * (outcome == "paid")
        record = step.then
        assert charged == record.charged_minor <= limit
        if record.is_off:
            break


def test_a_decline_waits_longer_each_time_and_the_third_turns_it_off() -> None:
    record, letters = a_topup(state=AutoState.CHARGING, charged_minor=500), []
    for _ in range(3):
        step = charge_ended(record, TopupState.DECLINED, "card_declined", NOW)
        assert step is not None
        letters.append(step.letter)
        record = msgspec.structs.replace(step.then, charged_minor=500)
    assert [getattr(letter, "next_attempt_at", None) for letter in letters] == [
        *(NOW + w for w in WAITS),
        None,
    ]
    assert (record.state, record.reason) == (AutoState.OFF, "declined")


@pytest.mark.parametrize("code", sorted(HARD))
def test_a_card_that_will_never_work_turns_it_off_at_once(code: str) -> None:
    step = charge_ended(a_topup(state=AutoState.CHARGING), TopupState.DECLINED, code, NOW)
    assert step is not None
    assert (step.then.state, step.then.reason) == (AutoState.OFF, OffReason.DECLINED)


def test_a_bank_that_wants_its_customer_makes_it_wait_for_them_and_counts_as_no_charge() -> None:
    charging = a_topup(state=AutoState.CHARGING, charged_minor=500)
    step = charge_ended(charging, TopupState.DECLINED, AUTHENTICATION, NOW)
    assert step is not None
    assert (step.then.state, step.then.charged_minor, step.then.declines) == (AutoState.CONFIRMING, 0, 0)
    assert step.letter is not None
    assert step.letter.reason == "confirm"
    confirmed = page_seen(step.then, seen(SavingState.SAVED), NOW)
    assert confirmed is not None
    assert (confirmed.then.state, confirmed.then.method) == (AutoState.ON, "cus/pm2")


@pytest.mark.parametrize(
    "state", [TopupState.OPENING, TopupState.WAITING, TopupState.SEEN, TopupState.UNDERPAID]
)
def test_while_nobody_knows_how_it_ended_nothing_else_is_charged(state: TopupState) -> None:
    assert charge_ended(a_topup(state=AutoState.CHARGING), state, None, NOW) is None


def test_money_that_came_and_is_disputed_already_was_charged() -> None:
    step = charge_ended(a_topup(state=AutoState.CHARGING, charged_minor=500), TopupState.DISPUTED, None, NOW)
    assert step is not None
    assert (step.then.state, step.then.charged_minor) == (AutoState.ON, 500)


def test_a_page_that_is_left_turns_off_what_was_never_on_and_leaves_the_rest() -> None:
    begun = page_seen(a_topup(state=AutoState.SAVING, method=None), seen(SavingState.CLOSED), NOW)
    assert begun is not None
    assert (begun.then.reason, begun.letter) == (OffReason.NOT_SAVED, None)
    other = page_seen(a_topup(page_reference="cs_1"), seen(SavingState.CLOSED), NOW)
    assert other is not None
    assert (other.then.state, other.then.page_reference) == (AutoState.ON, None)
    assert page_seen(a_topup(), seen(SavingState.OPEN), NOW) is None


@pytest.mark.parametrize(
    ("state", "expires_at", "reason"),
    [
        (SavingState.GONE, None, OffReason.CARD_REMOVED),
        (SavingState.SAVED, NOW, OffReason.CARD_EXPIRED),
        (SavingState.SAVED, NOW + timedelta(days=1), None),
        (SavingState.SAVED, None, None),
    ],
)
def test_a_card_that_is_gone_or_over_turns_it_off(
    state: SavingState, expires_at: datetime | None, reason: OffReason | None
) -> None:
    step = method_seen(a_topup(), seen(state, expires_at), NOW)
    assert (None if step is None else step.then.reason) == reason
    assert step is None or step.letter is not None


def test_a_pack_that_is_sold_otherwise_is_not_bought() -> None:
    dearer = msgspec.structs.replace(PACK, price_usd_minor=600)
    for sold in (dearer, None):
        step = looked(a_topup(), 0, sold, "cmd_1", NOW)
        assert (step.then.reason, step.then.charge_key) == (OffReason.PRICE_CHANGED, "")


def test_whoever_turns_it_off_gets_no_letter_and_nobody_gets_two() -> None:
    assert off(a_topup(), OffReason.PERSON).letter is None
    assert off(off(a_topup(), OffReason.DISPUTED).then, OffReason.REFUNDED).letter is None
