"""Signing out ends a session wherever its token is kept, in every process, and with it the streams it opened."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
import sqlalchemy as sa

from gateway.auth.identity import SESSION_COOKIE, VISITOR_COOKIE, VISITOR_LIFETIME, Credential
from gateway.auth.sessions import STALE_SECONDS_MAX
from gateway.database.tables import ended_sessions
from ledger.identifiers import AccountId
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, LateClock, soon
from tests.waiting import SECONDS_MAX


async def role_of(client: httpx.AsyncClient) -> int:
    return (await client.get("/v1/statement")).status_code


async def sign_in(gateway: Gateway, email: str) -> tuple[httpx.AsyncClient, str]:
    browser = gateway.browser()
    assert (await browser.post("/v1/session", json={"email": email})).status_code == 200
    return browser, browser.cookies[SESSION_COOKIE]


async def sign_out(browser: httpx.AsyncClient, path: str = "/v1/session") -> dict[str, str]:
    answer = await browser.request("DELETE", path, json={})
    assert answer.status_code == 200, answer.text
    document: dict[str, str] = answer.json()
    return document


async def test_a_copied_token_is_worth_nothing_after_signing_out(gateway: Gateway) -> None:
    browser, token = await sign_in(gateway, "copied@example.com")
    other, _ = await sign_in(gateway, "copied@example.com")
    thief = gateway.bearer(token)
    assert await role_of(thief) == 200
    await sign_out(browser)
    assert await role_of(thief) == 401
    assert (await gateway.browser().post("/v1/session", json={"token": token})).status_code == 401
    head, _, signature = token.rpartition(".")
    assert await role_of(gateway.bearer(f"{head}.{signature}==")) == 401
    assert (await other.get("/v1/session")).json()["kind"] == "person", "another session goes on"


async def test_signing_out_everywhere_ends_all_sessions_and_the_next_one_begins_at_once(
    gateway: Gateway,
) -> None:
    here, _ = await sign_in(gateway, "everywhere@example.com")
    there, token = await sign_in(gateway, "everywhere@example.com")
    stranger, _ = await sign_in(gateway, "somebody-else@example.com")
    assert await sign_out(here, "/v1/sessions") == {"kind": "visitor"}
    assert SESSION_COOKIE not in here.cookies
    assert await role_of(gateway.bearer(token)) == 401
    assert (await there.get("/v1/session")).json()["kind"] == "visitor"
    assert (await stranger.get("/v1/session")).json()["kind"] == "person"
    again, _ = await sign_in(gateway, "everywhere@example.com")
    assert (await again.get("/v1/session")).json()["kind"] == "person"


async def test_a_guests_stolen_cookie_is_ended_and_the_guest_keeps_the_money(gateway: Gateway) -> None:
    guest = gateway.browser()
    await guest.get("/v1/account")
    await gateway.top_up(guest, 100)
    stolen = guest.cookies[VISITOR_COOKIE]
    answer = await sign_out(guest, "/v1/sessions")
    assert await role_of(gateway.bearer(stolen)) == 401
    assert (await guest.get("/v1/account")).json()["credits"]["available"] == 120
    assert await role_of(gateway.bearer(answer["token"])) == 200
    thief = gateway.browser()
    thief.cookies.set(VISITOR_COOKIE, stolen)
    signed_in = await thief.post("/v1/session", json={"email": "thief@example.com"})
    assert signed_in.json()["merged"]["credits"] == 0
    assert (await guest.get("/v1/account")).json()["credits"]["available"] == 120


async def test_another_process_knows_within_its_bound_and_one_that_starts_later_at_once(
    open_gateway: Open,
) -> None:
    async with open_gateway() as one:
        url = one.settings.database_url
        async with open_gateway(
            database=url, public_url=one.settings.public_url.replace("127.0.0.1", "127.0.0.2")
        ) as two:
            browser, token = await sign_in(one, "two@example.com")
            guest = one.browser()
            await guest.get("/v1/account")
            visitor = guest.cookies[VISITOR_COOKIE]
            assert await role_of(two.bearer(visitor)) == 200
            await sign_out(browser)
            await sign_out(guest, "/v1/sessions")

            async def ended() -> bool:
                return await role_of(two.bearer(visitor)) == 401

            await soon(ended, "the other process went on believing the token")
            assert STALE_SECONDS_MAX == 2.0
            (digest,) = one.services.identity.sessions._ended
            await two.services.identity.sessions.refresh()
            assert digest in two.services.identity.sessions._ended
        assert token.count(".") == 2
    async with open_gateway(database=url) as three:
        assert await role_of(three.bearer(visitor)) == 401


async def test_a_stream_ends_with_its_session(gateway: Gateway) -> None:
    browser, token = await sign_in(gateway, "stream@example.com")
    async with gateway.bearer(token).stream("GET", "/v1/events") as answer:
        lines = answer.aiter_lines()
        async with asyncio.timeout(SECONDS_MAX):
            assert await anext(lines)
            await sign_out(browser)
            async for _ in lines:
                pass
    assert await role_of(gateway.bearer(token)) == 401


async def test_a_stream_ends_with_its_token(open_gateway: Open) -> None:
    clock = LateClock()
    async with open_gateway(clock=clock) as gateway:
        visitor = await gateway.visitor()
        async with visitor.stream("GET", "/v1/events") as answer:
            lines = answer.aiter_lines()
            async with asyncio.timeout(SECONDS_MAX):
                assert await anext(lines)
                clock.ahead = VISITOR_LIFETIME + timedelta(seconds=1)
                async for _ in lines:
                    pass
        assert await role_of(visitor) == 401


async def test_what_has_ended_by_itself_is_forgotten(open_gateway: Open) -> None:
    clock = LateClock()
    async with open_gateway(clock=clock) as gateway:
        sessions, account = gateway.services.identity.sessions, AccountId("acct_1")
        for digest, lifetime in ((b"short", timedelta(minutes=1)), (b"long", timedelta(days=1))):
            credential = Credential(digest, clock(), clock() + lifetime)
            await sessions.end(account, credential)
        clock.ahead = timedelta(minutes=2)
        await sessions.refresh()
        assert {*sessions._ended} == {b"long"}
        await sessions.end(account, credential)
        async with gateway.services.base.engine.connect() as connection:
            rows = (await connection.execute(sa.select(ended_sessions.c.digest))).scalars().all()
        assert [bytes(row) for row in rows] == [b"long"]
