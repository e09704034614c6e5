"""Signing in and out, guests who bring their credits along, and recovery codes."""

from __future__ import annotations

import re
from datetime import timedelta

import httpx
import pytest
import sqlalchemy as sa

from gateway.auth.identity import SESSION_COOKIE, VISITOR_COOKIE
from gateway.auth.limits import PREFIX
from gateway.database.tables import guests
from ledger.errors import TooBusy
from ledger.identifiers import AccountId
from ledger.log.model import Receipt, Transaction
from tests.gateway.conftest import Open
from tests.gateway.stack import Gateway, credits_of, generation_request, soon
from tests.waiting import eventually

CODE = re.compile(r"LLAMA(-[0-9A-HJKMNP-TV-Z]{4}){4}")


async def sign_in(browser: httpx.AsyncClient, email: str) -> int:
    """Sign a browser in; returns the credits that came along."""
    answer = await browser.post("/v1/session", json={"email": email})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["merged"]["credits"])


async def paid_of(client: httpx.AsyncClient) -> int:
    """Credits in paid lots."""
    lots = (await client.get("/v1/account")).json()["lots"]
    return sum(lot["left"] for lot in lots if lot["source"] == "payment")


async def test_a_browser_becomes_a_visitor_and_then_a_person_and_then_a_visitor_again(
    gateway: Gateway,
) -> None:
    browser = gateway.browser()
    first = (await browser.get("/v1/account")).json()
    assert first["role"] == "visitor"
    assert (await browser.get("/v1/session")).json() == {
        "kind": "visitor",
        "email": None,
        "sign_in": "embedded",
        "mails_links": False,
    }
    assert await sign_in(browser, "Anna@Example.com") == 0
    assert (await browser.get("/v1/session")).json()["email"] == "anna@example.com"
    assert (await browser.get("/v1/account")).json()["role"] == "person"
    assert (await browser.request("DELETE", "/v1/session", json={})).json() == {"kind": "visitor"}
    assert SESSION_COOKIE not in browser.cookies
    assert (await browser.get("/v1/account")).json()["role"] == "visitor"


async def test_the_same_person_has_the_same_account_everywhere(gateway: Gateway) -> None:
    here, there = gateway.browser(), await gateway.person("anna2@example.com")
    await sign_in(here, " ANNA2@example.com".strip())
    assert (await here.get("/v1/account")).json()["id"] == (await there.get("/v1/account")).json()["id"]


async def test_paid_credits_come_along_once_and_free_ones_stay(gateway: Gateway) -> None:
    browser = gateway.browser()
    await browser.get("/v1/account")
    await browser.post("/v1/generations", json=generation_request())
    await gateway.top_up(browser, 150)
    guest = browser.cookies[VISITOR_COOKIE]
    assert await sign_in(browser, "merge@example.com") == 150
    assert VISITOR_COOKIE not in browser.cookies
    assert await paid_of(browser) == 150
    assert (await credits_of(browser))["available"] == 170
    assert await paid_of(gateway.bearer(guest)) == 0
    for _ in range(2):
        again = gateway.browser()
        again.cookies.set(VISITOR_COOKIE, guest)
        assert await sign_in(again, "merge@example.com") == 0
    assert await paid_of(browser) == 150
    refusal = await gateway.bearer(guest).post("/v1/generations", json=generation_request())
    assert (refusal.status_code, refusal.json()["code"]) == (409, "account_merged")


async def test_a_merged_guest_cannot_be_merged_into_somebody_else(gateway: Gateway) -> None:
    browser = gateway.browser()
    await browser.get("/v1/account")
    await gateway.top_up(browser, 100)
    guest = browser.cookies[VISITOR_COOKIE]
    await sign_in(browser, "first@example.com")
    thief = gateway.browser()
    thief.cookies.set(VISITOR_COOKIE, guest)
    assert await sign_in(thief, "second@example.com") == 0
    assert (await paid_of(browser), await paid_of(thief)) == (100, 0)


async def test_money_that_arrives_after_signing_in_follows_its_guest(gateway: Gateway) -> None:
    browser = gateway.browser()
    await browser.get("/v1/account")
    late = await gateway.open_topup(browser, 120)
    await gateway.top_up(browser, 100)
    await sign_in(browser, "late@example.com")
    await gateway.pay(late)

    async def arrived() -> bool:
        return await paid_of(browser) == 220

    await soon(arrived, "the late money stayed with the guest")


@pytest.mark.parametrize("when", ["at sign-in", "afterwards"])
async def test_a_log_that_is_too_busy_once_leaves_no_credits_with_the_guest(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """380 of 500 are held by running jobs when the guest signs in, and one merge finds the log too busy."""
    browser = gateway.browser()
    guest = AccountId((await browser.get("/v1/account")).json()["id"])
    await gateway.top_up(browser, 500)
    ledger, email = gateway.services.ledger.ledger, f"busy-{when.replace(' ', '-')}@example.com"
    deadline = gateway.services.base.clock() + timedelta(minutes=5)
    hold = await ledger.hold(guest, 380, job_id="job_1", deadline=deadline)
    submit, refused = gateway.services.base.sequencer.submit, []

    async def too_busy_once(transaction: Transaction) -> Receipt:
        if isinstance(transaction.body, list) and transaction.body[0] == "merge" and not refused:
            refused.append(transaction)
            raise TooBusy
        return await submit(transaction)

    if when == "afterwards":
        await sign_in(browser, email)
    with monkeypatch.context() as patched:
        patched.setattr(gateway.services.base.sequencer, "submit", too_busy_once)
        if when == "at sign-in":
            await sign_in(browser, email)
        await ledger.release(guest, hold)
        await eventually(lambda: bool(refused), "a merge found the log too busy")

    async def arrived() -> bool:
        return await paid_of(browser) == 500

    await soon(arrived, "credits stayed with the guest")


async def test_a_recovery_code_is_given_with_each_topup_and_opens_the_balance_elsewhere(
    gateway: Gateway,
) -> None:
    guest = gateway.browser()
    account = (await guest.get("/v1/account")).json()["id"]
    first = await gateway.top_up(guest, 100)
    code = first["recovery_code"]
    assert CODE.fullmatch(code)
    assert "recovery_code" not in (await guest.get(f"/v1/topups/{first['id']}")).json()
    assert (await gateway.open_topup(guest, 100))["recovery_code"] == code, "the first answer may be lost"
    assert (await guest.get("/v1/session")).json()["kind"] == "guest"
    elsewhere = gateway.browser()
    await elsewhere.get("/v1/account")
    sloppy = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    answer = await elsewhere.post("/v1/session/recover", json={"recovery_code": sloppy})
    assert answer.status_code == 200, answer.text
    assert answer.json()["merged"]["credits"] == (await credits_of(guest))["available"]
    assert (await elsewhere.get("/v1/account")).json()["id"] == account
    async with gateway.services.base.engine.connect() as connection:
        row = (await connection.execute(sa.select(guests).where(guests.c.account_id == account))).one()
    plain = code.replace("-", "").encode()
    assert len(row.code_digest) == 32
    assert plain not in row.code_digest


async def test_recovering_brings_what_this_browser_had_paid(gateway: Gateway) -> None:
    old, new = gateway.browser(), gateway.browser()
    for browser in (old, new):
        await browser.get("/v1/account")
    code = (await gateway.top_up(old, 100))["recovery_code"]
    await gateway.top_up(new, 130)
    answer = (await new.post("/v1/session/recover", json={"recovery_code": code})).json()
    assert answer["brought"] == 130
    assert await paid_of(new) == await paid_of(old) == 230


async def test_a_person_recovers_a_guest_into_the_account_and_the_code_is_spent(gateway: Gateway) -> None:
    guest = gateway.browser()
    await guest.get("/v1/account")
    code = (await gateway.top_up(guest, 100))["recovery_code"]
    person = gateway.browser()
    await sign_in(person, "recoverer@example.com")
    answer = await person.post("/v1/session/recover", json={"recovery_code": code})
    assert answer.json() == {"merged": {"credits": 100}}
    assert await paid_of(person) == 100
    late = gateway.browser()
    await late.get("/v1/account")
    refusal = await late.post("/v1/session/recover", json={"recovery_code": code})
    assert (refusal.status_code, refusal.json()["code"]) == (409, "account_merged")


async def test_guessing_recovery_codes_is_limited(open_gateway: Open) -> None:
    async with open_gateway(recovery_attempts_per_minute=6) as gateway:
        counted = await gateway.services.base.redis.keys(f"{PREFIX}:*")
        for key in counted:
            await gateway.services.base.redis.delete(key)
        statuses = []
        for n in range(8):
            guess = await gateway.visitor()
            answer = await guest_guess(guess, f"LLAMA-0000-0000-0000-000{n}")
            statuses.append(answer.status_code)
    assert statuses == [404] * 6 + [429] * 2
    assert answer.headers["retry-after"]


async def guest_guess(client: httpx.AsyncClient, code: str) -> httpx.Response:
    """One guess."""
    return await client.post("/v1/session/recover", json={"recovery_code": code})


async def test_cookies_are_out_of_reach_of_scripts_and_of_other_sites(gateway: Gateway) -> None:
    browser = gateway.browser()
    visitor = (await browser.get("/v1/account")).headers["set-cookie"].lower()
    session = (
        (await browser.post("/v1/session", json={"email": "flags@example.com"})).headers["set-cookie"].lower()
    )
    for cookie in (visitor, session):
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "path=/" in cookie
        assert "domain" not in cookie
        assert "secure" not in cookie, "the try-out stack speaks plain HTTP"


async def test_a_session_token_over_the_size_of_a_cookie_is_refused(gateway: Gateway) -> None:
    answer = await gateway.browser().post("/v1/session", json={"token": "x" * 4_000})
    assert answer.status_code == 422
    for body in ({"email": "nobody"}, {"email": "a\x00@b.c"}, {}, {"email": "a@b.c", "token": "x.y.z"}):
        assert (await gateway.browser().post("/v1/session", json=body)).status_code == 422
    assert (await gateway.browser().post("/v1/session", json={"token": "x.y.z"})).status_code == 401
    assert (await gateway.browser().post("/v1/session", json={"token": "hello"})).status_code == 401


async def test_an_invoice_opened_before_signing_in_and_paid_after_it_follows_its_guest(
    gateway: Gateway,
) -> None:
    browser = gateway.browser()
    await browser.get("/v1/account")
    first = await gateway.open_topup(browser, 120)
    assert await sign_in(browser, "first-invoice@example.com") == 0
    await gateway.pay(first)

    async def arrived() -> bool:
        return await paid_of(browser) == 120

    await soon(arrived, "the money stayed with a guest whose cookie is gone")


async def with_both_cookies(gateway: Gateway, email: str, credits_paid: int) -> tuple[httpx.AsyncClient, str]:
    """A browser that became a guest while its session could not be read; and the guest's cookie."""
    guest = gateway.browser()
    await guest.get("/v1/account")
    await gateway.top_up(guest, credits_paid)
    browser = gateway.browser()
    await sign_in(browser, email)
    browser.cookies.set(VISITOR_COOKIE, guest.cookies[VISITOR_COOKIE], domain="127.0.0.1")
    return browser, guest.cookies[VISITOR_COOKIE]


async def test_with_both_cookies_a_browser_speaks_for_the_person_and_the_guest_keeps_its_credits(
    gateway: Gateway,
) -> None:
    browser, guest = await with_both_cookies(gateway, "both@example.com", 110)
    assert (await browser.get("/v1/account")).json()["role"] == "person"
    assert (await paid_of(browser), await paid_of(gateway.bearer(guest))) == (0, 110)
    await browser.request("DELETE", "/v1/session", json={})
    assert await paid_of(browser) == 110


@pytest.mark.parametrize("who", ["again@example.com", "another@example.com"])
async def test_a_guest_behind_a_persons_session_comes_along_with_the_next_sign_in(
    gateway: Gateway, who: str
) -> None:
    browser, guest = await with_both_cookies(gateway, "again@example.com", 120)
    before = await paid_of(await gateway.person(who))
    assert await sign_in(browser, who) == 120
    assert VISITOR_COOKIE not in browser.cookies
    assert (await paid_of(browser), await paid_of(gateway.bearer(guest))) == (before + 120, 0)


async def test_a_token_speaks_for_itself_alone_and_takes_no_cookies_guest_along(gateway: Gateway) -> None:
    mine, other = await gateway.visitor(), gateway.browser()
    await other.get("/v1/account")
    await gateway.top_up(other, 130)
    cookie = other.cookies[VISITOR_COOKIE]
    mine.cookies.set(VISITOR_COOKIE, cookie)
    assert await sign_in(mine, "token@example.com") == 0
    assert mine.cookies[VISITOR_COOKIE] == cookie
    assert await paid_of(gateway.bearer(cookie)) == 130
