"""A webhook that was refused: operators read why, whoever sent it reads nothing."""

from __future__ import annotations

import json

from structlog.testing import capture_logs

from tests.gateway.stack import Gateway


async def test_health_and_the_log_say_why_a_notification_was_refused(gateway: Gateway) -> None:
    client = gateway.client()
    before = ((await client.get("/health")).json()["rails"]["fake"]["refused"] or {"times": {}})["times"]
    with capture_logs() as logs:
        for signature in ("0" * 64, "é"):
            headers = {"fake-signature": signature.encode("latin-1")}
            answer = await client.post("/v1/hooks/fake", content=b"{}", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (400, "hint_rejected")
    refused = (await client.get("/health")).json()["rails"]["fake"]["refused"]
    assert refused["reason"] == "signature"
    assert refused["times"] == {**before, "signature": before.get("signature", 0) + 2}
    lines = [line for line in logs if line["event"] == "notification_refused"]
    # Once in ten seconds: earlier tests may have had the turn.
    assert [(line["rail"], line["reason"]) for line in lines] in ([("fake", "signature")], [])
    assert lines or before.get("signature"), "said once"


async def test_a_genuine_notification_of_another_shape_does_not_hide_behind_forged_ones(
    gateway: Gateway,
) -> None:
    client = gateway.client()
    for body in (b"{}", b"[" * 20_000, json.dumps({"reference": "a\x00", "id": "e"}).encode()):
        headers = gateway.fake.network.signature(body)
        answer = await client.post("/v1/hooks/fake", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "hint_rejected")
    await client.post("/v1/hooks/fake", content=b"{}", headers={"fake-signature": "0"})
    times = (await client.get("/health")).json()["rails"]["fake"]["refused"]["times"]
    assert times["unreadable"] == 3
    assert times["signature"] >= 1
