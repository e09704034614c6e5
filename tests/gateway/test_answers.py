"""Every route declares what it answers, and a running gateway answers exactly that."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from fastapi.routing import APIRoute
from pydantic import BaseModel

from gateway.reference.openapi import ROUTERS
from gateway.routes.events import FRAMES
from ledger.clock import system_clock
from ledger.identifiers import PaymentId
from ledger.money import USD, USDT, Money
from rails.contract import ReceiptState
from rails.movements import MovementKind
from sandbox.embedded.ports import free_port
from sandbox.mail.app import Stand
from sandbox.mail.reception import Door
from tests.gateway.conftest import Open
from tests.gateway.golden import golden
from tests.gateway.stack import (
    FakeWorker,
    Gateway,
    generation_request,
    operator_of,
    picture,
    registration,
    soon,
)
from tests.gateway.streaming import jpeg, watching
from tests.gateway.surface import fields_of
from tests.gateway.test_subscriptions import PRICES
from tests.waiting import eventually

NAMES = (
    "job_id",
    "topup_id",
    "session_id",
    "rail",
    "payment_id",
    "account_id",
    "refund_id",
    "subscription_id",
    "token",
)
"""What paths name."""
NOT_JSON = {
    "GET /v1/generations/{job_id}/image": "a redirect to the image",
    "GET /v1/events": "a stream, whose frames are declared in FRAMES",
}


def routes() -> dict[str, APIRoute]:
    """Every operation of the API's description."""
    return {
        f"{method} {route.path_format}": route
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods
    }


def same_after_reading(shape: type[BaseModel], sent: Any) -> bool:
    """Whether the model reads what was sent, member by member, and would send the same."""
    read = shape.model_validate_json(json.dumps(sent))
    return bool(read.model_dump(mode="json", exclude_unset=True, by_alias=True) == sent)


class Answers:
    """Asks one operation after another, and holds each answer against the model that its route declares."""

    def __init__(self) -> None:
        self.checked: set[str] = set()
        self._routes = routes()

    async def ask(self, client: httpx.AsyncClient, operation: str, **request: Any) -> Any:
        """One answer; the names in the path are taken from `request`."""
        method, _, path = operation.partition(" ")
        names = {name: request.pop(name) for name in NAMES if name in request}
        answer = await client.request(method, path.format(**names), **request)
        assert answer.is_success, (operation, answer.status_code, answer.text)
        return self.check(operation, answer)

    def check(self, operation: str, answer: httpx.Response) -> Any:
        sent = answer.json()
        assert same_after_reading(self._routes[operation].response_model, sent), (operation, sent)
        self.checked.add(operation)
        return sent


def test_every_route_that_answers_json_declares_its_model() -> None:
    undeclared = {name for name, route in routes().items() if not _is_model(route.response_model)}
    assert undeclared == set(NOT_JSON)


def _is_model(shape: Any) -> bool:
    return isinstance(shape, type) and issubclass(shape, BaseModel)


def test_the_frames_of_the_stream_are_the_promised_ones() -> None:
    assert {event: fields_of(shape.model_json_schema()) for event, shape in FRAMES.items()} == golden(
        "frames"
    )


async def test_every_answer_is_the_declared_one(open_gateway: Open, tmp_path: Path) -> None:
    answers = Answers()
    await of_mail(open_gateway, tmp_path, answers)
    async with open_gateway() as gateway:
        await of_accounts(gateway, answers)
        await of_payments(gateway, answers)
        await of_operators(gateway, answers)
        await of_subscriptions(gateway, answers)
        await of_links(gateway, answers)
        await of_prepaid_tokens(gateway, answers)
        await of_images(gateway, answers)
        await of_workers(gateway, answers)
        assert set(routes()) - answers.checked == set(NOT_JSON)


async def of_accounts(gateway: Gateway, answers: Answers) -> None:
    nobody, browser = gateway.client(), gateway.browser()
    visitor = gateway.bearer((await answers.ask(nobody, "POST /v1/visitors"))["token"])
    for client in (visitor, await gateway.person("ada@example.org")):
        await answers.ask(client, "GET /v1/account")
        await answers.ask(client, "GET /v1/session")
    await answers.ask(browser, "POST /v1/session", json={"email": "ada@example.org"})
    await answers.ask(browser, "DELETE /v1/session", headers={"Content-Type": "application/json"})
    await answers.ask(await gateway.visitor(), "DELETE /v1/sessions")
    await answers.ask(nobody, "GET /v1/plans")
    await answers.ask(nobody, "GET /v1/rails")
    await answers.ask(nobody, "GET /health")


async def of_payments(gateway: Gateway, answers: Answers) -> None:
    guest, topup = await gateway.visitor(), {"rail": "fake", "credits": 100, "pay_asset": "USD"}
    opened = await answers.ask(guest, "POST /v1/topups", json=topup)
    await gateway.pay(opened)

    async def paid() -> bool:
        shown = await answers.ask(guest, "GET /v1/topups/{topup_id}", topup_id=opened["id"])
        return bool(shown["state"] == "paid")

    await soon(paid, "the top-up was paid")
    refund = "/v1/topups/{topup_id}/refund"
    await answers.ask(guest, f"GET {refund}", topup_id=opened["id"])
    await answers.ask(guest, f"POST {refund}", topup_id=opened["id"], json={"credits": 5})
    await answers.ask(guest, "GET /v1/topups/{topup_id}", topup_id=opened["id"])
    other = await answers.ask(guest, "POST /v1/topups", json=topup)
    await answers.ask(guest, "POST /v1/topups/{topup_id}/cancel", topup_id=other["id"])
    await answers.ask(guest, "GET /v1/topups")
    await answers.ask(guest, "GET /v1/account")
    await answers.ask(guest, "GET /v1/statement")
    reference = (await gateway.services.payments.payments.store.reference(PaymentId(opened["id"]))).reference
    headers, content = gateway.fake.network.webhook(reference, "of-a-test")
    await answers.ask(
        gateway.client(), "POST /v1/hooks/{rail}", rail="fake", headers=headers, content=content
    )
    code = {"recovery_code": opened["recovery_code"]}
    await answers.ask(await gateway.visitor(), "POST /v1/session/recover", json=code)
    await answers.ask(await gateway.person("bob@example.org"), "POST /v1/session/recover", json=code)


async def of_operators(gateway: Gateway, answers: Answers) -> None:
    client, payer = await operator_of(gateway), await gateway.visitor()
    quiet = {"rail": "quiet", "credits": 100, "pay_asset": "USD"}
    opened = (await payer.post("/v1/topups", json=quiet)).json()
    await gateway.quiet.network.pay(opened["instructions"]["text"], Money(100, USD))

    async def paid() -> bool:
        return bool((await payer.get(f"/v1/topups/{opened['id']}")).json()["state"] == "paid")

    await soon(paid, "the top-up was paid")
    payment, account = opened["id"], (await payer.get("/v1/account")).json()["id"]
    await payer.get("/v1/statement")

    async def write(path: str, **more: Any) -> Any:
        ids = {name: more.pop(name) for name in ("payment_id", "account_id", "refund_id") if name in more}
        key = {"Idempotency-Key": path}
        return await answers.ask(
            client, f"POST /v1/operator/{path}", **ids, headers=key, json={"reason": "a test", **more}
        )

    refunded = await write("payments/{payment_id}/refund", payment_id=payment, credits=5)
    await answers.ask(client, "GET /v1/operator/attention")
    await write(
        "payments/{payment_id}/refunds/{refund_id}",
        payment_id=payment,
        refund_id=refunded["refunds"][0]["id"],
        sent=True,
        reference="txid",
    )
    money = await gateway.quiet.network.pay(opened["instructions"]["text"], Money(5_000_000_000, USDT))

    async def suspended() -> bool:
        shown = await answers.ask(client, "GET /v1/operator/payments/{payment_id}", payment_id=payment)
        return bool(shown["suspended"])

    await soon(suspended, "the money was in suspense")
    await answers.ask(client, "GET /v1/operator/attention")
    await write(
        "payments/{payment_id}/suspense", payment_id=payment, money_ref=money, action="assign", credits=5
    )
    await write("accounts/{account_id}/adjust", account_id=account, credits=5)
    reference = opened["instructions"]["text"]
    await gateway.spend(account, (await payer.get("/v1/account")).json()["credits"]["available"])
    for known in list(gateway.quiet.network.way(reference).receipts.values()):
        await gateway.quiet.network.change(reference, known.money_ref, ReceiptState.DISPUTED)

    async def owes() -> bool:
        return bool((await payer.get("/v1/account")).json()["credits"]["debt"] > 0)

    await soon(owes, "the account owed something")
    await answers.ask(client, "GET /v1/operator/attention")
    await write("accounts/{account_id}/forgive", account_id=account, credits=1)
    await answers.ask(client, "GET /v1/operator/payments")
    gateway.fake.network.books.add(MovementKind.OTHER, Money(7, USD), at=system_clock() - timedelta(hours=2))
    await answers.ask(client, "POST /v1/operator/differences", json={})

    async def differs() -> bool:
        return bool((await answers.ask(client, "GET /v1/operator/differences"))["differences"])

    await soon(differs, "the books were compared")


async def of_subscriptions(gateway: Gateway, answers: Answers) -> None:
    client, outside = await gateway.person("carol@example.org"), gateway.fake.network.subscriptions
    outside.prices = PRICES
    wanted = {"rail": "fake", "plan": "starter"}
    opened = await answers.ask(client, "POST /v1/subscriptions", json=wanted)
    one, name = "/v1/subscriptions/{subscription_id}", opened["id"]
    await outside.pay(opened["page_url"].rpartition("/")[2])

    async def is_active() -> bool:
        shown = await answers.ask(client, f"GET {one}", subscription_id=name)
        return bool(shown["status"] == "active")

    await soon(is_active, "the subscription began")
    await answers.ask(client, "GET /v1/subscriptions")
    shown = await answers.ask(client, f"POST {one}/preview", subscription_id=name, json={"plan": "pro"})
    larger = {"plan": "pro", "prorated_at": shown["prorated_at"]}
    await answers.ask(client, f"POST {one}/change", subscription_id=name, json=larger)
    for what in ("cancel", "resume", "portal"):
        await answers.ask(client, f"POST {one}/{what}", subscription_id=name)
    agreement = {"pack": "pack_500", "threshold": 50, "limit_minor": 2_000, "consent": True}
    saving = await answers.ask(client, "POST /v1/auto-topup", json=agreement)
    gateway.fake.network.saved.save(saving["page_url"].rpartition("/")[2])
    await answers.ask(client, "GET /v1/auto-topup")
    for what in ("card", "off"):
        await answers.ask(client, f"POST /v1/auto-topup/{what}")
    await answers.ask(client, "GET /v1/account")


async def of_mail(open_gateway: Open, folder: Path, answers: Answers) -> None:
    stand = Stand(folder / "mail", product_url="", now=lambda: datetime.now(UTC))
    port = free_port()
    settings = {
        "smtp_url": f"smtp+plain://127.0.0.1:{port}",
        "mail_from": "LlamaSketch <mail@llamas.art>",
        "sign_in": "link",
    }
    async with stand.receiving(port, Door()), open_gateway(**settings) as gateway:
        browser, address = gateway.browser(), {"email": "ada@llamas.art"}
        await answers.ask(browser, "POST /v1/session/links", json=address)
        await eventually(lambda: bool(stand.mailbox.all()), "a letter")
        (letter,) = stand.mailbox.all()
        text = letter.parsed().get_body(("plain",)).get_content()  # type: ignore[union-attr]
        (link,) = re.findall(r"/sign-in#(\S+)", text)
        await answers.ask(browser, "GET /v1/session/links", headers={"Authorization": f"Bearer {link}"})
        await answers.ask(browser, "POST /v1/session", json={"link": link})
        shown = await answers.ask(browser, "GET /v1/mail")
        choice = {"token": shown["url"].rpartition("/")[2]}
        await answers.ask(gateway.client(), "GET /v1/mail/{token}", **choice)
        await answers.ask(gateway.client(), "PUT /v1/mail/{token}", json={"optional": True}, **choice)
        clicked = {"List-Unsubscribe": "One-Click"}
        await answers.ask(gateway.client(), "POST /v1/mail/{token}", data=clicked, **choice)


async def of_links(gateway: Gateway, answers: Answers) -> None:
    account_id = (await (await gateway.visitor()).get("/v1/account")).json()["id"]
    link = gateway.bearer(gateway.services.identity.topup_links.issue(account_id, 4).partition("#")[2])
    await answers.ask(link, "GET /v1/topup-link")
    wanted = {"rail": "fake", "credits": 100, "pay_asset": "USD"}
    opened = await answers.ask(link, "POST /v1/topup-link/topups", json=wanted)
    await answers.ask(link, "GET /v1/topup-link/topups/{topup_id}", topup_id=opened["id"])


async def of_prepaid_tokens(gateway: Gateway, answers: Answers) -> None:
    client, network = gateway.client(), gateway.fake.network
    refused = await client.post(
        "/v1/generations", json=generation_request(), headers={"Accept-Payment": "L402"}
    )
    _, macaroon, _, invoice, *_ = refused.headers["www-authenticate"].split('"')
    await network.pay(invoice, network.way(invoice).order.amount_due)
    paid = {"Authorization": f"L402 {macaroon}:{network.secret(invoice).hex()}"}
    await answers.ask(client, "DELETE /v1/l402", headers=paid)


async def of_images(gateway: Gateway, answers: Answers) -> None:
    client = await gateway.visitor()
    paid_alone = generation_request(funding={"rail": "fake", "pay_asset": "USD"})
    waiting = await answers.ask(client, "POST /v1/generations", json=paid_alone)
    due = waiting["topup"]["amount_due"]
    await gateway.fake.network.pay(f"fake-{waiting['topup']['id']}", Money(due["amount_minor"], USD))
    asked = await answers.ask(client, "POST /v1/generations", json=generation_request())
    await answers.ask(client, "GET /v1/generations")
    await answers.ask(client, "GET /v1/generations/{job_id}", job_id=asked["id"])
    await answers.ask(client, "DELETE /v1/generations/{job_id}", job_id=asked["id"])
    frame = generation_request(live=True, session_id="sketch", seq=1)
    live = await answers.ask(client, "POST /v1/generations", json=frame)
    session = "/v1/generations/sessions/{session_id}"
    await answers.ask(client, f"GET {session}", session_id="sketch")
    await answers.ask(client, f"PATCH {session}", session_id="sketch", json={"cap_credits": 3})
    for job_id in (live["id"], waiting["id"]):
        await client.delete(f"/v1/generations/{job_id}")
    await answers.ask(client, "GET /v1/statement")


async def of_workers(gateway: Gateway, answers: Answers) -> None:
    client = await gateway.visitor()
    worker = await _registered(gateway, answers)
    report = "POST /v1/worker/jobs/{job_id}/"
    for end, more in (
        ("give-back", {}),
        ("fail", {"failure": "input", "code": "node_refused"}),
    ):
        asked = await client.post("/v1/generations", json=generation_request())
        job = await _claimed(worker, answers)
        assert job["id"] == asked.json()["id"]
        await answers.ask(worker.client, report + end, job_id=job["id"], json={"epoch": job["epoch"], **more})
        await client.delete(f"/v1/generations/{job['id']}")
    asked = await client.post("/v1/generations", json=generation_request())
    job, data = await _claimed(worker, answers), picture()
    progress = {"epoch": job["epoch"], "progress": {"value": 1, "max": 4}}
    await answers.ask(worker.client, report + "heartbeat", job_id=job["id"], json=progress)
    await worker.upload(job, data)
    answers.check(report + "complete", await worker.report(job, data))
    await answers.ask(client, "GET /v1/generations/{job_id}", job_id=job["id"])
    await answers.ask(client, "GET /v1/statement")
    await answers.ask(worker.client, "POST /v1/worker/graphs", json={"graphs": ["sketch@1"]})
    trial = await answers.ask(worker.client, "POST /v1/worker/trial-upload")
    sent = await worker.client.put(trial["url"], content=b"\0" * 1000, headers=trial["headers"])
    assert sent.is_success
    uploads = gateway.settings.data / "objects" / "uploads"
    assert list(uploads.glob(f"{worker.worker_id}/*"))
    await answers.ask(worker.client, "POST /v1/worker/trial-upload/end")
    assert not list(uploads.glob(f"{worker.worker_id}/*"))
    await answers.ask(worker.client, "POST /v1/worker/self-test", json={"passed": True})
    await answers.ask(worker.client, "POST /v1/worker/drain")
    await answers.ask(worker.client, "POST /v1/worker/resume")
    lost = await answers.ask(worker.client, report + "heartbeat", job_id=job["id"], json=progress)
    assert lost["command"] == "lost"


async def _registered(gateway: Gateway, answers: Answers) -> FakeWorker:
    token = gateway.registration_token()
    given = await answers.ask(gateway.client(), "POST /v1/worker/register", json=registration(token))
    first = gateway.bearer(given["token"])
    given = await answers.ask(first, "POST /v1/worker/renew")
    return FakeWorker(gateway.bearer(given["token"]), given["worker_id"])


async def _claimed(worker: FakeWorker, answers: Answers) -> Any:
    return (await answers.ask(worker.client, "POST /v1/worker/claim", json={"wait_seconds": 5}))["job"]


async def test_every_frame_of_the_stream_is_the_declared_one(open_gateway: Open) -> None:
    async with open_gateway() as gateway:
        client, worker = await gateway.visitor(), await gateway.worker()
        async with asyncio.timeout(60), watching(client) as stream:
            frames = [await stream.next()]
            await gateway.top_up(client)
            frames += await stream.until("topup", state="paid")
            await client.post("/v1/generations", json=generation_request())
            frames += await stream.until("progress", state="queued")
            job = await worker.take()
            await worker.say(job, "heartbeat", progress={"value": 1, "max": 4}, preview=jpeg(64))
            frames += await stream.until("progress", value=1)
            await worker.deliver(job)
            frames += await stream.until("generation", state="completed")
    assert {frame.event for frame in frames} == set(FRAMES)
    wrong = [frame for frame in frames if not same_after_reading(FRAMES[frame.event], frame.data)]
    assert not wrong
