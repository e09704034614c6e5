"""A short run of the measurement of card payments, on a real stack."""

from __future__ import annotations

from bench.card import measured


async def test_every_message_is_answered_and_every_payment_is_credited() -> None:
    found = await measured(rate=20, seconds=0.5, payments=2, missed=1)
    assert found["webhooks"]["answers"] == {"200": 10}
    assert found["credited"]["p95_ms"] > 0
    assert found["missed"]["periods_max"] > 0
