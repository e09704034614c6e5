"""Paying for one image alone, on the fake rail that can hold money."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import sqlalchemy as sa

from generation.store.tables import job_funding
from ledger.money import USD, Money
from tests.gateway.stack import Gateway, generation_request
from tests.waiting import SECONDS_MAX

BODY = generation_request("a llama in the rain", funding={"rail": "fake", "pay_asset": "USD"})


async def state_of(client: httpx.AsyncClient, job_id: str, wanted: str) -> dict[str, Any]:
    """Follow a generation until it is in this state."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            shown = (await client.get(f"/v1/generations/{job_id}")).json()
            if shown["state"] == wanted:
                return shown
            await asyncio.sleep(0)


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
    async with gateway.services.base.engine.begin() as connection:  # no sweep comes by for an hour
        later = sa.func.now() + sa.text("interval '1 hour'")
        await connection.execute(sa.update(job_funding).values(due_at=later))
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
    async with asyncio.timeout(SECONDS_MAX):
        while "release" not in gateway.fake.network.calls:
            await asyncio.sleep(0)
    assert (await client.get(f"/v1/topups/{payment_id}")).json()["credited"] == 0


async def test_money_goes_back_of_an_image_that_ended_before_a_crash_let_its_payment_be_noted(
    gateway: Gateway,
) -> None:
    client = await gateway.visitor()
    asked = (await client.post("/v1/generations", json=BODY)).json()
    payment_id, due = asked["topup"]["id"], asked["topup"]["amount_due"]
    engine = gateway.services.base.engine
    async with engine.begin() as connection:  # as it is between the two transactions
        await connection.execute(
            sa.update(job_funding).values(
                state="opening", reference=None, due_at=sa.func.now() + sa.text("interval '1 hour'")
            )
        )
    assert (await client.delete(f"/v1/generations/{asked['id']}")).json()["state"] == "cancelled"
    await gateway.fake.network.pay(f"fake-{payment_id}", Money(due["amount_minor"], USD))
    async with asyncio.timeout(SECONDS_MAX):
        while "release" not in gateway.fake.network.calls:
            await asyncio.sleep(0)
        while True:
            async with engine.connect() as connection:
                if not (await connection.execute(sa.select(job_funding))).all():
                    break
    shown = (await client.get(f"/v1/topups/{payment_id}")).json()
    assert shown["credited"] == 0
    assert [received["state"] for received in shown["received"]] == ["released"], shown


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
