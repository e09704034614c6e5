"""What a guest made belongs to the person whom the guest became: every kind of it, before and after, in chains."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.commands.verify import verify_everything
from gateway.database.schema import METADATA
from ledger.money import USD, Money
from tests.gateway.stack import FakeWorker, Gateway, generation_request, soon
from tests.gateway.streaming import watching
from tests.gateway.test_funding import BODY as PAID_APART
from tests.gateway.test_funding import state_of
from tests.gateway.test_roles import TABLE, Access


@dataclass
class Belonging:
    """Something that a guest has made, and how whoever owns it reads it."""

    look: Callable[[httpx.AsyncClient], Awaitable[bool]]
    """Whether this client finds it."""


Make = Callable[[Gateway, httpx.AsyncClient, FakeWorker], Awaitable[Belonging]]


def at(path: str, status: int = 200) -> Belonging:
    """What stands at an address of its own."""

    async def look(client: httpx.AsyncClient) -> bool:
        answer = await client.get(path)
        assert answer.status_code in (status, 404), answer.text
        return answer.status_code == status

    return Belonging(look)


async def asked(client: httpx.AsyncClient, **more: Any) -> str:
    answer = await client.post("/v1/generations", json=generation_request(**more))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def painted(client: httpx.AsyncClient, worker: FakeWorker) -> str:
    job_id = await asked(client)
    assert await worker.paint() == job_id
    return job_id


async def a_generation(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    return at(f"/v1/generations/{await painted(guest, worker)}")


async def a_list_of_images(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    job_id = await asked(guest)

    async def look(client: httpx.AsyncClient) -> bool:
        found = (await client.get("/v1/generations")).json()["generations"]
        return job_id in {one["id"] for one in found}

    return Belonging(look)


async def an_image(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    return at(f"/v1/generations/{await painted(guest, worker)}/image", 307)


async def a_thumbnail(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    return at(f"/v1/generations/{await painted(guest, worker)}/image?thumbnail=true", 307)


async def a_receipt(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    return at(f"/v1/topups/{(await gateway.top_up(guest, 100))['id']}")


async def a_refund(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    path = f"/v1/topups/{(await gateway.top_up(guest, 100))['id']}/refund"

    async def look(client: httpx.AsyncClient) -> bool:
        answer = await client.get(path)
        assert answer.status_code in (200, 404), answer.text
        if answer.status_code == 404:
            assert (await client.post(path, json={})).status_code == 404
            return False
        offers = answer.json()["offers"]
        return [offer["credits"] for offer in offers] == [100]

    return Belonging(look)


async def an_open_payment(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    return at(f"/v1/topups/{(await gateway.open_topup(guest, 100))['id']}")


async def a_list_of_payments(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    opened = (await gateway.open_topup(guest, 100))["id"]

    async def look(client: httpx.AsyncClient) -> bool:
        return opened in [one["id"] for one in (await client.get("/v1/topups")).json()["topups"]]

    return Belonging(look)


async def a_statement(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    job_id = await painted(guest, worker)

    async def look(client: httpx.AsyncClient) -> bool:
        entries = (await client.get("/v1/statement", params={"reference": job_id})).json()["entries"]
        return "captured" in [entry["kind"] for entry in entries]

    return Belonging(look)


async def a_live_session(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    name = uuid4().hex
    path = f"/v1/generations/sessions/{name}"
    await asked(guest, live=True, session_id=name, seq=1)
    await worker.paint()
    assert (await guest.patch(path, json={"cap_credits": 7})).status_code == 200

    async def look(client: httpx.AsyncClient) -> bool:
        shown = (await client.get(path)).json()
        return (shown["cap_credits"], shown["spent_credits"]) == (7, 1)

    return Belonging(look)


async def an_idempotency_key(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    body, key = generation_request(prompt=uuid4().hex), {"Idempotency-Key": uuid4().hex}
    first = (await guest.post("/v1/generations", json=body, headers=key)).json()["id"]
    await worker.paint()

    async def look(client: httpx.AsyncClient) -> bool:
        answer = await client.post("/v1/generations", json=body, headers=key)
        assert answer.status_code in (202, 409), answer.text
        await worker.drain_queue()
        return bool(answer.json().get("id") == first)

    return Belonging(look)


async def a_key_of_a_payment(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    body, key = {"rail": "fake", "credits": 100, "pay_asset": "USD"}, {"Idempotency-Key": uuid4().hex}
    first = (await guest.post("/v1/topups", json=body, headers=key)).json()["id"]

    async def look(client: httpx.AsyncClient) -> bool:
        return bool((await client.post("/v1/topups", json=body, headers=key)).json()["id"] == first)

    return Belonging(look)


async def a_place_in_the_stream(gateway: Gateway, guest: httpx.AsyncClient, worker: FakeWorker) -> Belonging:
    async with watching(guest) as stream:
        last = (await stream.next()).id
    assert last is not None
    job_id = await painted(guest, worker)

    async def look(client: httpx.AsyncClient) -> bool:
        refused = client.build_request("GET", "/v1/events", headers={"Last-Event-ID": last})
        answer = await client.send(refused, stream=True)
        await answer.aclose()
        if answer.status_code == 400:
            return False
        async with watching(client, last) as stream:
            return bool((await stream.until("generation"))[-1].data["id"] == job_id)

    return Belonging(look)


KINDS: dict[str, Make] = {
    "a generation": a_generation,
    "a list of images under way": a_list_of_images,
    "an image": an_image,
    "a thumbnail": a_thumbnail,
    "a receipt": a_receipt,
    "a refund that may be asked for": a_refund,
    "an open payment": an_open_payment,
    "a list of payments": a_list_of_payments,
    "a statement": a_statement,
    "a live session": a_live_session,
    "an Idempotency-Key": an_idempotency_key,
    "a payment's Idempotency-Key": a_key_of_a_payment,
    "a place in the stream of events": a_place_in_the_stream,
}


DECIDED: dict[str, str] = {
    "GET /v1/generations": "a list of images under way",
    "GET /v1/generations/{job_id}": "a generation",
    "DELETE /v1/generations/{job_id}": "cancelling",
    "GET /v1/generations/{job_id}/image": "an image, a thumbnail",
    "POST /v1/generations": "an Idempotency-Key",
    "GET /v1/topups": "a list of payments",
    "POST /v1/topups": "a payment's Idempotency-Key",
    "GET /v1/topups/{topup_id}": "a receipt, an open payment",
    "POST /v1/topups/{topup_id}/cancel": "closing",
    "GET /v1/topups/{topup_id}/refund": "a refund that may be asked for",
    "POST /v1/topups/{topup_id}/refund": "a refund that may be asked for",
    **dict.fromkeys(
        (
            "GET /v1/subscriptions",
            "GET /v1/subscriptions/{subscription_id}",
            *(
                f"POST /v1/subscriptions/{{subscription_id}}/{what}"
                for what in ("preview", "change", "cancel", "resume", "portal")
            ),
        ),
        "a plan is only a person's, whom nobody merges",
    ),
    "GET /v1/auto-topup": "a saved card is only a person's, whom nobody merges",
    "GET /v1/statement": "a statement",
    "GET /v1/events": "a place in the stream of events",
    "GET /v1/generations/sessions/{session_id}": "a live session",
    "PATCH /v1/generations/sessions/{session_id}": "a live session",
    "GET /sandbox/api/open": "the wallet of the try-out stack shows what was opened there",
    "POST /sandbox/api/pay": "anybody may pay",
    "GET /v1/mail": "letters go to the person: see mail/test_delivery",
    "DELETE /v1/session": "a session is the token's, and ends with it",
    "DELETE /v1/sessions": "a session is the token's, and ends with it",
    "POST /v1/session/recover": "paid credits: see test_sessions",
}
"""For each route that serves an account: what of a guest's it shows to the person, or why nothing."""

COLUMNS: dict[str, str] = {
    "job_queue": "a generation: its place",
    "job_inputs": "a generation: its seed",
    "job_results": "an image",
    "rail_payments": "a receipt, an open payment",
    "rail_subscriptions": "a plan: only people subscribe, and nobody merges a person",
    "rail_uses": "what a plan bills: only people subscribe, and nobody merges a person",
    "auto_topups": "only people save cards, and nobody merges a person",
    "auto_topup_stops": "work to be done; it finds whoever has the credits now",
    "statement_entries": "a statement",
    "account_feed": "a place in the stream of events",
    "stream_owners": "who made a stream; the feed is asked for all accounts",
    "idempotency_keys": "an Idempotency-Key",
    "job_funding": "a payment for one image",
    "fair_shares": "whose turn it is in the queue",
    "worker_failures": "evidence against workers, by account",
    "balances": "of one account; paid credits move by events",
    "account_merges": "work to be done",
    "account_due": "work to be done",
    "merged_accounts": "the decision itself",
    "mail_outbox": "a guest's letters go to the person: see mail/test_delivery",
    "mail_choices": "what the person chose; guests get no mail",
    "rail_link_openings": "places that are bounded for whoever opened the payment",
    "rail_openings": "places that are bounded for whoever opened the payment",
    "operators": "people alone are let in, and nobody merges a person",
    "people": "the person",
    "guests": "a recovery code opens nothing any more, and says whose the credits are",
    "l402_tokens": "the balance that a token names follows the account: see `Prepaid.principal`",
    "ended_sessions": "tokens that were ended, each the account's that it names",
    "session_epochs": "tokens that were ended, each the account's that it names",
}
"""For each table with an account: what follows the person, or why it stays."""


async def signed_in(gateway: Gateway, guest: httpx.AsyncClient) -> httpx.AsyncClient:
    """The person whom a guest became."""
    email = f"{uuid4().hex}@example.com"
    assert (await guest.post("/v1/session", json={"email": email})).status_code == 200
    return await gateway.person(email)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_guest_made_follows_the_person(gateway: Gateway, kind: str) -> None:
    guest, stranger, worker = await gateway.visitor(), await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    made = await KINDS[kind](gateway, guest, worker)
    assert await made.look(guest), "the guest cannot find it"
    person = await signed_in(gateway, guest)
    assert await made.look(person), "it did not follow the person"
    somebody = await gateway.person(f"{uuid4().hex}@example.com")
    assert not await made.look(stranger), "a stranger finds it"
    assert not await made.look(somebody), "somebody else finds it"


@pytest.mark.parametrize("kind", KINDS)
async def test_it_follows_through_a_chain_of_merges(gateway: Gateway, kind: str) -> None:
    first, second, worker = await gateway.visitor(), await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    made = await KINDS[kind](gateway, first, worker)
    code = (await gateway.open_topup(second, 100))["recovery_code"]
    answer = await first.post("/v1/session/recover", json={"recovery_code": code})
    assert answer.status_code == 200, answer.text
    person = await signed_in(gateway, second)
    assert await made.look(person), "it was lost on the way"


async def paid_from(client: httpx.AsyncClient, left: int) -> None:
    """Until so many paid credits are free: what a guest's hold gave back follows by itself."""

    async def there() -> bool:
        lots = (await client.get("/v1/account")).json()["lots"]
        return sum(lot["left"] for lot in lots if lot["source"] == "payment") == left

    await soon(there, "the credit that was held did not follow")


async def test_a_guests_waiting_job_is_cancelled_by_the_person_and_costs_nothing(gateway: Gateway) -> None:
    guest, worker = await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    await gateway.spend_allowance(guest)
    await gateway.top_up(guest, 100)
    job_id = await asked(guest)
    person = await signed_in(gateway, guest)
    stranger = await gateway.visitor()
    assert (await stranger.delete(f"/v1/generations/{job_id}")).status_code == 404
    assert (await person.delete(f"/v1/generations/{job_id}")).json()["state"] == "cancelled"
    await paid_from(person, 100)


@pytest.mark.parametrize("first", ["frame", "pause", "limit"])
async def test_a_guests_waiting_frame_gives_way_to_the_person_and_is_charged_once(
    gateway: Gateway, first: str
) -> None:
    guest, worker = await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    await gateway.spend_allowance(guest)
    await gateway.top_up(guest, 100)
    name = uuid4().hex
    path = f"/v1/generations/sessions/{name}"
    old = await asked(guest, live=True, session_id=name, seq=1)
    person = await signed_in(gateway, guest)
    await gateway.spend_allowance(person)
    shown = (await person.get(path)).json()
    assert (shown["spent_credits"], shown["paused"]) == (1, False)
    if first == "pause":
        assert (await person.patch(path, json={"paused": True})).json()["spent_credits"] == 0
        await paid_from(person, 100)
        assert (await person.patch(path, json={"paused": False})).status_code == 200
    elif first == "limit":
        assert (await person.patch(path, json={"cap_credits": 1})).json()["spent_credits"] == 1
    new = await asked(person, live=True, session_id=name, seq=2)
    ended = (await person.get(f"/v1/generations/{old}")).json()
    assert ended["state"] == ("cancelled" if first == "pause" else "superseded")
    assert ended["credits"] == {"held": 0, "captured": 0}
    assert await worker.paint() == new
    await paid_from(person, 99)
    assert (await person.get(path)).json()["spent_credits"] == 1
    report = await asyncio.to_thread(verify_everything, gateway.services.base.settings.database_url)
    assert report.ok, report.findings


async def test_a_guests_open_payment_is_closed_by_the_person(gateway: Gateway) -> None:
    guest = await gateway.visitor()
    opened = await gateway.open_topup(guest, 100)
    person, stranger = await signed_in(gateway, guest), await gateway.visitor()
    assert (await stranger.post(f"/v1/topups/{opened['id']}/cancel")).status_code == 404
    assert (await person.post(f"/v1/topups/{opened['id']}/cancel")).json()["state"] == "expired"


async def test_a_guests_payment_that_is_paid_after_signing_in_is_the_persons(gateway: Gateway) -> None:
    guest = await gateway.visitor()
    opened = await gateway.open_topup(guest, 100)
    person = await signed_in(gateway, guest)
    await gateway.pay(opened)

    async def paid() -> bool:
        return bool((await person.get(f"/v1/topups/{opened['id']}")).json()["state"] == "paid")

    await soon(paid, "it was never paid")


@pytest.mark.parametrize("rail", ["fake", "quiet"], ids=["held first", "never held"])
async def test_an_image_that_is_paid_after_signing_in_is_painted_and_the_persons(
    gateway: Gateway, rail: str
) -> None:
    guest, worker = await gateway.visitor(), await gateway.worker()
    await worker.drain_queue()
    body = {**PAID_APART, "funding": {"rail": rail, "pay_asset": "USD"}}
    wanted = (await guest.post("/v1/generations", json=body)).json()
    person = await signed_in(gateway, guest)
    topup, due = f"/v1/topups/{wanted['topup']['id']}", wanted["topup"]["amount_due"]
    assert (await person.get(topup)).status_code == 200
    free = (await person.get("/v1/account")).json()["free_today"]
    network = gateway.fake.network if rail == "fake" else gateway.quiet.network
    await network.pay(wanted["topup"]["instructions"]["text"], Money(due["amount_minor"], USD))
    await state_of(person, wanted["id"], "queued")
    assert await worker.paint() == wanted["id"]
    completed = await state_of(person, wanted["id"], "completed")
    assert completed["credits"] == {"held": 0, "captured": 1}
    assert (await person.get(completed["image_url"], follow_redirects=True)).status_code == 200
    account = (await person.get("/v1/account")).json()
    assert account["free_today"] == free
    assert not [lot for lot in account["lots"] if lot["source"] == "payment" and lot["left"]]
    entries = (await person.get("/v1/statement", params={"reference": wanted["id"]})).json()["entries"]
    assert "captured" in [entry["kind"] for entry in entries]


def test_every_route_that_serves_an_account_is_decided() -> None:
    owned = {route for route, access in TABLE.items() if access in (Access.ACCOUNT, Access.OWN)}
    assert owned == DECIDED.keys()


def test_every_table_that_names_an_account_is_decided() -> None:
    naming = {
        table.name
        for metadata in METADATA
        for table in metadata.tables.values()
        if {"account_id", "principal"} & {column.name for column in table.columns}
    }
    assert naming == COLUMNS.keys()
