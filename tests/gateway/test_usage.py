"""Usage of a plan's period over HTTP, and the letters about it."""

from __future__ import annotations

import sqlalchemy as sa

from mail.tables import OUTBOX_ROWS
from tests.gateway.stack import Gateway
from tests.gateway.test_mail import World, world
from tests.gateway.test_subscriptions import PRICES, subscribed

__all__ = ["world"]


async def test_a_person_sees_what_is_used_and_gets_one_letter_for_each_mark(world: World) -> None:
    gateway: Gateway = world.gateway
    outside = gateway.fake.network.subscriptions
    outside.prices = PRICES
    client = await gateway.person("uses@llamas.art")
    opened = await subscribed(gateway, outside, client)
    account = (await client.get("/v1/account")).json()["id"]
    await gateway.spend(account, 1_599)
    usage = (await client.get("/v1/account")).json()["usage"]
    assert (usage["used"], usage["granted"], usage["warned_percent"]) == (1_599, 2_000, 0)
    assert usage["ends_at"][:19] == opened["period_end"][:19]
    for images in (1, 300, 100):
        await gateway.spend(account, images)
    usage = (await client.get("/v1/account")).json()["usage"]
    assert (usage["used"], usage["warned_percent"]) == (2_000, 100)
    query = sa.select(OUTBOX_ROWS.c.letter).where(
        OUTBOX_ROWS.c.account_id == account, OUTBOX_ROWS.c.mail_id.startswith("usage_reached:")
    )
    async with gateway.services.base.engine.connect() as connection:
        letters = (await connection.execute(query)).scalars().all()
    assert sorted((letter["percent"], letter["used"]) for letter in letters) == [(80, 1_600), (100, 2_000)]
    await world.receipted("uses@llamas.art", 3)
    assert {"80 % of your Starter images are used", "100 % of your Starter images are used"} < set(
        world.mail_to("uses@llamas.art")
    )


async def test_todays_free_images_are_shown_and_begin_anew_and_are_not_mailed(world: World) -> None:
    visitor = await world.gateway.visitor()
    first = (await visitor.get("/v1/account")).json()
    assert (first["usage"]["used"], first["usage"]["granted"]) == (0, 20)
    await world.gateway.spend_allowance(visitor)
    usage = (await visitor.get("/v1/account")).json()["usage"]
    assert (usage["used"], usage["granted"], usage["warned_percent"]) == (20, 20, 100)
    query = sa.select(sa.func.count()).where(OUTBOX_ROWS.c.account_id == first["id"])
    async with world.gateway.services.base.engine.connect() as connection:
        assert (await connection.execute(query)).scalar_one() == 0
