"""L402: a program without an account is asked to pay, pays, and gets its image; and everything that must not work."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from gateway.auth.macaroons import read_base64
from gateway.auth.prepaid import OPEN_ADDRESS
from gateway.database.tables import l402_tokens
from ledger.money import Money
from rails.contract import Health
from rails.payments.service import Payments
from tests.auth.test_macaroons import narrowed as with_caveat
from tests.gateway.stack import Gateway, generation_request
from tests.waiting import until

OPTS_IN = {"Accept-Payment": "L402"}
HEADER = re.compile(r'L402 macaroon="([^"]+)", invoice="([^"]+)", version="0", token="([^"]+)"')


def payments_of(gateway: Gateway) -> Payments:
    return gateway.services.payments.payments


async def asked(
    client: httpx.AsyncClient, key: str, body: dict[str, Any] | None = None, **headers: str
) -> httpx.Response:
    """One request for an image, by a program that can pay."""
    sent = {**OPTS_IN, "Idempotency-Key": key, **headers}
    return await client.post("/v1/generations", json=body or generation_request(), headers=sent)


def challenged(answer: httpx.Response) -> tuple[str, str]:
    """(macaroon, invoice) of a 402."""
    assert answer.status_code == 402, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = HEADER.fullmatch(answer.headers["www-authenticate"])
    assert found is not None, answer.headers
    assert found[1] == found[3]
    return found[1], found[2]


async def pay(gateway: Gateway, invoice: str) -> str:
    """A wallet pays, and learns the preimage."""
    due = gateway.fake.network.way(invoice).order.amount_due
    await gateway.fake.network.pay(invoice, due)
    return gateway.fake.network.secret(invoice).hex()


async def credential(gateway: Gateway, client: httpx.AsyncClient, key: str, **headers: str) -> str:
    macaroon, invoice = challenged(await asked(client, key, **headers))
    return f"L402 {macaroon}:{await pay(gateway, invoice)}"


async def test_a_program_without_an_account_pays_for_a_call_and_its_request_goes_on(gateway: Gateway) -> None:
    client, worker = gateway.client(), await gateway.worker()
    body = generation_request("a llama that pays")
    first = await asked(client, "one", body)
    macaroon, invoice = challenged(first)
    problem = first.json()
    assert problem["code"] == "payment_required"
    assert problem["needed_credits"] == 1
    preimage = await pay(gateway, invoice)
    paid = f"L402 {macaroon}:{preimage}"
    answers = [await asked(client, "one", body, Authorization=paid) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202] * 3
    (job_id,) = {answer.json()["id"] for answer in answers}
    assert await worker.paint() == job_id
    reads = {"Authorization": paid}
    shown = (await client.get(f"/v1/generations/{job_id}", headers=reads)).json()
    assert (shown["state"], shown["credits"]) == ("completed", {"held": 0, "captured": 1})
    picture = await client.get(shown["image_url"], headers=reads, follow_redirects=True)
    assert picture.status_code == 200
    credits_ = (await client.get("/v1/account", headers=reads)).json()["credits"]
    assert credits_["held"] == 0


async def test_a_balance_is_used_up_call_by_call_and_paid_again_by_the_same_token(gateway: Gateway) -> None:
    client = gateway.client()
    paid = await credential(gateway, client, "two", **{"Accept-Payment": "L402; credits=2"})
    for number in range(2):
        answer = await asked(client, f"two-{number}", Authorization=paid)
        assert answer.status_code == 202, answer.text
    refused = await asked(client, "two-more", Authorization=paid)
    _, invoice = challenged(refused)
    await pay(gateway, invoice)
    # The old token still names the balance that was filled up.
    assert (await asked(client, "two-more", Authorization=paid)).status_code == 202


async def test_nobody_who_pays_by_the_call_has_free_images(gateway: Gateway) -> None:
    client = gateway.client()
    challenged(await asked(client, "free"))
    paid = await credential(gateway, client, "free")
    await asked(client, "free-1", Authorization=paid)
    challenged(await asked(client, "free-2", Authorization=paid))


async def test_who_has_not_opted_in_uses_the_allowance_and_then_gets_a_plain_402(gateway: Gateway) -> None:
    client = await gateway.visitor()
    account = (await client.get("/v1/account")).json()
    await gateway.spend(account["id"], account["free_today"]["left"])
    answer = await client.post("/v1/generations", json=generation_request())
    assert answer.status_code == 402
    assert "www-authenticate" not in answer.headers
    opted = await asked(client, "visitor")
    _, invoice = challenged(opted)
    assert opted.json()["code"] == "insufficient_credits"
    await pay(gateway, invoice)
    # The balance is the visitor's own: the same request goes on by its own token as well.
    await until(
        lambda: asked(client, "visitor"),
        lambda answer: answer.status_code == 202,
        "the request goes on by the visitor's own token",
    )
    assert (await gateway.client().post("/v1/generations", json=generation_request())).status_code == 401


async def test_one_challenge_is_open_to_whoever_asks_and_is_given_again(gateway: Gateway) -> None:
    client = gateway.client()
    answers = await asyncio.gather(*(asked(client, "same") for _ in range(5)))
    assert len({challenged(answer) for answer in answers}) == 1
    other = await asked(client, "another")
    assert challenged(other) != challenged(answers[0])
    more = await asked(client, "same", **{"Accept-Payment": "L402;credits=7"})
    assert challenged(more) != challenged(answers[0])
    await pay(gateway, challenged(answers[0])[1])
    await until(
        lambda: asked(client, "same"),
        lambda answer: challenged(answer) != challenged(answers[0]),
        "what was paid is not asked for again",
    )


async def test_a_network_has_so_many_open_and_no_more(gateway: Gateway) -> None:
    client = gateway.client()
    answers = [await asked(client, f"many-{number}") for number in range(OPEN_ADDRESS + 1)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert refused[-1].json()["code"] == "too_many_challenges"
    assert int(refused[-1].headers["Retry-After"]) > 0
    async with gateway.services.base.engine.begin() as connection:
        await connection.execute(sa.update(l402_tokens).values(is_open=False))
    challenged(await asked(client, "many-again"))


async def test_wrong_foreign_and_half_credentials_are_401(gateway: Gateway) -> None:
    client = gateway.client()
    macaroon, invoice = challenged(await asked(client, "wrong"))
    preimage = await pay(gateway, invoice)
    other, _ = challenged(await asked(client, "wrong-other"))
    for sent in (
        f"L402 {macaroon}:{'0' * 64}",
        f"L402 {other}:{preimage}",
        f"L402 {macaroon}",
        f"L402 {macaroon}:",
        f"L402 :{preimage}",
        f"L402 {macaroon[:-6]}AAAA==:{preimage}",
        f"L402 {hashlib.sha256(b'guess').hexdigest()}:{preimage}",
        "L402",
    ):
        answer = await asked(client, "wrong", Authorization=sent)
        assert answer.status_code == 401, (sent, answer.text)
        assert answer.headers["www-authenticate"]
    assert (await asked(client, "wrong", Authorization=f"L402 {macaroon}:{preimage}")).status_code == 202


async def test_an_unpaid_token_cannot_be_used_even_with_the_preimage(gateway: Gateway) -> None:
    client = gateway.client()
    macaroon, invoice = challenged(await asked(client, "unpaid"))
    stolen = gateway.fake.network.secret(invoice).hex()
    challenged(await asked(client, "unpaid", Authorization=f"L402 {macaroon}:{stolen}"))


async def test_a_token_may_not_do_what_it_does_not_say(gateway: Gateway) -> None:
    client = gateway.client()
    paid = {"Authorization": await credential(gateway, client, "scope")}
    for method, path in (("DELETE", "/v1/sessions"), ("GET", "/v1/mail"), ("GET", "/v1/operator/payments")):
        answer = await client.request(method, path, headers=paid)
        assert (answer.status_code, answer.json()["code"]) == (403, "l402_not_allowed"), path
    funded = await asked(client, "scope", generation_request(funding={"rail": "fake"}), **paid)
    assert (funded.status_code, funded.json()["code"]) == (422, "invalid_request")


async def test_a_token_that_was_ended_is_401(gateway: Gateway) -> None:
    client = gateway.client()
    paid = {"Authorization": await credential(gateway, client, "ended")}
    assert (await client.get("/v1/account", headers=paid)).status_code == 200
    handed_on = narrowed(paid["Authorization"], "llamasketch_capabilities=read")
    assert (await client.get("/v1/account", headers=handed_on)).status_code == 200
    assert (await client.delete("/v1/l402", headers=handed_on)).json()["code"] == "l402_not_allowed"
    assert (await client.delete("/v1/l402", headers=paid)).json() == {"ended": True}
    answer = await client.get("/v1/account", headers=paid)
    assert (answer.status_code, answer.json()["code"]) == (401, "l402_not_valid")
    visitor = await gateway.visitor()
    assert (await visitor.delete("/v1/l402")).status_code == 403


async def test_what_is_paid_before_the_rail_has_told_us_is_asked_about(gateway: Gateway) -> None:
    client, network = gateway.client(), gateway.fake.network
    macaroon, invoice = challenged(await asked(client, "early"))
    network.notifications_per_change = 0
    try:
        preimage = await pay(gateway, invoice)
        answer = await asked(client, "early", Authorization=f"L402 {macaroon}:{preimage}")
        assert answer.status_code == 202, answer.text
    finally:
        network.notifications_per_change = 1


async def test_a_rail_that_is_away_is_503_for_programs_and_plain_402_for_people(gateway: Gateway) -> None:
    client, visitor = gateway.client(), await gateway.visitor()
    account = (await visitor.get("/v1/account")).json()
    await gateway.spend(account["id"], account["free_today"]["left"])
    networks = [gateway.fake.network, gateway.quiet.network]
    for network in networks:
        await network.set_down(True)
    try:
        assert (await asked(client, "down")).status_code == 503
        plain = await asked(visitor, "down")
        assert plain.status_code == 402
        assert "www-authenticate" not in plain.headers
    finally:
        for network in networks:
            await network.set_down(False)

    async def rails_open() -> bool:
        return all(rail["open"] for rail in (await client.get("/v1/rails")).json()["rails"])

    await until(rails_open, bool, "both rails are open again")
    challenged(await asked(client, "down"))


async def test_a_program_is_asked_to_pay_although_the_rails_were_thought_away(gateway: Gateway) -> None:
    health = payments_of(gateway).health
    health.update({name: Health(ok=False, detail="a heartbeat was late") for name in health})
    challenged(await asked(gateway.client(), "late"))


@pytest.mark.parametrize("more", [100, 250])
async def test_what_is_paid_too_much_is_on_the_balance(gateway: Gateway, more: int) -> None:
    client = gateway.client()
    macaroon, invoice = challenged(await asked(client, f"over-{more}"))
    due = gateway.fake.network.way(invoice).order.amount_due
    await gateway.fake.network.pay(invoice, Money(due.minor * (more + 1), due.asset))
    paid = {"Authorization": f"L402 {macaroon}:{gateway.fake.network.secret(invoice).hex()}"}
    assert (await asked(client, f"over-{more}", **paid)).status_code == 202
    lots = (await client.get("/v1/account", headers=paid)).json()["lots"]
    assert sum(lot["granted"] for lot in lots if lot["source"] == "payment") == 1 + more


async def test_what_was_paid_is_kept_and_what_was_not_is_forgotten_a_day_later(gateway: Gateway) -> None:
    client, worker = gateway.client(), await gateway.worker()
    two = {"Accept-Payment": "L402; credits=2"}
    paid = {"Authorization": await credential(gateway, client, "kept", **two)}
    challenged(await asked(client, "never-paid"))
    assert (await asked(client, "kept", None, **paid)).status_code == 202
    await worker.paint()
    two_days_ago = gateway.services.base.clock() - timedelta(days=2)
    engine = gateway.services.base.engine
    async with engine.begin() as connection:
        before = (await connection.execute(sa.select(l402_tokens.c.token_id))).scalars().all()
        await connection.execute(sa.update(l402_tokens).values(open_until=two_days_ago))
    for name in ("somebody", "somebody-else", "a-third", "a-fourth"):
        challenged(await asked(client, name))
    async with engine.connect() as connection:
        rows = (await connection.execute(sa.select(l402_tokens))).all()
    kept = [row for row in rows if row.token_id in before]
    assert kept
    assert all(row.open_until == row.valid_until for row in kept), "they are not looked at again before"
    assert len(kept) < len(before)
    assert (await asked(client, "kept-on", None, **paid)).status_code == 202


def narrowed(paid: str, *caveats: str) -> dict[str, str]:
    """The same credential, with what its holder added."""
    sent, _, preimage = paid.removeprefix("L402 ").rpartition(":")
    macaroon = read_base64(sent)
    for caveat in caveats:
        macaroon = with_caveat(macaroon, caveat.encode())
    return {"Authorization": f"L402 {base64.b64encode(macaroon.encode()).decode()}:{preimage}"}


async def test_a_token_that_was_narrowed_is_asked_to_pay_for_one_that_is_no_wider(gateway: Gateway) -> None:
    client = gateway.client()
    paid = await credential(gateway, client, "wide")
    assert (await asked(client, "wide", Authorization=paid)).status_code == 202
    ends = int(gateway.services.base.clock().timestamp()) + 3_600
    narrow = narrowed(paid, "llamasketch_capabilities=generate", f"llamasketch_valid_until={ends}")
    macaroon, invoice = challenged(await asked(client, "wider", None, **narrow))
    again = {"Authorization": f"L402 {macaroon}:{await pay(gateway, invoice)}"}
    assert (await asked(client, "wider", None, **again)).status_code == 202
    refused = await client.get("/v1/account", headers=again)
    assert (refused.status_code, refused.json()["code"]) == (403, "l402_not_allowed")
    assert f"llamasketch_valid_until={ends}".encode() in read_base64(macaroon).caveats
    wide, _ = challenged(await asked(client, "as-wide", Authorization=paid))
    assert all(str(ends).encode() not in caveat for caveat in read_base64(wide).caveats)


async def test_a_token_opens_top_ups_and_learns_no_recovery_code_by_that(gateway: Gateway) -> None:
    client = gateway.client()
    paid = await credential(gateway, client, "top-up")
    assert (await asked(client, "top-up", Authorization=paid)).status_code == 202
    headers = narrowed(paid, "llamasketch_capabilities=topup")
    order = {"rail": "fake", "credits": 100, "pay_asset": "USD"}
    opened = await client.post("/v1/topups", json=order, headers=headers)
    assert opened.status_code == 201, opened.text
    assert opened.json().get("recovery_code") is None
