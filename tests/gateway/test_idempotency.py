"""A key means one thing for ever, and what was not paid for is not finished."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence

import httpx
import pytest
import sqlalchemy as sa

from gateway.database.tables import idempotency_keys
from ledger.domain.refusals import InsufficientCredits
from ledger.identifiers import CommandKey
from ledger.log.model import Transaction, UnitOfWork
from tests.gateway.stack import Gateway, credits_of, generation_request


async def broke(gateway: Gateway) -> httpx.AsyncClient:
    """Somebody who has nothing left."""
    client = await gateway.visitor()
    await gateway.spend_allowance(client)
    return client


async def ask(client: httpx.AsyncClient, key: str, times: int = 1) -> Sequence[httpx.Response]:
    """The same request, at once."""
    headers = {"Idempotency-Key": key}
    body = generation_request("the same")
    return await asyncio.gather(
        *(client.post("/v1/generations", json=body, headers=headers) for _ in range(times))
    )


async def test_without_credits_the_answer_says_what_is_missing_and_where_to_get_it(gateway: Gateway) -> None:
    client = await broke(gateway)
    answer = await client.post("/v1/generations", json=generation_request())
    assert answer.status_code == 402
    document = answer.json()
    assert document["code"] == "insufficient_credits"
    assert document["needed_credits"] == 1
    assert document["balance"] == await credits_of(client)
    assert document["topup_url"].startswith(f"{gateway.url}/topup#"), "see test_topup_links"


async def test_a_refused_request_leaves_no_sketch_behind(gateway: Gateway) -> None:
    client, other = await broke(gateway), await gateway.visitor()
    # One that is accepted shows that this is where sketches are.
    assert (await ask(other, "accepted"))[0].status_code == 202
    folder = gateway.settings.data / "objects" / "sketches"
    before = set(folder.iterdir())
    assert before
    for key in ("leave-nothing", "leave-nothing", "nor-this"):
        assert (await ask(client, key, 2))[0].status_code == 402
    assert set(folder.iterdir()) == before


async def test_a_refusal_for_want_of_credits_does_not_finish_a_key(gateway: Gateway) -> None:
    client = await broke(gateway)
    assert [a.status_code for a in await ask(client, "later", 3)] == [402] * 3
    held = (await credits_of(client))["held"]
    await gateway.top_up(client, 100)
    answers = await ask(client, "later", 8)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await credits_of(client))["held"] == held + 1


async def test_a_refusal_leaves_nothing_behind_under_its_key(gateway: Gateway) -> None:
    client = await broke(gateway)
    before = await rows_of(gateway, "log_outcomes"), await rows_of(gateway, "idempotency_keys")
    assert [answer.status_code for answer in await ask(client, "refused", 3)] == [402] * 3
    assert (await rows_of(gateway, "log_outcomes"), await rows_of(gateway, "idempotency_keys")) == before


async def test_another_body_under_an_accepted_key_is_a_conflict_and_costs_nothing(gateway: Gateway) -> None:
    client = await gateway.visitor()
    await ask(client, "taken")
    held = (await credits_of(client))["held"]
    headers = {"Idempotency-Key": "taken"}
    other = await client.post("/v1/generations", json=generation_request("another"), headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert (await credits_of(client))["held"] == held


@pytest.mark.parametrize("sent", ["", "spaces in it", "x" * 256, "umläut"])
async def test_a_malformed_key_is_refused_and_changes_nothing(gateway: Gateway, sent: str) -> None:
    client = await gateway.visitor()
    headers = {"Idempotency-Key": sent.encode("latin-1")}
    answer = await client.post("/v1/generations", json=generation_request(), headers=headers)
    assert answer.status_code in (400, 422)
    assert (await credits_of(client))["held"] == 0


async def test_a_repeated_request_is_answered_without_another_sketch_or_transaction(gateway: Gateway) -> None:
    client = await gateway.visitor()
    (first,) = await ask(client, "again")
    folder = gateway.settings.data / "objects" / "sketches"
    before = set(folder.iterdir()), await rows_of(gateway, "log_batches")
    (again,) = await ask(client, "again")
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert (set(folder.iterdir()), await rows_of(gateway, "log_batches")) == before


async def test_twins_that_both_were_decoded_leave_the_sketch_of_the_accepted_one(gateway: Gateway) -> None:
    client = await gateway.visitor()
    folder = gateway.settings.data / "objects" / "sketches"
    answers = await ask(client, "twins", 8)
    (job_id,) = {answer.json()["id"] for answer in answers}
    assert {answer.status_code for answer in answers} == {202}
    assert (await credits_of(client))["held"] == 1
    assert [path.name for path in folder.iterdir() if job_id in path.name] == [f"{job_id}.png"]
    worker = await gateway.worker()
    await worker.drain_queue()
    assert (await client.get(f"/v1/generations/{job_id}")).json()["state"] == "completed"


class Before:
    """A request of the time when keys had a table: its row, and its outcome if it was decided."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self.gateway, self.key, self.job_id = gateway, key, str(gateway.services.base.identifiers.job())

    async def mapped(self, client: httpx.AsyncClient, body: bytes, attempt: int = 0) -> None:
        account = (await client.get("/v1/account")).json()["id"]
        row = {
            "principal": account,
            "route": "POST /v1/generations",
            "key": self.key,
            "body_digest": hashlib.sha256(body).digest(),
            "resource_id": self.job_id,
            "attempt": attempt,
            "created_at": self.gateway.services.base.clock(),
        }
        async with self.gateway.services.base.engine.begin() as connection:
            await connection.execute(sa.insert(idempotency_keys).values(row))


async def test_a_request_under_a_key_from_before_keeps_its_job(gateway: Gateway) -> None:
    client = await gateway.visitor()
    body = json.dumps(generation_request("the same")).encode()
    before = Before(gateway, "old")
    await before.mapped(client, body)
    headers = {"Idempotency-Key": "old", "Content-Type": "application/json"}
    answers = await asyncio.gather(
        *(client.post("/v1/generations", content=body, headers=headers) for _ in range(4))
    )
    assert {answer.json()["id"] for answer in answers} == {before.job_id}
    assert (await credits_of(client))["held"] == 1
    other = await client.post("/v1/generations", content=body + b" ", headers=headers)
    assert other.json()["code"] == "idempotency_conflict"


async def test_an_attempt_that_was_refused_before_runs_now_once(gateway: Gateway) -> None:
    client = await gateway.visitor()
    body = json.dumps(generation_request("the same")).encode()
    before = Before(gateway, "refused-then")
    await before.mapped(client, body)

    def refuse(uow: UnitOfWork) -> None:
        raise InsufficientCredits(wanted=1, available=0)

    command = Transaction(
        key=CommandKey(f"{before.job_id}:0"), actor="system:test", body=["then"], streams=(), decide=refuse
    )
    with pytest.raises(InsufficientCredits):
        await gateway.services.base.sequencer.submit(command)
    headers = {"Idempotency-Key": "refused-then", "Content-Type": "application/json"}
    answers = await asyncio.gather(
        *(client.post("/v1/generations", content=body, headers=headers) for _ in range(4))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await credits_of(client))["held"] == 1


async def test_a_request_that_a_guest_sent_is_the_same_when_the_person_sends_it_again(
    gateway: Gateway,
) -> None:
    guest = await gateway.visitor()
    (first,) = await ask(guest, "carried-over")
    email = "carried-over@example.com"
    assert (await guest.post("/v1/session", json={"email": email})).status_code == 200
    person = await gateway.person(email)
    (again,) = await ask(person, "carried-over")
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


async def rows_of(gateway: Gateway, table: str) -> int:
    """How many rows there are."""
    async with gateway.services.base.engine.connect() as connection:
        return int((await connection.execute(sa.text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def test_a_finished_key_stays_finished_when_the_credits_are_gone(gateway: Gateway) -> None:
    client = await gateway.visitor()
    (first,) = await ask(client, "done")
    await gateway.spend_allowance(client)
    (again,) = await ask(client, "done")
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


async def test_without_a_key_each_request_is_its_own(gateway: Gateway) -> None:
    client = await gateway.visitor()
    answers = [await client.post("/v1/generations", json=generation_request("twin")) for _ in range(2)]
    assert len({answer.json()["id"] for answer in answers}) == 2
    assert (await credits_of(client))["held"] == 2


async def test_a_key_belongs_to_its_owner_and_its_route(gateway: Gateway) -> None:
    one, two = await gateway.visitor(), await gateway.visitor()
    (mine,), (theirs,) = await ask(one, "shared"), await ask(two, "shared")
    assert mine.json()["id"] != theirs.json()["id"]
    body = {"rail": "fake", "credits": 5, "pay_asset": "USD"}
    topup = await one.post("/v1/topups", json=body, headers={"Idempotency-Key": "shared"})
    assert topup.status_code == 201


async def test_a_topup_is_opened_once_however_often_it_is_sent(gateway: Gateway) -> None:
    client = await gateway.visitor()
    body = {"rail": "fake", "credits": 50, "pay_asset": "USD"}
    headers = {"Idempotency-Key": "once"}
    answers = await asyncio.gather(*(client.post("/v1/topups", json=body, headers=headers) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len((await client.get("/v1/topups")).json()["topups"]) == 1
    codes = [answer.json()["recovery_code"] for answer in answers if "recovery_code" in answer.json()]
    assert len(codes) == 8, "an answer that was lost is given again"
    assert len(set(codes)) == 1
    other = await client.post("/v1/topups", json={**body, "credits": 51}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_a_topup_is_shown_again_and_never_opened_twice_while_no_more_may_be_opened(
    gateway: Gateway,
) -> None:
    client = await gateway.visitor()
    body = {"rail": "fake", "credits": 50, "pay_asset": "USD"}
    headers = {"Idempotency-Key": "the-first-of-too-many"}
    first = await client.post("/v1/topups", json=body, headers=headers)
    limit = gateway.services.payments.payments.limits.open_per_account
    others = [await gateway.open_topup(client) for _ in range(limit - 1)]
    assert (await client.post("/v1/topups", json=body)).status_code == 429
    again = await client.post("/v1/topups", json=body, headers=headers)
    assert (again.status_code, again.json().get("id")) == (201, first.json()["id"])
    await client.post(f"/v1/topups/{others[0]['id']}/cancel", json={})
    again = await client.post("/v1/topups", json=body, headers=headers)
    assert (again.status_code, again.json().get("id")) == (201, first.json()["id"])


async def test_a_topup_refused_for_now_is_opened_once_when_it_may_be(gateway: Gateway) -> None:
    client = await gateway.visitor()
    body = {"rail": "fake", "credits": 50, "pay_asset": "USD"}
    headers = {"Idempotency-Key": "too-early"}
    limit = gateway.services.payments.payments.limits.open_per_account
    others = [await gateway.open_topup(client) for _ in range(limit)]
    assert (await client.post("/v1/topups", json=body, headers=headers)).status_code == 429
    await client.post(f"/v1/topups/{others[0]['id']}/cancel", json={})
    answers = [await client.post("/v1/topups", json=body, headers=headers) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
