"""What happens to an automatic top-up at the wrong moment: it charges once, and stops when it must."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from gateway.commands.erase import erase_person
from processes.auto_topups.deciding import AutoState
from processes.auto_topups.tables import AUTO_TOPUP_ROWS
from projections.tables import balances
from rails.contract import ReceiptState
from rails.testing.fake_saved import DECLINES, WORKS
from tests.gateway.stack import Gateway
from tests.gateway.test_auto_topups import (
    becomes,
    nothing_left,
    outside,
    soon_again,
    stands,
    topped_up,
    topped_up_once,
    turned_on,
)
from tests.gateway.test_mail import World, world
from tests.waiting import eventually, until

__all__ = ["world"]


async def row_of(gateway: Gateway, account: str) -> dict[str, Any]:
    query = sa.select(AUTO_TOPUP_ROWS).where(AUTO_TOPUP_ROWS.c.account_id == account)
    async with gateway.services.base.engine.connect() as connection:
        return dict((await connection.execute(query)).mappings().one())


async def put(gateway: Gateway, account: str, **values: Any) -> None:
    mine = AUTO_TOPUP_ROWS.c.account_id == account
    async with gateway.services.base.engine.begin() as connection:
        await connection.execute(sa.update(AUTO_TOPUP_ROWS).where(mine).values(**values))


async def test_a_card_that_is_saved_while_another_is_charged_does_not_begin_a_second_charge(
    world: World,
) -> None:
    gateway = world.gateway
    client, account, method = await topped_up_once(gateway, "other-card")
    page = (await client.post("/v1/auto-topup/card")).json()["page_url"].rpartition("/")[2]
    later = gateway.services.base.clock() + timedelta(hours=1)
    await put(gateway, account, state=AutoState.CHARGING.value, charge_key="at-the-bank", due_at=later)
    tried = await nothing_left(gateway, client, account)
    outside(gateway).save(page)
    assert (await stands(client))["state"] == "charging"
    assert (await row_of(gateway, account))["charge_key"] == "at-the-bank"
    await put(gateway, account, payment_id=None)
    await soon_again(gateway, account)
    await topped_up(client, 500)
    assert len(outside(gateway).attempts) == tried + 1
    await becomes(client, "on")
    await soon_again(gateway, account)
    await gateway_saw(gateway, account, method)


async def gateway_saw(gateway: Gateway, account: str, method: str) -> None:
    """The page was looked at afterwards: the new card is the one, and the old one is forgotten."""
    await gateway.services.payments.auto_topups.look(account)
    assert (await row_of(gateway, account))["method"] != method
    await eventually(lambda: outside(gateway).method(method).method is None, "the old card is forgotten")


async def test_a_charge_under_way_when_it_was_turned_off_is_waited_for_before_another_begins(
    world: World,
) -> None:
    gateway = world.gateway
    client, account, _ = await topped_up_once(gateway, "off-and-on")
    before = await gateway.open_topup(client)
    later = gateway.services.base.clock() + timedelta(hours=1)
    await put(gateway, account, payment_id=before["id"], due_at=later, not_before=later)
    tried = await nothing_left(gateway, client, account)
    await gateway.services.payments.auto_topups.visit(await row_of(gateway, account))
    assert (await row_of(gateway, account))["charge_key"] == ""
    assert len(outside(gateway).attempts) == tried
    await client.post(f"/v1/topups/{before['id']}/cancel", json={})
    await soon_again(gateway, account)
    await topped_up(client, 500)
    assert len(outside(gateway).attempts) == tried + 1


async def test_a_declined_card_keeps_its_wait_while_another_one_is_being_saved(world: World) -> None:
    gateway = world.gateway
    client = await gateway.person("typing@llamas.art")
    account, _ = await turned_on(gateway, client, DECLINES)
    await becomes(client, "waiting")
    tried = len(outside(gateway).attempts)
    page = (await client.post("/v1/auto-topup/card")).json()["page_url"].rpartition("/")[2]
    await gateway.services.payments.auto_topups.visit(await row_of(gateway, account))
    assert len(outside(gateway).attempts) == tried
    now = await row_of(gateway, account)
    assert (now["state"], now["declines"]) == ("waiting", 1)
    outside(gateway).save(page, WORKS)
    await topped_up_by_looking(client)


async def topped_up_by_looking(client: Any) -> None:
    """Whoever comes back from the page looks at it, and the new card is charged."""
    await stands(client)
    await topped_up(client, 500)


async def seen_low(gateway: Gateway, account: str) -> None:
    """The read model of balances has it."""
    query = sa.select(balances.c.posted).where(balances.c.account_id == account)

    async def posted() -> int:
        async with gateway.services.base.engine.connect() as connection:
            found = (await connection.execute(query)).scalar_one_or_none()
            return 50 if found is None else int(found)  # nobody has folded it yet

    await until(posted, lambda found: found < 50, "the balance is low")


async def test_what_is_worked_on_or_has_failed_is_not_made_due_by_a_low_balance(world: World) -> None:
    gateway = world.gateway
    client, account, _ = await topped_up_once(gateway, "failing")
    now = gateway.services.base.clock()
    await put(gateway, account, due_at=now + timedelta(seconds=100), not_before=now)
    await nothing_left(gateway, client, account)
    await seen_low(gateway, account)
    wake = gateway.services.payments.auto_topups.wake
    await wake()
    assert (await row_of(gateway, account))["due_at"] == now + timedelta(seconds=100)
    tried_again = now + timedelta(minutes=9)
    await put(gateway, account, due_at=tried_again, attempts=7)
    await wake()
    assert (await row_of(gateway, account))["due_at"] == tried_again


async def test_a_card_is_forgotten_although_its_provider_is_away_when_it_is_turned_off(world: World) -> None:
    gateway = world.gateway
    client, _, method = await topped_up_once(gateway, "away-then")
    await gateway.fake.network.set_down(True)
    assert (await client.post("/v1/auto-topup/off")).json()["state"] == "off"
    await gateway.fake.network.set_down(False)
    await eventually(lambda: outside(gateway).method(method).method is None, "the card is forgotten")


async def test_the_card_of_whoever_is_erased_is_forgotten_by_its_provider(world: World) -> None:
    gateway = world.gateway
    _, account, method = await topped_up_once(gateway, "erased")
    url, store = gateway.settings.sqlalchemy_url, gateway.services.generation.store
    counts = await erase_person(url, store, account)
    assert (counts["saved_cards"], counts["automatic_topups"]) == (1, 1)
    await eventually(lambda: outside(gateway).method(method).method is None, "the card is forgotten")


async def test_a_dispute_of_what_was_paid_before_signing_in_turns_it_off(world: World) -> None:
    gateway = world.gateway
    guest = await gateway.visitor()
    topup = await gateway.top_up(guest)
    token = gateway.token_of("was-a-guest@llamas.art")
    await guest.post("/v1/session", json={"token": token})
    client = gateway.bearer(token)
    account, _ = await turned_on(gateway, client)
    reference = await gateway.services.payments.payments.store.reference(topup["id"])
    assert reference is not None
    money = (await client.get(f"/v1/topups/{topup['id']}")).json()["received"][0]["reference"]
    await gateway.fake.network.change(str(reference.reference), money, ReceiptState.DISPUTED)
    assert (await becomes(client, "off"))["reason"] == "disputed"
    assert account == (await client.get("/v1/account")).json()["id"]
