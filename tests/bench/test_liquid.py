"""A short run of the measurement of payments on Liquid, on a real stack."""

from __future__ import annotations

import pytest

from bench.liquid import measured


@pytest.mark.thorough  # A real stack is measured in `test_card`, too.
async def test_every_payment_is_seen_and_credited() -> None:
    found = await measured(payments=3)
    assert found["seen"]["p95_ms"] > 0
    assert 0 < found["one_block"]["first_credited_s"] <= found["one_block"]["all_credited_s"]
    assert found["after_a_stop"]["all_credited_s"] > 0
