"""A short run of the measurement of event streams, on a real stack."""

from __future__ import annotations

import pytest

from bench.streams import measured


@pytest.mark.thorough  # A real stack is measured in `test_card`, too.
async def test_every_stream_is_told_of_the_image_that_its_account_asked_for() -> None:
    found = await measured(20, 0.5)
    assert found["requests"]["answers"] == {"202": 5}
    assert found["delay"]["p95_ms"] > 0 < found["opened_per_second"]
    assert found["idle_stack_cpu_ms_a_second"] >= found["idle_api_cpu_ms_a_second"] >= 0
