"""Paying for one image alone, on the fake rail that can hold money."""

from __future__ import annotations

import functools
from typing import Any

import httpx
import sqlalchemy as sa

from generation.store.tables import job_funding
from ledger.money import USD, Money
from tests.gateway.stack import Gateway, generation_request
from tests.waiting import until

BODY = generation_request("a llama in the rain", funding={"rail": "fake", "pay_asset": "USD"})


async def state_of(client: httpx.AsyncClient, job_id: str, wanted: str) -> dict[str, Any]:
    """Follow a generation until it is in this state."""

    async def shown() -> dict[str, Any]:
        answer: dict[str, Any] = (await client.get(f"/v1/generations/{job_id}")).json()
        return answer

    return await until(shown, lambda job: job["state"] == wanted, f"{job_id} is {wanted}")


async def money_went_back(client: httpx.AsyncClient, payment_id: str) -> None:
    """Follow a payment until all of it was released."""

    async def states() -> list[str]:
        topup = (await client.get(f"/v1/topups/{payment_id}")).json()
        assert topup["credited"] == 0
        return [received["state"] for received in topup["received"]]

    await until(states, lambda found: found == ["released"], f"{payment_id} was released")


async def funding_of(gateway: Gateway, job_id: str) -> list[Any]:
    """Its row, if there is one."""
    query = sa.select(job_funding).where(job_funding.c.job_id == job_id)
    async with gateway.services.base.engine.connect() as connection:
        return list(await connection.execute(query))


async def change_funding(gateway: Gateway, job_id: str, **values: Any) -> None:
    """As somebody else would have left it; no sweep comes by for an hour."""
    later = sa.func.now() + sa.text("interval '1 hour'")
    change = sa.update(job_funding).where(job_funding.c.job_id == job_id)
    async with gateway.services.base.engine.begin() as connection:
        await connection.execute(change.values(due_at=later, **values))


async def test_an_image_is_paid_for_alone(gateway: Gateway) -> None:
    client, worker = await gateway.visitor(), await gateway.worker()
    asked = (await client.post("/v1/generations", json=BODY)).json()
    assert asked.get("state") == "awaiting_payment", asked
    due = asked["topup"]["amount_due"]
    payment_id = asked["topup"]["id"]
    assert due["asset"] == "USD"
    await gateway.fake.network.pay(f"fake-{payment_id}", Money(due["amount_minor"], USD))
    await state_of(client, asked["id"], "queued")
    assert await worker.paint() == asked["id"]
    shown = await state_of(client, asked["id"], "completed")
    assert shown["credits"] == {"held": 0, "captured": 1}
    account = (await client.get("/v1/account")).json()
    assert account["credits"]["held"] == 0
    assert account["free_today"]["left"] == 20
    assert (await client.get(shown["image_url"], follow_redirects=True)).status_code == 200


async def test_a_job_is_queued_by_the_news_of_its_money_before_any_sweep(gateway: Gateway) -> None:
    client = await gateway.visitor()
    asked = (await client.post("/v1/generations", json=BODY)).json()
    payment_id, due = asked["topup"]["id"], asked["topup"]["amount_due"]
    await change_funding(gateway, asked["id"])
    await gateway.fake.network.pay(f"fake-{payment_id}", Money(due["amount_minor"], USD))
    await state_of(client, asked["id"], "queued")
    await client.delete(f"/v1/generations/{asked['id']}")


async def test_money_of_a_cancelled_image_goes_back(gateway: Gateway) -> None:
    client = await gateway.visitor()
    asked = (await client.post("/v1/generations", json=BODY)).json()
    payment_id, due = asked["topup"]["id"], asked["topup"]["amount_due"]
    await gateway.fake.network.pay(f"fake-{payment_id}", Money(due["amount_minor"], USD))
    await state_of(client, asked["id"], "queued")
    assert (await client.delete(f"/v1/generations/{asked['id']}")).json()["state"] == "cancelled"
    await money_went_back(client, payment_id)


async def test_money_goes_back_of_an_image_that_ended_before_a_crash_let_its_payment_be_noted(
    gateway: Gateway,
) -> None:
    client = await gateway.visitor()
    asked = (await client.post("/v1/generations", json=BODY)).json()
    payment_id, due = asked["topup"]["id"], asked["topup"]["amount_due"]
    # As it is between the two transactions.
    await change_funding(gateway, asked["id"], state="opening", reference=None)
    assert (await client.delete(f"/v1/generations/{asked['id']}")).json()["state"] == "cancelled"
    await gateway.fake.network.pay(f"fake-{payment_id}", Money(due["amount_minor"], USD))
    await money_went_back(client, payment_id)
    await until(
        functools.partial(funding_of, gateway, asked["id"]), lambda rows: not rows, "its funding is done with"
    )


async def test_an_unknown_payment_request_leaves_no_job(gateway: Gateway) -> None:
    client = await gateway.visitor()
    answer = await client.post("/v1/generations", json=generation_request("x", funding={"rail": "seashells"}))
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_rail")


async def test_figures_are_shown_to_this_machine_and_hold_no_ids(gateway: Gateway) -> None:
    answer = await gateway.client().get("/metrics")
    assert answer.status_code == 200
    assert "llamasketch_job_wait_seconds_bucket" in answer.text
    assert 'llamasketch_rail_open{name="fake"}' in answer.text
    assert "acct_" not in answer.text
    assert "job_0" not in answer.text


async def test_more_open_payments_than_may_be_are_refused_and_told_when_to_come_again(
    gateway: Gateway,
) -> None:
    client = await gateway.visitor()
    wanted = {"rail": "fake", "credits": 100, "pay_asset": "USD"}
    answers = [await client.post("/v1/topups", json=wanted) for _ in range(21)]
    refused = answers.pop()
    assert {answer.status_code for answer in answers} == {201}
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_open_payments")
    assert refused.json()["limit"] == len(answers)
    assert int(refused.headers["Retry-After"]) > 0
