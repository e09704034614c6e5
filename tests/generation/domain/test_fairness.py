"""Prices, turns among people, and the free images of a network. Pure arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from generation.domain.fairness import FREE, PAID, PRIORITY, SLOT, Tier, Turn, turn_of
from generation.domain.funding import FundingOrder
from generation.domain.quotas import NetworkQuota, exhausted
from generation.domain.requests import GenerationRequest, Sketch, price_of
from ledger.identifiers import AccountId, CommandKey, HoldId, JobId

TONIGHT = datetime(2026, 5, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("width", "height", "credits_"),
    [
        (16, 16, 1),
        (1024, 1024, 1),
        (1024, 1040, 2),
        (2048, 1024, 2),
        (2048, 2048, 4),
        (2048, 2064, 5),
    ],
)
def test_an_image_costs_one_credit_per_started_megapixel(width: int, height: int, credits_: int) -> None:
    assert price_of(width, height) == credits_
    assert type(price_of(width, height)) is int


def test_what_is_to_be_paid_for_one_image_is_its_price_by_the_way_asked_for() -> None:
    asked = GenerationRequest(
        key=CommandKey("key"),
        job_id=JobId("job_1"),
        hold_id=HoldId("hold_1"),
        account_id=AccountId("acct_1"),
        tier=FREE,
        prompt="a llama",
        sketch=Sketch(b"", "s", 2048, 1024),
        seed=1,
        strength_permille=500,
        funding="lightning",
    )
    assert asked.order() == FundingOrder(
        job_id=JobId("job_1"), account_id=AccountId("acct_1"), method="lightning", price_credits=2
    )


# --- turns ---


@pytest.mark.parametrize(
    ("tier", "rank", "finish"),
    [
        (FREE, 50 * SLOT, 53 * SLOT),
        (PAID, 48 * SLOT, 51 * SLOT + SLOT // 2),
        (PRIORITY, 30 * SLOT, 50 * SLOT + 3 * SLOT // 4),
        (Tier(weight=7, bonus_slots=0, in_flight_max=1), 50 * SLOT, 50 * SLOT + 3 * SLOT // 7),
    ],
)
def test_a_turn_is_at_the_queues_time_less_the_tiers_bonus_and_moves_its_owner_on_by_weight(
    tier: Tier, rank: int, finish: int
) -> None:
    assert turn_of(50 * SLOT, 0, 3, tier) == (Turn(rank, 50 * SLOT), finish)
    assert type(turn_of(50 * SLOT, 0, 3, tier)[1]) is int


def test_whoever_has_jobs_waiting_stands_behind_them() -> None:
    first, finish = turn_of(10, 0, 1, FREE)
    second, _ = turn_of(10, finish, 1, FREE)
    newcomer, _ = turn_of(10, 0, 1, FREE)
    assert second == Turn(10 + SLOT, 10 + SLOT)
    assert newcomer == first < second


def test_a_job_may_stand_some_turns_behind_or_just_before_another() -> None:
    turn = Turn(rank=100, tag=200)
    assert turn.behind(3) == Turn(100 + 3 * SLOT, 200 + 3 * SLOT)
    assert turn.just_before() == Turn(99, 199)


# --- the free images of a network ---


def quota(key: str, cap: int) -> NetworkQuota:
    return NetworkQuota(key=key, cap=cap, expires_at=TONIGHT)


@pytest.mark.parametrize(
    ("used", "price", "is_over"), [(0, 5, False), (4, 1, False), (4, 2, True), (5, 1, True)]
)
def test_a_networks_free_images_last_up_to_its_cap(used: int, price: int, is_over: bool) -> None:
    assert exhausted([quota("a", 5)], {"a": used}, price) == (5 if is_over else None)


def test_the_first_network_that_has_none_left_is_the_one_named() -> None:
    quotas = [quota("wide", 100), quota("narrow", 3), quota("narrower", 2)]
    assert exhausted(quotas, {"narrow": 3, "narrower": 2}, 1) == 3
    assert exhausted(quotas, {"narrow": 2, "narrower": 2}, 1) == 2
    assert exhausted(quotas, {}, 1) is None
    assert exhausted([quota("new", 0)], {}, 1) == 0
    assert exhausted([], {}, 9) is None
