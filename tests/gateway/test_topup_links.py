"""A refusal for want of credits leads to a page where anybody can top up that account, and do nothing else with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.auth.topup_links import LINK_LIFETIME, WATCHED_AFTER, TopupLinks
from ledger.clock import system_clock
from rails.quotes.quoter import PaymentLimits
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, LateClock, credits_of, generation_request, soon
from tests.gateway.test_roles import TABLE, Access, ask

WANTED = {"rail": "fake", "credits": 100, "pay_asset": "USD"}
PLACES = PaymentLimits().open_by_links


@dataclass
class Refused:
    """Somebody whose credits are used up, and the link that they were answered with."""

    owner: httpx.AsyncClient
    link: httpx.AsyncClient
    account_id: str
    token: str


async def refused(gateway: Gateway, owner: httpx.AsyncClient | None = None) -> Refused:
    owner = owner or await gateway.visitor()
    await gateway.spend_allowance(owner)
    answer = await owner.post("/v1/generations", json=generation_request())
    assert answer.status_code == 402, answer.text
    page, _, token = answer.json()["topup_url"].partition("#")
    assert page == f"{gateway.url}/topup"
    account_id = (await owner.get("/v1/account")).json()["id"]
    return Refused(owner, gateway.bearer(token), account_id, token)


async def opened(link: httpx.AsyncClient, **headers: str) -> dict[str, Any]:
    answer = await link.post("/v1/topup-link/topups", json=WANTED, headers=headers)
    assert answer.status_code == 201, answer.text
    topup: dict[str, Any] = answer.json()
    return topup


async def paid(gateway: Gateway, link: httpx.AsyncClient) -> dict[str, Any]:
    topup = await opened(link)
    await gateway.pay(topup)

    async def is_paid() -> bool:
        answer = await link.get(f"/v1/topup-link/topups/{topup['id']}")
        return bool(answer.json()["state"] == "paid")

    await soon(is_paid, "the top-up was never paid")
    return topup


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_stranger_with_the_link_pays_and_the_refused_request_runs(gateway: Gateway) -> None:
    one = await refused(gateway)
    shown = (await one.link.get("/v1/topup-link")).json()
    assert shown["account"] == one.account_id[-4:]
    assert (shown["needed_credits"], shown["missing_credits"]) == (1, 1)
    await paid(gateway, one.link)
    assert (await one.link.get("/v1/topup-link")).json()["missing_credits"] == 0
    assert (await one.owner.post("/v1/generations", json=generation_request())).status_code == 202
    assert (await credits_of(one.owner))["available"] == 99


async def test_a_link_says_nothing_of_the_account_but_its_end_and_what_it_lacks(gateway: Gateway) -> None:
    one = await refused(gateway)
    assert set((await one.link.get("/v1/topup-link")).json()) == {
        "account",
        "needed_credits",
        "missing_credits",
        "expires_at",
    }
    topup = await opened(one.link)
    shown = (await one.link.get(f"/v1/topup-link/topups/{topup['id']}")).json()
    for answer in (topup, shown):
        assert "recovery_code" not in answer, "it would open the balance"
        assert one.account_id not in str(answer)


@pytest.mark.parametrize("name", [name for name, access in TABLE.items() if access is not Access.PAGE])
async def test_a_link_opens_nothing_but_what_is_for_links(gateway: Gateway, name: str) -> None:
    """Also of the very account that it is for, and of what the link itself has opened."""
    one = await refused(gateway)
    ids = {
        "session_id": "sketch",
        "job_id": gateway.services.base.identifiers.job(),
        "topup_id": (await opened(one.link))["id"],
        "rail": "fake",
        "key": "images/x.png",
        "subscription_id": "subscr_1",
        "payment_id": gateway.services.base.identifiers.payment(),
        "account_id": one.account_id,
        "refund_id": "ref_1",
        "token": "x",
    }
    status, _ = await ask(one.link, name, ids)
    nobody, _ = await ask(gateway.client(), name, ids)
    match TABLE[name]:
        case Access.LINK:
            assert status in (200, 201)
        case Access.EVERYBODY:
            assert status in (200, 201, 401) or status == nobody, "as nobody, or refused"
            if status == 200:
                answer = await one.link.request(*name.split(" "))
                assert one.account_id not in answer.text
        case _:
            assert status in (400, 401, 403, 422)
            assert nobody in (status, 404), (
                "as nobody; or refused where nobody is told that there is no such thing"
            )


async def test_neither_a_cookie_nor_another_token_stands_for_a_link(gateway: Gateway) -> None:
    browser = gateway.browser()
    await browser.get("/v1/account")
    person = await gateway.person("no-link@example.com")
    for client in (
        gateway.client(),
        browser,
        await gateway.visitor(),
        person,
        gateway.bearer("lst1.x.1.1.x"),
    ):
        for answer in (
            await client.get("/v1/topup-link"),
            await client.post("/v1/topup-link/topups", json=WANTED),
        ):
            assert refusal(answer) == (403, "topup_link_not_valid")


async def test_a_link_in_somebody_elses_browser_tops_up_the_account_of_the_link(gateway: Gateway) -> None:
    one = await refused(gateway)
    browser = gateway.browser()
    await browser.post("/v1/session", json={"email": "helper@example.com"})
    before = await credits_of(browser)
    gateway.secrets |= set(browser.cookies.values())
    browser.headers["Authorization"] = f"Bearer {one.token}"
    await paid(gateway, browser)
    del browser.headers["Authorization"]
    assert await credits_of(browser) == before
    assert (await browser.get("/v1/topups")).json()["topups"] == []
    assert (await credits_of(one.owner))["available"] == 100


async def test_a_link_shows_only_what_it_has_opened_itself(gateway: Gateway) -> None:
    one = await refused(gateway)
    again = (await one.owner.post("/v1/generations", json=generation_request("a larger one"))).json()
    other = gateway.services.identity.topup_links.issue(one.account_id, 2).partition("#")[2]
    assert again["code"] == "insufficient_credits"
    by_owner, by_link = await gateway.open_topup(one.owner), await opened(one.link)
    stranger = await refused(gateway)
    for client, topup in (
        (one.link, by_owner),
        (gateway.bearer(other), by_link),
        (stranger.link, by_link),
        (one.link, {"id": "pay_nothing"}),
        (one.link, {"id": gateway.services.base.identifiers.payment()}),
    ):
        answer = await client.get(f"/v1/topup-link/topups/{topup['id']}")
        assert refusal(answer) == (404, "payment_not_found")
    assert (await one.owner.get(f"/v1/topups/{by_link['id']}")).status_code == 200, "it is the owner's"


async def test_a_link_cannot_tie_a_topup_to_another_of_the_account(gateway: Gateway) -> None:
    one = await refused(gateway)
    theirs = await gateway.open_topup(one.owner)
    answer = await one.link.post("/v1/topup-link/topups", json={**WANTED, "attempt_of": theirs["id"]})
    assert refusal(answer) == (422, "invalid_request")


async def test_whoever_has_a_link_takes_none_of_the_accounts_own_places(gateway: Gateway) -> None:
    one = await refused(gateway)
    asked = [one.link.post("/v1/topup-link/topups", json=WANTED) for _ in range(PLACES + 7)]
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status_code for answer in answers) == [201] * PLACES + [429] * 7
    last = next(answer for answer in answers if answer.status_code == 429)
    assert (last.json()["code"], last.json()["limit"]) == ("too_many_open_payments", PLACES)
    another = gateway.services.identity.topup_links.issue(one.account_id, 3).partition("#")[2]
    answer = await gateway.bearer(another).post("/v1/topup-link/topups", json=WANTED)
    assert answer.status_code == 429, "a further link of the account brings no further places"
    for _ in range(PaymentLimits().open_per_account):
        await gateway.open_topup(one.owner)


async def test_paying_frees_the_place_of_a_link(gateway: Gateway) -> None:
    one = await refused(gateway)
    topups = [await opened(one.link) for _ in range(PLACES)]
    await gateway.pay(topups[0])

    async def again() -> bool:
        return (await one.link.post("/v1/topup-link/topups", json=WANTED)).status_code == 201

    await soon(again, "the place was never free")


async def test_links_fill_an_accounts_list_only_so_fast(gateway: Gateway) -> None:
    one = await refused(gateway)
    answers = [await one.link.post("/v1/topup-link/topups", json=WANTED) for _ in range(31)]
    assert refusal(answers[-1]) == (429, "rate_limited")
    assert answers[-1].headers["Retry-After"] == "600"
    assert refusal(answers[-2]) == (429, "too_many_open_payments")


async def test_a_request_sent_again_opens_one_topup_also_beside_the_owners_same_key(gateway: Gateway) -> None:
    one = await refused(gateway)
    key = {"Idempotency-Key": uuid4().hex}
    theirs = (await one.owner.post("/v1/topups", json=WANTED, headers=key)).json()["id"]
    mine = {(await opened(one.link, **key))["id"] for _ in range(3)}
    assert len(mine) == 1
    assert theirs not in mine


async def test_a_link_follows_a_guest_into_the_person(gateway: Gateway) -> None:
    browser = gateway.browser()
    await browser.get("/v1/account")
    one = await refused(gateway, browser)
    before = await opened(one.link)
    await browser.post("/v1/session", json={"email": f"{uuid4().hex}@example.com"})
    gateway.secrets |= set(browser.cookies.values())
    person = (await browser.get("/v1/account")).json()
    assert person["id"] != one.account_id
    shown = (await one.link.get("/v1/topup-link")).json()
    assert shown["account"] == one.account_id[-4:], "whoever has the link knows that one"
    assert shown["missing_credits"] == 0, "the person has free images"
    after = await paid(gateway, one.link)
    await gateway.pay(before)

    async def both() -> bool:
        return bool((await credits_of(browser))["available"] == 220)

    await soon(both, "the person never got what was paid by the link before and after signing in")
    listed = {topup["id"] for topup in (await browser.get("/v1/topups")).json()["topups"]}
    assert {before["id"], after["id"]} <= listed
    shown = await one.link.get(f"/v1/topup-link/topups/{before['id']}")
    assert shown.json()["state"] == "paid"


async def test_a_link_follows_through_two_merges(gateway: Gateway) -> None:
    one = await refused(gateway)
    guests = gateway.services.ledger.guests
    second = (await (await gateway.visitor()).get("/v1/account")).json()["id"]
    person = await gateway.person(f"{uuid4().hex}@example.com")
    await paid(gateway, one.link)
    await guests.merge(one.account_id, second)
    await guests.merge(second, (await person.get("/v1/account")).json()["id"])
    assert (await credits_of(person))["available"] == 120
    await paid(gateway, one.link)
    assert (await credits_of(person))["available"] == 220


async def test_merging_while_a_link_opens_loses_nothing(gateway: Gateway) -> None:
    one = await refused(gateway)
    person = await gateway.person(f"{uuid4().hex}@example.com")
    into = (await person.get("/v1/account")).json()["id"]
    *topups, _ = await asyncio.gather(
        opened(one.link),
        opened(one.link),
        gateway.services.ledger.guests.merge(one.account_id, into),
    )
    for topup in topups:
        await gateway.pay(topup)

    async def both() -> bool:
        return bool((await credits_of(person))["available"] == 220)

    await soon(both, "the money of a link did not follow the guest")


async def test_a_link_ends_after_a_day_and_shows_what_it_opened_for_another(open_gateway: Open) -> None:
    clock = LateClock()
    async with open_gateway(clock=clock) as gateway:
        one = await refused(gateway)
        topup = await opened(one.link)
        clock.ahead = LINK_LIFETIME + timedelta(minutes=1)
        for answer in (
            await one.link.get("/v1/topup-link"),
            await one.link.post("/v1/topup-link/topups", json=WANTED),
        ):
            assert refusal(answer) == (403, "topup_link_expired")
        assert (await one.link.get(f"/v1/topup-link/topups/{topup['id']}")).status_code == 200
        clock.ahead += WATCHED_AFTER
        answer = await one.link.get(f"/v1/topup-link/topups/{topup['id']}")
        assert refusal(answer) == (403, "topup_link_expired")


@pytest.mark.parametrize(
    "forge",
    [
        lambda token: token[:-2],
        lambda token: token.replace("lst1.", "lst2.", 1),
        lambda token: token.replace(".1.", ".9999.", 1),
        lambda token: f"{token}.x",
        lambda token: token.upper(),
    ],
)
async def test_a_link_that_was_tampered_with_is_none(gateway: Gateway, forge: Callable[[str], str]) -> None:
    one = await refused(gateway)
    answer = await gateway.bearer(forge(one.token)).post("/v1/topup-link/topups", json=WANTED)
    assert refusal(answer) == (403, "topup_link_not_valid")


async def test_a_link_of_another_installation_is_none_even_with_the_same_secret(gateway: Gateway) -> None:
    one, settings = await refused(gateway), gateway.settings
    for secret, url in (
        (settings.secret_for("topup-links"), "https://staging.example.org"),
        (settings.secret_for("visitor-tokens"), settings.public_url),
    ):
        foreign = TopupLinks(secret, url, system_clock).issue(one.account_id, 1).partition("#")[2]
        answer = await gateway.bearer(foreign).get("/v1/topup-link")
        assert refusal(answer) == (403, "topup_link_not_valid")


async def test_writes_by_a_link_use_up_nothing_of_the_owners_writes(open_gateway: Open) -> None:
    async with open_gateway(requests_per_minute=20) as gateway:
        one = await refused(gateway)
        for _ in range(25):
            await one.link.post("/v1/topup-link/topups", json=WANTED)
        assert (await one.owner.post("/v1/topups", json=WANTED)).status_code == 201
