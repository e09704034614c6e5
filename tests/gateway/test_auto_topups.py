"""Automatic top-ups through the whole gateway: saved, charged, declined, confirmed, stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from mail.tables import OUTBOX_ROWS
from processes.auto_topups.tables import AUTO_TOPUP_ROWS
from rails.contract import ReceiptState
from rails.saved import AUTHENTICATION
from rails.testing.fake_saved import DECLINES, WORKS, FakeSaved
from tests.gateway.stack import Gateway, credits_of
from tests.gateway.test_mail import World, world
from tests.waiting import eventually, until

__all__ = ["world"]
AGREEMENT = {"pack": "pack_500", "threshold": 50, "limit_minor": 2_000, "consent": True}


def outside(gateway: Gateway) -> FakeSaved:
    return gateway.fake.network.saved


async def stands(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/v1/auto-topup")).json()
    return found


async def becomes(client: httpx.AsyncClient, state: str) -> dict[str, Any]:
    return await until(lambda: stands(client), lambda found: found["state"] == state, f"it is {state}")


async def turned_on(
    gateway: Gateway, client: httpx.AsyncClient, does: str = WORKS, **changes: Any
) -> tuple[str, str]:
    """Turned on, with a card that does this. Returns the account and the method."""
    answer = await client.post("/v1/auto-topup", json={**AGREEMENT, **changes})
    assert answer.status_code == 200, answer.text
    method = outside(gateway).save(answer.json()["page_url"].rpartition("/")[2], does)
    account = str((await client.get("/v1/account")).json()["id"])
    await until(lambda: stands(client), lambda found: found["state"] != "saving", "the card is saved")
    return account, method


async def topped_up(client: httpx.AsyncClient, least: int) -> None:
    await until(lambda: credits_of(client), lambda found: found["posted"] >= least, "the pack is there")


async def topped_up_once(gateway: Gateway, name: str) -> tuple[httpx.AsyncClient, str, str]:
    """Somebody whose first pack was bought: who they are, their account, and the method."""
    client = await gateway.person(f"{name}@llamas.art")
    account, method = await turned_on(gateway, client)
    await topped_up(client, 500)
    await becomes(client, "on")
    return client, account, method


async def nothing_left(gateway: Gateway, client: httpx.AsyncClient, account: str) -> int:
    """All is spent. Returns how often the card was charged so far."""
    await gateway.spend(account, (await credits_of(client))["available"])
    return len(outside(gateway).attempts)


async def letters_to(gateway: Gateway, account: str) -> list[str]:
    query = sa.select(OUTBOX_ROWS.c.letter).where(OUTBOX_ROWS.c.account_id == account)
    async with gateway.services.base.engine.connect() as connection:
        found = (await connection.execute(query)).scalars().all()
    return sorted(
        f"{letter['template']} {letter['reason']}" for letter in found if letter["template"] != "receipt"
    )


async def soon_again(gateway: Gateway, account: str) -> None:
    """As if the wait were over."""
    async with gateway.services.base.engine.begin() as connection:
        mine = AUTO_TOPUP_ROWS.c.account_id == account
        now = gateway.services.base.clock()
        # Whoever looks at it just now must not put it off again by what was seen before.
        changed = {"due_at": now, "not_before": now, "revision": AUTO_TOPUP_ROWS.c.revision + 1}
        await connection.execute(sa.update(AUTO_TOPUP_ROWS).where(mine).values(**changed))


async def test_a_low_balance_buys_the_pack_once_and_high_ones_buy_nothing(world: World) -> None:
    gateway = world.gateway
    client = await gateway.person("low@llamas.art")
    account, _ = await turned_on(gateway, client)
    await topped_up(client, 500)
    found = await becomes(client, "on")
    assert (found["charged_minor"], found["card"]["label"][:4]) == (500, "Fake")
    topup = (await client.get(f"/v1/topups/{found['payment_id']}")).json()
    assert (topup["state"], topup["purchase"]["name"], topup["credited"]) == ("paid", "pack_500", 500)
    tried = len(outside(gateway).attempts)
    view = (await client.get("/v1/account")).json()
    await gateway.spend(account, view["credits"]["available"] - 50)
    await soon_again(gateway, account)
    await until(lambda: stands(client), lambda now: now["state"] == "on", "it was looked at")
    assert len(outside(gateway).attempts) == tried
    await gateway.spend(account, 10)
    await soon_again(gateway, account)
    await topped_up(client, 540)
    assert len(outside(gateway).attempts) == tried + 1
    assert (await becomes(client, "on"))["charged_minor"] == 1_000
    assert await letters_to(gateway, account) == []


async def test_a_declined_card_is_tried_again_later_and_then_turned_off(world: World) -> None:
    gateway = world.gateway
    client = await gateway.person("declined@llamas.art")
    account, method = await turned_on(gateway, client, DECLINES)
    found = await becomes(client, "waiting")
    assert (found["charged_minor"], bool(found["next_attempt_at"])) == (0, True)
    declined = (await client.get(f"/v1/topups/{found['payment_id']}")).json()
    assert (declined["state"], declined["credited"]) == ("expired", 0)
    outside(gateway).change(method, "insufficient_funds")
    await soon_again(gateway, account)
    await until(lambda: letters_to(gateway, account), lambda all_: len(all_) == 2, "the second letter")
    outside(gateway).change(method, WORKS)
    await soon_again(gateway, account)
    await topped_up(client, 500)
    assert (await becomes(client, "on"))["charged_minor"] == 500
    assert await letters_to(gateway, account) == ["auto_topup_waits declined"] * 2


async def test_a_bank_that_wants_its_customer_gets_them_and_it_goes_on(world: World) -> None:
    gateway = world.gateway
    client = await gateway.person("asked@llamas.art")
    account, _ = await turned_on(gateway, client, AUTHENTICATION)
    await becomes(client, "confirming")
    page = (await client.post("/v1/auto-topup/card")).json()["page_url"]
    assert (await client.post("/v1/auto-topup/card")).json()["page_url"] == page
    outside(gateway).save(page.rpartition("/")[2])
    await until(
        lambda: stands(client), lambda found: found["state"] != "confirming", "who comes back is seen"
    )
    await topped_up(client, 500)
    assert await letters_to(gateway, account) == ["auto_topup_waits confirm"]


async def test_the_limit_stops_it_for_the_month(world: World) -> None:
    gateway = world.gateway
    client = await gateway.person("limited@llamas.art")
    account, _ = await turned_on(gateway, client, limit_minor=900)
    await topped_up(client, 500)
    await gateway.spend(account, (await credits_of(client))["available"])
    await soon_again(gateway, account)
    found = await becomes(client, "limited")
    assert (found["charged_minor"], found["next_attempt_at"][8:10]) == (500, "01")
    raised = await client.post("/v1/auto-topup", json=AGREEMENT)
    assert (raised.status_code, raised.json()["page_url"]) == (200, None)
    await topped_up(client, 500)
    assert await letters_to(gateway, account) == ["auto_topup_waits limit"]


async def test_whoever_turns_it_off_is_charged_no_more_and_the_card_is_forgotten(world: World) -> None:
    gateway = world.gateway
    client, account, method = await topped_up_once(gateway, "off")
    found = (await client.post("/v1/auto-topup/off")).json()
    assert (found["state"], found["reason"], found["card"]) == ("off", "person", None)
    await eventually(lambda: outside(gateway).method(method).method is None, "the card is forgotten")
    tried = await nothing_left(gateway, client, account)
    assert await gateway.services.payments.auto_topups.wake() == 0
    assert len(outside(gateway).attempts) == tried
    again = await client.post("/v1/auto-topup/off")
    assert (again.status_code, again.json()["code"]) == (409, "auto_topup_not_on")
    assert await letters_to(gateway, account) == []


@pytest.mark.parametrize(
    ("state", "reason"), [(ReceiptState.DISPUTED, "disputed"), (ReceiptState.REVERSED, "refunded")]
)
async def test_money_that_goes_back_turns_it_off(world: World, state: ReceiptState, reason: str) -> None:
    gateway = world.gateway
    client, account, _ = await topped_up_once(gateway, reason)
    payment = str((await stands(client))["payment_id"])
    topup = (await client.get(f"/v1/topups/{payment}")).json()
    reference = await gateway.services.payments.payments.store.reference(payment)
    assert reference is not None
    await gateway.fake.network.change(str(reference.reference), topup["received"][0]["reference"], state)
    found = await becomes(client, "off")
    assert found["reason"] == reason
    assert await letters_to(gateway, account) == [f"auto_topup_off {reason}"]


async def test_a_card_that_was_removed_at_the_provider_turns_it_off(world: World) -> None:
    gateway = world.gateway
    client, account, method = await topped_up_once(gateway, "removed")
    outside(gateway).remove(method)
    await soon_again(gateway, account)
    assert (await becomes(client, "off"))["reason"] == "card_removed"


async def test_a_provider_that_is_away_charges_once_when_it_is_back(world: World) -> None:
    gateway = world.gateway
    client, account, _ = await topped_up_once(gateway, "away")
    tried = await nothing_left(gateway, client, account)
    gateway.fake.network.answers_to_lose = 2
    await soon_again(gateway, account)
    await topped_up(client, 500)
    assert len(outside(gateway).attempts) == tried + 1


async def test_many_that_look_at_the_same_moment_charge_once(world: World) -> None:
    gateway = world.gateway
    client, account, _ = await topped_up_once(gateway, "many")
    tried = await nothing_left(gateway, client, account)
    topups = gateway.services.payments.auto_topups
    query = sa.select(AUTO_TOPUP_ROWS).where(AUTO_TOPUP_ROWS.c.account_id == account)
    for _ in range(2):
        async with gateway.services.base.engine.connect() as connection:
            row = dict((await connection.execute(query)).mappings().one())
        await asyncio.gather(*(topups.visit(row) for _ in range(8)))
    await topped_up(client, 500)
    await becomes(client, "on")
    assert len(outside(gateway).attempts) == tried + 1


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"pack": "none"}, 422, "auto_topup_unclear"),
        ({"pack": "hour"}, 422, "auto_topup_unclear"),
        ({"threshold": 500}, 422, "auto_topup_unclear"),
        ({"threshold": 0}, 422, "invalid_request"),
        ({"threshold": 1.5}, 422, "invalid_request"),
        ({"limit_minor": 499}, 422, "auto_topup_unclear"),
        ({"limit_minor": 10**12}, 422, "invalid_request"),
        ({"consent": False}, 422, "invalid_request"),
        ({"consent": "true"}, 422, "invalid_request"),
    ],
)
async def test_what_does_not_fit_is_refused_and_leaves_nothing(
    world: World, changes: dict[str, Any], status: int, code: str
) -> None:
    client = await world.gateway.person("unclear@llamas.art")
    answer = await client.post("/v1/auto-topup", json={**AGREEMENT, **changes})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await stands(client))["state"] == "off"
