"""A live sketch session over HTTP: paused, resumed, limited."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from ledger.identifiers import AccountId
from tests.gateway.stack import Gateway, credits_of, generation_request

SESSION = "/v1/generations/sessions/sketch"
FREE = {"posted": 20, "held": 0, "available": 20, "debt": 0}


async def frame(client: httpx.AsyncClient, seq: int, **more: Any) -> httpx.Response:
    body = generation_request(f"frame {seq}", live=True, session_id="sketch", seq=seq, **more)
    return await client.post("/v1/generations", json=body)


async def change(client: httpx.AsyncClient, **wanted: Any) -> httpx.Response:
    return await client.patch(SESSION, json=wanted)


async def test_a_paused_session_refuses_frames_and_holds_nothing(gateway: Gateway) -> None:
    client = await gateway.visitor()
    waiting = (await frame(client, 1)).json()["id"]
    answer = await change(client, paused=True)
    assert answer.json() == {
        "id": "sketch",
        "paused": True,
        "paused_by": "person",
        "cap_credits": None,
        "limit_credits": 500,
        "spent_credits": 0,
        "variations": 0,
    }
    assert await credits_of(client) == FREE
    stopped = (await client.get(f"/v1/generations/{waiting}")).json()
    assert (stopped["state"], stopped["reason"]) == ("cancelled", "session_paused")
    assert stopped["message"] == "Its live session was paused. You were not charged."
    refused = await frame(client, 2)
    assert refused.status_code == 409
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.json()["code"], refused.json()["paused_by"]) == ("session_paused", "person")
    assert (await change(client, paused=False)).json()["paused_by"] is None
    assert (await frame(client, 3)).status_code == 202
    await change(client, paused=True)
    assert await credits_of(client) == FREE


async def test_at_its_limit_a_session_pauses_and_says_why(gateway: Gateway) -> None:
    client, worker = await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    assert (await change(client, cap_credits=1)).json()["limit_credits"] == 1
    await frame(client, 1)
    await worker.paint()
    refused = (await frame(client, 2)).json()
    assert refused["code"] == "session_spend_cap_reached"
    assert (refused["limit"], refused["spent"], refused["paused_by"]) == (1, 1, "spend_cap")
    assert (await client.get(SESSION)).json()["paused_by"] == "spend_cap"
    assert (await change(client, paused=False)).status_code == 402
    raised = (await change(client, cap_credits=2, paused=False)).json()
    assert (raised["paused"], raised["cap_credits"], raised["spent_credits"]) == (False, 2, 1)
    assert (await frame(client, 2)).status_code == 202
    uncapped = (await change(client, cap_credits=None, paused=True)).json()
    assert (uncapped["cap_credits"], uncapped["spent_credits"]) == (None, 1)


async def asked_to_merge(
    gateway: Gateway,
) -> tuple[httpx.AsyncClient, httpx.AsyncClient, AccountId, AccountId]:
    """A guest, and the person who signed in as them, in a process that died before the log had recorded it."""
    guest, person = await gateway.visitor(), await gateway.visitor()
    guest_id, person_id = await id_of(guest), await id_of(person)
    await gateway.services.ledger.guests._ask_for(guest_id, person_id)
    return guest, person, guest_id, person_id


async def test_a_guests_last_frame_gives_way_before_the_merge_is_recorded_and_nothing_is_left_for_after_it(
    gateway: Gateway,
) -> None:
    guest, person, guest_id, person_id = await asked_to_merge(gateway)
    first = (await frame(guest, 1)).json()["id"]
    assert (await person.get(SESSION)).json()["spent_credits"] == 1
    second = (await frame(person, 2)).json()["id"]
    assert await state_of(guest, first) == "superseded"
    assert ((await credits_of(guest))["held"], (await credits_of(person))["held"]) == (0, 1)
    await gateway.services.ledger.guests.bring_along({"account_id": guest_id, "into_account": person_id})
    assert await state_of(person, first) == "superseded"
    assert await state_of(person, second) == "queued"
    third = (await frame(person, 3)).json()["id"]
    assert [await state_of(person, job) for job in (second, third)] == ["superseded", "queued"]
    await change(person, paused=True)
    assert (await credits_of(person))["held"] == 0


async def test_a_frame_that_came_after_signing_in_as_the_guests_gives_way_to_the_persons_before_a_merge_is_recorded(
    gateway: Gateway,
) -> None:
    guest, person, _, _ = await asked_to_merge(gateway)
    await frame(person, 1)
    late = (await frame(guest, 2)).json()["id"]
    await change(person, paused=True)
    assert await state_of(guest, late) == "superseded"
    assert ((await credits_of(guest))["held"], (await credits_of(person))["held"]) == (0, 0)


async def test_a_guest_who_goes_to_somebody_else_leaves_nothing_here(gateway: Gateway) -> None:
    guest, owner, guest_id, _ = await asked_to_merge(gateway)
    other = await gateway.visitor()
    await gateway.services.ledger.guests._ask_for(guest_id, await id_of(other))
    first = (await frame(guest, 1)).json()["id"]
    await frame(other, 2)
    assert await state_of(guest, first) == "queued"
    await frame(owner, 2)
    assert await state_of(guest, first) == "superseded"
    for client in (owner, other):
        await change(client, paused=True)


async def id_of(client: httpx.AsyncClient) -> AccountId:
    return AccountId((await client.get("/v1/account")).json()["id"])


async def state_of(client: httpx.AsyncClient, job: str) -> str:
    return str((await client.get(f"/v1/generations/{job}")).json()["state"])


async def test_nobody_elses_session_can_be_paused(gateway: Gateway) -> None:
    mine, other = await gateway.visitor(), await gateway.visitor()
    await change(other, paused=True)
    assert (await frame(mine, 1)).status_code == 202
    assert (await mine.get(SESSION)).json()["paused"] is False
    await change(mine, paused=True)
    assert (await gateway.client().patch(SESSION, json={"paused": True})).status_code == 401
    assert (await mine.patch(SESSION, json={"paused": "yes"})).status_code == 422


async def test_of_frames_that_come_at_once_the_newest_is_taken_and_nobody_is_told_to_come_again(
    gateway: Gateway,
) -> None:
    client = await gateway.visitor()
    sent = await asyncio.gather(*(frame(client, seq) for seq in range(1, 21)))
    refused = [answer.json() for answer in sent if answer.status_code != 202]
    assert {problem["code"] for problem in refused} <= {"out_of_order"}
    assert all(problem["newest"] <= 20 for problem in refused)
    assert sent[-1].status_code == 202
    assert await credits_of(client) == FREE | {"held": 1, "available": 19}, "frames in between cost something"
    await change(client, paused=True)
