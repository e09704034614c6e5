"""Mail through the whole gateway: a payment is receipted, links choose, an erasure forgets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from gateway.commands.erase import erase_person
from mail.tables import CHOICE_ROWS, OUTBOX_ROWS
from sandbox.embedded.ports import free_port
from sandbox.mail.app import Stand
from sandbox.mail.reception import Door
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway
from tests.waiting import eventually, until

ADA = "ada@llamas.art"


class World:
    """A gateway that mails, and the server that it mails by."""

    def __init__(self, gateway: Gateway, stand: Stand) -> None:
        self.gateway = gateway
        self.stand = stand

    def mail_to(self, address: str) -> list[str]:
        return [
            str(kept.parsed()["Subject"]) for kept in self.stand.mailbox.all() if address in kept.recipients
        ]

    async def receipted(self, address: str, count: int = 1) -> None:
        await eventually(lambda: len(self.mail_to(address)) == count, f"{count} receipts to {address}")

    async def choice_url(self, client: httpx.AsyncClient) -> str:
        page = (await client.get("/v1/mail")).json()["url"]
        assert page.startswith(f"{self.gateway.url}/mail/lsm1.acct_")
        return str(page.replace("/mail/", "/v1/mail/"))


@pytest.fixture(scope="module")
async def world(open_gateway: Open, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    stand = Stand(tmp_path_factory.mktemp("mail"), product_url="", now=lambda: datetime.now(UTC))
    port = free_port()
    settings = {
        "smtp_url": f"smtp+plain://127.0.0.1:{port}",
        "mail_from": "LlamaSketch <mail@llamas.art>",
    }
    async with stand.receiving(port, Door()), open_gateway(**settings) as gateway:
        yield World(gateway, stand)


async def test_a_person_who_pays_gets_a_receipt_and_a_guest_who_pays_gets_none(world: World) -> None:
    ada, guest = await world.gateway.person(ADA), await world.gateway.visitor()
    await world.gateway.top_up(guest)
    topup = await world.gateway.top_up(ada)
    await world.receipted(ADA)
    (kept,) = world.stand.mailbox.all()
    assert topup["id"] in kept.parsed().get_body(("plain",)).get_content()  # type: ignore[union-attr]


async def test_whoever_is_asked_by_session_is_told_where_mail_goes_and_where_to_change_it(
    world: World,
) -> None:
    eve, guest = await world.gateway.person("eve@llamas.art"), await world.gateway.visitor()
    shown = (await eve.get("/v1/mail")).json()
    assert (shown["sends"], shown["address"], shown["optional"]) == (True, "eve@llamas.art", True)
    assert (await guest.get("/v1/mail")).json()["address"] is None


async def test_one_click_turns_receipts_off_as_mail_programs_click(world: World) -> None:
    bob = await world.gateway.person("bob@llamas.art")
    await world.gateway.top_up(bob)
    await world.receipted("bob@llamas.art")
    letter = next(kept for kept in world.stand.mailbox.all() if "bob@llamas.art" in kept.recipients).parsed()
    url = str(letter["List-Unsubscribe"]).strip("<>")
    program = world.gateway.client()
    clicked = await program.post(url, data={"List-Unsubscribe": "One-Click"})
    assert (clicked.status_code, clicked.json()) == (200, {"optional": False})
    await world.gateway.top_up(bob)

    async def states() -> list[str]:
        query = sa.select(OUTBOX_ROWS.c.state).where(OUTBOX_ROWS.c.account_id == account)
        async with world.gateway.services.base.engine.connect() as connection:
            return sorted((await connection.execute(query)).scalars())

    account = (await bob.get("/v1/account")).json()["id"]
    await until(states, lambda found: found == ["dropped", "sent"], "the second receipt is not wanted")
    assert len(world.mail_to("bob@llamas.art")) == 1
    assert (await bob.get("/v1/mail")).json()["optional"] is False


async def test_a_link_turns_off_and_on_and_only_reading_changes_nothing(world: World) -> None:
    url = await world.choice_url(await world.gateway.person("cid@llamas.art"))
    stranger = world.gateway.client()
    for body, found in (
        (None, True),
        ({"optional": False}, False),
        (None, False),
        ({"optional": True}, True),
    ):
        answer = await (stranger.get(url) if body is None else stranger.put(url, json=body))
        assert answer.json() == {"optional": found}


@pytest.mark.parametrize("body", [{}, {"optional": "no"}, {"optional": None}, {"optional": 0}, [], "x"])
async def test_what_is_no_choice_changes_nothing(world: World, body: object) -> None:
    url = await world.choice_url(await world.gateway.person("dan@llamas.art"))
    stranger = world.gateway.client()
    assert (await stranger.put(url, json=body)).status_code == 422
    assert (await stranger.get(url)).json() == {"optional": True}


async def test_a_changed_link_and_a_link_of_another_account_choose_nothing(world: World) -> None:
    urls = [
        await world.choice_url(await world.gateway.person(f"{name}@llamas.art")) for name in ("dora", "emil")
    ]
    own, other = (url.rpartition("/")[2].split(".") for url in urls)
    stranger = world.gateway.client()
    for token in (
        ".".join([own[0], own[1], other[2]]),
        ".".join([own[0], own[1], own[2][:-1]]),
        own[1],
        "x" * 3_000,
        "lsm1..",
    ):
        for ask in (stranger.get, stranger.post):
            answer = await ask(f"/v1/mail/{token}")
            assert (answer.status_code, answer.json()["code"]) == (403, "mail_link_not_valid")


async def test_an_erasure_takes_queued_mail_and_choices_and_nothing_is_sent_afterwards(
    world: World, tmp_path: Path
) -> None:
    world.stand.faults.change({"down": True})
    fred = await world.gateway.person("fred@llamas.art")
    await world.gateway.top_up(fred)
    url = await world.choice_url(fred)
    await world.gateway.client().put(url, json={"optional": True})
    account = (await fred.get("/v1/account")).json()["id"]
    counts = await erase_person(
        world.gateway.settings.sqlalchemy_url, world.gateway.services.generation.store, account
    )
    world.stand.faults.change({"reset": True})
    assert (counts["mail"], counts["mail_choices"], counts["sign_ins"]) == (1, 1, 1)
    async with world.gateway.services.base.engine.connect() as connection:
        for table in (OUTBOX_ROWS, CHOICE_ROWS):
            query = sa.select(sa.func.count()).where(table.c.account_id == account)
            assert (await connection.execute(query)).scalar_one() == 0
    gina = await world.gateway.person("gina@llamas.art")
    await world.gateway.top_up(gina)
    await world.receipted("gina@llamas.art")
    assert world.mail_to("fred@llamas.art") == []


async def test_without_a_mail_server_nothing_is_queued_and_the_page_is_told(gateway: Gateway) -> None:
    hans = await gateway.person("hans@llamas.art")
    await gateway.top_up(hans)
    assert (await hans.get("/v1/mail")).json()["sends"] is False
    async with gateway.services.base.engine.connect() as connection:
        count = await connection.execute(sa.select(sa.func.count()).select_from(OUTBOX_ROWS))
        assert count.scalar_one() == 0
