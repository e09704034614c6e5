"""A short run of the measurement of Lightning payments, on a real stack."""

from __future__ import annotations

import pytest

from bench.lightning import measured


@pytest.mark.thorough  # A real stack is measured in `test_card`, too.
async def test_every_payment_is_credited_and_every_held_one_queues_its_image() -> None:
    found = await measured(opened=20, rate=20, seconds=0.5, payments=3, held=2)
    assert found["credited"]["p95_ms"] > 0
    assert found["queued"]["p95_ms"] > 0
    assert (found["busy"]["open"], found["busy"]["settled"]) == (20, 10)
