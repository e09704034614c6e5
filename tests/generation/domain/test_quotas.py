"""How many free images a network still has: every prefix must have them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from generation.domain.quotas import NetworkQuota, exhausted

MIDNIGHT = datetime(2026, 5, 2, tzinfo=UTC)
NARROW = NetworkQuota(key="narrow", cap=3, expires_at=MIDNIGHT)
WIDE = NetworkQuota(key="wide", cap=10, expires_at=MIDNIGHT)


@pytest.mark.parametrize(
    ("used", "price", "cap"),
    [
        ({}, 3, None),  # nothing was counted yet, and all of it is asked for at once
        ({}, 4, 3),
        ({"narrow": 2}, 1, None),
        ({"narrow": 3}, 1, 3),
        ({"narrow": 0, "wide": 10}, 1, 10),
    ],
)
def test_the_first_prefix_that_has_too_few_left_says_its_cap(
    used: dict[str, int], price: int, cap: int | None
) -> None:
    assert exhausted([NARROW, WIDE], used, price) == cap
