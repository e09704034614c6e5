"""A short run of the measurement of live painting, on a real stack with a worker."""

from __future__ import annotations

import pytest

from bench.live import measured


@pytest.mark.thorough
async def test_every_frame_that_was_painted_cost_a_credit_and_no_other_did() -> None:
    found = await measured(2, 4.0, workers=1, bursts=1)
    assert found["wrong_charges"] == []
    assert found["answers"]["ended completed"] >= 2
    assert found["final_stroke_to_image"]["p95_ms"] > 0
    assert {name for name in found["answers"] if name[0] in "45"} <= {"409 out_of_order"}
