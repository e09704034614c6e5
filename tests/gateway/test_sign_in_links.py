"""Signing in by a mailed link: once, in time, after a click, and only by who reads that mail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import sqlalchemy as sa

from gateway.auth.sign_in_links import KEPT, LINK_LIFETIME
from gateway.commands.erase import erase_person
from gateway.database.tables import sign_in_links
from mail.tables import OUTBOX_ROWS
from sandbox.embedded.ports import free_port
from sandbox.mail.app import Stand
from sandbox.mail.reception import Door
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, LateClock
from tests.waiting import eventually, until


class World:
    """A gateway where people sign in by links alone, and their mail."""

    def __init__(self, gateway: Gateway, stand: Stand, clock: LateClock) -> None:
        self.gateway = gateway
        self.stand = stand
        self.clock = clock

    def tokens_to(self, address: str) -> list[str]:
        """What stands behind the # in each letter, the newest last."""
        texts = [
            str(kept.parsed().get_body(("plain",)).get_content())  # type: ignore[union-attr]
            for kept in reversed(self.stand.mailbox.all())
            if address in kept.recipients
        ]
        return [re.findall(r"/sign-in#(\S+)", text)[0] for text in texts]

    async def token(self, address: str) -> str:
        """Ask for a link, and read it."""
        before = len(self.tokens_to(address))
        answer = await self.gateway.browser().post("/v1/session/links", json={"email": address})
        assert (answer.status_code, answer.json()) == (202, {"lasts_seconds": 900})
        await eventually(lambda: len(self.tokens_to(address)) > before, f"a letter to {address}")
        return self.tokens_to(address)[-1]

    async def confirm(self, token: str, browser: httpx.AsyncClient | None = None) -> httpx.Response:
        return await (browser or self.gateway.browser()).post("/v1/session", json={"link": token})


@pytest.fixture(scope="module")
async def world(open_gateway: Open, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    stand = Stand(tmp_path_factory.mktemp("mail"), product_url="", now=lambda: datetime.now(UTC))
    clock, port = LateClock(), free_port()
    settings = {
        "smtp_url": f"smtp+plain://127.0.0.1:{port}",
        "mail_from": "LlamaSketch <mail@llamas.art>",
        "sign_in": "link",
        "recovery_attempts_per_minute": 1_000,
    }
    async with stand.receiving(port, Door()), open_gateway(clock=clock, **settings) as gateway:
        yield World(gateway, stand, clock)


@pytest.fixture(autouse=True)
def time_is_as_it_is(world: World) -> None:
    world.clock.ahead = timedelta(0)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_link_signs_in_the_browser_in_which_it_is_confirmed(world: World) -> None:
    token, browser = await world.token("ada@llamas.art"), world.gateway.browser()
    assert (await browser.get("/v1/session")).json()["kind"] == "visitor"
    assert (await world.confirm(token, browser)).json()["email"] == "ada@llamas.art"
    session = (await browser.get("/v1/session")).json()
    assert (session["kind"], session["sign_in"], session["mails_links"]) == ("person", "link", True)


async def test_however_the_address_is_written_it_is_the_same_person(world: World) -> None:
    accounts = set()
    for address in ("Bea@Llamas.Art", "bea@llamas.art"):
        browser = world.gateway.browser()
        answer = await world.gateway.browser().post("/v1/session/links", json={"email": address})
        assert answer.status_code == 202
        count = len(accounts) + 1
        await eventually(lambda count=count: len(world.tokens_to("bea@llamas.art")) == count, "a letter")
        await world.confirm(world.tokens_to("bea@llamas.art")[-1], browser)
        accounts.add((await browser.get("/v1/account")).json()["id"])
    assert len(accounts) == 1


async def test_a_guests_credits_come_along(world: World) -> None:
    browser = world.gateway.browser()
    await browser.get("/v1/account")
    await world.gateway.top_up(browser, 70)
    assert (await world.confirm(await world.token("cid@llamas.art"), browser)).json()["merged"] == {
        "credits": 70
    }


async def test_a_link_works_once_also_if_it_is_used_at_once_by_many(world: World) -> None:
    token = await world.token("dan@llamas.art")
    answers = await asyncio.gather(*(world.confirm(token) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [403] * 7
    assert refusal(await world.confirm(token)) == (403, "sign_in_link_not_valid")


async def test_a_link_ends(world: World) -> None:
    token = await world.token("eve@llamas.art")
    world.clock.ahead = LINK_LIFETIME
    assert refusal(await world.confirm(token)) == (403, "sign_in_link_not_valid")


async def test_what_is_no_link_of_ours_is_nobodys(world: World) -> None:
    token, other = await world.token("fay@llamas.art"), await world.token("gus@llamas.art")
    mixed = f"{token.partition('.')[0]}.{other.partition('.')[2]}"
    for wrong in (mixed, token[:-1], token + "x", token.partition(".")[0], "", "sil_x.y", "x" * 200):
        assert refusal(await world.confirm(wrong)) == (403, "sign_in_link_not_valid")
    assert (await world.confirm(token)).status_code == 200, "the genuine one is not used up by guesses"


async def test_whom_a_link_would_sign_in_is_said_before_and_nothing_is_used_up(world: World) -> None:
    token = await world.token("olga@llamas.art")
    for _ in range(3):
        answer = await world.gateway.bearer(token).get("/v1/session/links")
        assert answer.json() == {"email": "olga@llamas.art"}
    assert (await world.confirm(token)).status_code == 200
    for used in (token, token[:-1]):
        answer = await world.gateway.bearer(used).get("/v1/session/links")
        assert refusal(answer) == (403, "sign_in_link_not_valid")


async def test_nobody_is_signed_in_by_their_word(world: World) -> None:
    answer = await world.gateway.browser().post("/v1/session", json={"email": "hal@llamas.art"})
    assert refusal(answer) == (404, "no_built_in_issuer")


@pytest.mark.parametrize(
    "body",
    [{}, {"link": None}, {"link": 5}, {"link": "x" * 201}, {"email": "a@b.c", "link": "x"}, {"link": "x", "token": "y"}],
)  # fmt: skip
async def test_what_is_no_way_to_sign_in_is_refused(world: World, body: dict[str, object]) -> None:
    assert (await world.gateway.browser().post("/v1/session", json=body)).status_code == 422


@pytest.mark.parametrize("email", ["", "ada", "ada@llamas", "a b@llamas.art", "a@b.c\n", None, 5])
async def test_what_is_no_address_gets_no_link(world: World, email: object) -> None:
    answer = await world.gateway.browser().post("/v1/session/links", json={"email": email})
    assert answer.status_code == 422


async def test_an_address_gets_so_many_links_an_hour_and_others_go_on_getting_theirs(world: World) -> None:
    browser, answers = world.gateway.browser(), []
    for _ in range(8):
        answers.append(
            (await browser.post("/v1/session/links", json={"email": "ida@llamas.art"})).status_code
        )
    assert answers == [202] * 6 + [429] * 2
    await world.token("jan@llamas.art")


async def test_neither_the_row_nor_the_letter_in_the_outbox_holds_the_link(world: World) -> None:
    token = await world.token("kim@llamas.art")
    secret = token.partition(".")[2]
    async with world.gateway.services.base.engine.connect() as connection:
        for table in (sign_in_links, OUTBOX_ROWS):
            rows = (await connection.execute(sa.select(table))).all()
            assert rows
            assert secret not in repr(rows)


async def test_a_letter_that_comes_too_late_is_not_sent(world: World) -> None:
    world.stand.faults.change({"down": True})
    await world.gateway.browser().post("/v1/session/links", json={"email": "lea@llamas.art"})
    world.clock.ahead = LINK_LIFETIME
    world.stand.faults.change({"reset": True})
    query = sa.select(OUTBOX_ROWS.c.last_problem).where(OUTBOX_ROWS.c.state == "dropped")

    async def dropped() -> bool:
        async with world.gateway.services.base.engine.connect() as connection:
            return "too late" in (await connection.execute(query)).scalars().all()

    await until(dropped, bool, "the letter is dropped")
    assert world.tokens_to("lea@llamas.art") == []


async def test_old_links_are_forgotten_and_an_erasure_takes_them_and_their_letters(world: World) -> None:
    engine = world.gateway.services.base.engine

    async def addresses() -> list[str]:
        async with engine.connect() as connection:
            return list((await connection.execute(sa.select(sign_in_links.c.email))).scalars())

    browser = world.gateway.browser()
    await world.confirm(await world.token("mia@llamas.art"), browser)
    account = (await browser.get("/v1/account")).json()["id"]
    assert "mia@llamas.art" in await addresses()
    counts = await erase_person(
        world.gateway.settings.sqlalchemy_url, world.gateway.services.generation.store, account
    )
    assert (counts["sign_in_links"], counts["sign_in_letters"]) == (1, 1)
    assert "mia@llamas.art" not in await addresses()
    world.clock.ahead = LINK_LIFETIME + KEPT + timedelta(minutes=1)
    await world.gateway.browser().post("/v1/session/links", json={"email": "noa@llamas.art"})
    assert await addresses() == ["noa@llamas.art"]


async def test_without_a_mail_server_there_are_no_links(gateway: Gateway) -> None:
    answer = await gateway.browser().post("/v1/session/links", json={"email": "ada@llamas.art"})
    assert refusal(answer) == (404, "no_sign_in_links")
    session = (await gateway.browser().get("/v1/session")).json()
    assert (session["sign_in"], session["mails_links"]) == ("embedded", False)
