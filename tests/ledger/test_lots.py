from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.account import ACCOUNTS
from ledger.domain.commands import CaptureHold, ExpireHold, ExpireLots, ReleaseHold
from ledger.domain.consideration import NOTHING, Slice, Worth, cut_all, next_part
from ledger.domain.events import CreditsHeld, CreditsWithdrawn, HoldCaptured, HoldReleased, LotExpired
from ledger.domain.lots import Source
from ledger.domain.refusals import ExpiryPassed, InsufficientCredits, InvalidAmount, LotAlreadyGranted
from tests.ledger.world import (
    DAY,
    DEADLINE,
    MINUTE,
    NOON,
    after,
    balance,
    events_of,
    funded,
    grant,
    hold,
    paid,
)


def lots_used(amount: int, *grants) -> list[tuple[str, int]]:
    [event] = events_of(after(ACCOUNTS.initial, *grants), hold(amount))
    assert isinstance(event, CreditsHeld)
    return [(portion.lot_id, portion.credits) for portion in event.slices]


def test_a_lower_priority_number_is_used_first():
    assert lots_used(6, grant(5, "late", priority=2), grant(5, "soon", priority=1)) == [
        ("soon", 5),
        ("late", 1),
    ]


def test_among_equals_what_expires_first_is_used_first():
    assert lots_used(6, grant(5, "never"), grant(5, "soon", expires_at=NOON + DAY)) == [
        ("soon", 5),
        ("never", 1),
    ]


def test_among_equals_what_was_granted_first_is_used_first():
    older = after(ACCOUNTS.initial, grant(5, "z_older"))
    both = after(older, grant(5, "a_newer"), now=NOON + MINUTE)
    [event] = events_of(both, hold(6))
    assert [portion.lot_id for portion in event.slices] == ["z_older", "a_newer"]


def test_free_credits_are_used_before_bought_ones():
    bought, promised = grant(5, "bought", money=paid(500)), grant(5, "promised", source=Source.PROMOTION)
    assert lots_used(6, bought, promised) == [("promised", 5), ("bought", 1)]


def test_a_lot_can_be_reserved_for_the_image_it_paid_for():
    account = after(
        ACCOUNTS.initial, grant(5, "free", source=Source.PROMOTION), grant(1, "bought", money=paid(1))
    )
    [event] = events_of(account, hold(1, only_lot="bought"))
    assert event.slices[0].lot_id == "bought"
    with pytest.raises(InsufficientCredits):
        events_of(account, hold(2, only_lot="bought"))


def test_each_used_credit_carries_its_part_of_the_money():
    account = funded(2_000, paid(800))
    earned = []
    for _ in range(2_000):
        held = after(account, hold(1))
        [captured] = events_of(held, CaptureHold(hold_id="h1"))
        earned.append(captured.slices[0].worth.net_minor)
        account = after(held, CaptureHold(hold_id="h1"))
    assert sum(earned) == 800
    assert all(sum(earned[:used]) == 800 * used // 2_000 for used in range(2_001))


def test_a_lot_that_expired_cannot_be_held_even_before_it_is_booked():
    account = after(ACCOUNTS.initial, grant(5, expires_at=NOON + MINUTE))
    assert balance(account, NOON + MINUTE) == (0, 0, 0)
    with pytest.raises(InsufficientCredits):
        events_of(account, hold(1, deadline=NOON + DAY), NOON + MINUTE)


def test_the_breakage_of_an_expired_lot_is_booked_once_with_its_money():
    account = after(ACCOUNTS.initial, grant(5, money=paid(500), expires_at=NOON + MINUTE))
    assert events_of(account, ExpireLots()) == []
    [event] = events_of(account, ExpireLots(), NOON + MINUTE)
    assert isinstance(event, LotExpired)
    assert (event.expired.credits, event.expired.worth.net_minor) == (5, 500)
    assert events_of(after(account, ExpireLots(), now=NOON + MINUTE), ExpireLots(), NOON + DAY) == []


def test_booking_breakage_is_bounded():
    account = ACCOUNTS.initial
    for number in range(5):
        account = after(account, grant(1, f"lot_{number}", expires_at=NOON + MINUTE))
    assert len(events_of(account, ExpireLots(limit=3), NOON + DAY)) == 3


def test_a_held_slice_outlives_its_lot_and_counts_when_it_is_captured():
    account = after(ACCOUNTS.initial, grant(5, money=paid(500), expires_at=NOON + MINUTE), hold(2))
    account = after(account, ExpireLots(), now=NOON + MINUTE)
    assert balance(account, NOON + MINUTE) == (2, 2, 0)
    account = after(account, CaptureHold(hold_id="h1"), now=NOON + 2 * MINUTE)
    assert account.lots == ()


def test_a_held_slice_released_after_its_lot_expired_expires_then():
    account = after(ACCOUNTS.initial, grant(5, money=paid(500), expires_at=NOON + MINUTE), hold(2))
    account = after(account, ExpireLots(), now=NOON + MINUTE)
    released, lapsed = events_of(account, ReleaseHold(hold_id="h1"), NOON + 2 * MINUTE)
    assert isinstance(released, HoldReleased)
    assert isinstance(lapsed, LotExpired)
    assert (lapsed.expired.credits, lapsed.expired.worth.net_minor) == (2, 200)
    account = after(account, ReleaseHold(hold_id="h1"), now=NOON + 2 * MINUTE)
    assert account.lots == ()


def test_a_hold_expiring_after_its_lot_loses_the_credits_too():
    account = after(ACCOUNTS.initial, grant(5, expires_at=NOON + MINUTE), hold(2))
    account = after(account, ExpireHold(hold_id="h1"), now=DEADLINE)
    assert balance(account, DEADLINE) == (0, 0, 0)


def test_a_used_up_lot_leaves_the_state():
    account = after(funded(3), hold(3), CaptureHold(hold_id="h1"))
    assert account.lots == ()


def test_a_lot_is_granted_once():
    with pytest.raises(LotAlreadyGranted):
        events_of(funded(), grant(5))
    used_up = after(funded(3, paid(3)), hold(3), CaptureHold(hold_id="h1"))
    with pytest.raises(LotAlreadyGranted):
        events_of(used_up, grant(3, money=paid(3)))


@pytest.mark.parametrize("amount", [0, -1, 10**13])
def test_a_grant_needs_a_sensible_amount(amount):
    with pytest.raises(InvalidAmount):
        events_of(ACCOUNTS.initial, grant(amount))


def test_a_grant_that_is_over_before_it_begins_is_refused():
    with pytest.raises(ExpiryPassed):
        events_of(ACCOUNTS.initial, grant(1, expires_at=NOON))


worths = st.builds(Worth, *[st.integers(0, 10**15)] * 5)


@given(worths, st.lists(st.integers(1, 1_000), min_size=1, max_size=30))
def test_the_parts_of_a_consideration_sum_to_the_whole_however_it_is_cut(whole, amounts):
    granted, taken, out = sum(amounts), 0, NOTHING
    for amount in amounts:
        part = next_part(whole, out, taken, amount, granted)
        assert not part.is_negative_somewhere()
        taken, out = taken + amount, out + part
        assert out.net_minor == whole.net_minor * taken // granted
    assert out == whole


@given(worths, st.lists(st.integers(1, 50), min_size=1, max_size=5), st.data())
def test_cutting_slices_loses_neither_credits_nor_worth(worth, amounts, data):
    slices = tuple(
        Slice(f"lot_{i}", amount, "payment", "USD", "card", worth) for i, amount in enumerate(amounts)
    )
    head, tail = cut_all(slices, data.draw(st.integers(0, sum(amounts))))
    assert sum(portion.credits for portion in (*head, *tail)) == sum(amounts)
    total = NOTHING
    for portion in (*head, *tail):
        assert not portion.worth.is_negative_somewhere()
        total = total + portion.worth
    assert total == Worth(
        *[
            field * len(amounts)
            for field in (
                worth.net_minor,
                worth.tax_minor,
                worth.fee_minor,
                worth.usd_minor,
                worth.tax_usd_minor,
            )
        ]
    )


def test_capturing_a_part_keeps_every_unit_of_money():
    account = after(funded(3, paid(100)), hold(3))
    [captured] = events_of(account, CaptureHold(hold_id="h1", credits=1))
    assert isinstance(captured, HoldCaptured)
    assert (captured.slices[0].worth.net_minor, captured.returned[0].worth.net_minor) == (33, 67)


def test_a_fact_about_a_lot_that_nobody_remembers_is_taken_and_changes_no_lot():
    gone = Slice("lot_gone", 3, "promotion")
    fact = CreditsWithdrawn(adjustment_id="a", credits=3, slices=(gone,), actor="o", reason="x")
    account = funded(10)
    assert ACCOUNTS.evolve(account, fact) == account
