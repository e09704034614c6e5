"""The world outside the card rail in these tests: the sandbox process, a network, an inbox for webhooks."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from ledger.clock import system_clock
from ledger.money import Asset
from ledger.plans import Plan
from rails.contract import Instructions, RailContext, ReferenceStore
from rails.recurring import Offer
from rails.stripe.catalogue import StripeCatalogue, wanted
from rails.stripe.plugin import build_rail, sdk_of
from rails.stripe.rail import CardRail
from rails.stripe.reading_subscriptions import lookup_key
from rails.testing.worlds import Impossible
from sandbox.embedded.ports import free_port
from tests.waiting import SECONDS_MAX

KEY = "sk_test_sandbox_of_the_tests"
SECRET = "whsec_sandbox_of_the_tests"


class OffsetClock:
    """The machine's clock, moved together with the sandbox's."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def __call__(self) -> datetime:
        return system_clock() + self.offset


@dataclass(frozen=True)
class Message:
    """One webhook message as it arrived."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    def is_about(self, kind: str, identifier: str) -> bool:
        event = self.event
        return event["type"] == kind and identifier in json.dumps(event["data"]["object"])


class Inbox:
    """A gateway as small as can be: takes webhook messages and answers with `status`."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.status = 200
        self.refused = 0
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def wait(self, is_so: Callable[[list[Message]], bool]) -> list[Message]:
        """Wait until the messages so far are as wanted."""
        async with asyncio.timeout(SECONDS_MAX), self._changed:
            await self._changed.wait_for(lambda: is_so(self.messages))
            return list(self.messages)

    async def message(self, kind: str, identifier: str) -> Message:
        """The first message of a kind about an object."""
        await self.wait(lambda all_: any(m.is_about(kind, identifier) for m in all_))
        return next(m for m in self.messages if m.is_about(kind, identifier))

    async def refusals(self, count: int) -> None:
        """Wait until that many messages were refused."""
        async with asyncio.timeout(SECONDS_MAX), self._changed:
            await self._changed.wait_for(lambda: self.refused >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
                lowered = {name.lower(): value for name, value in headers.items()}
                if head[0].startswith("GET"):  # a browser that comes back from the Checkout page
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nshop")
                    continue
                body = await reader.readexactly(int(lowered["content-length"]))
                async with self._changed:
                    if self.status == 200:
                        self.messages.append(Message(headers, body))
                    else:
                        self.refused += 1
                    self._changed.notify_all()
                writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        writer.close()


class Relay:
    """The network between rail and sandbox; it can be cut."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.cut = False

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.break_down()

    def break_down(self) -> None:
        self.cut = True
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            writer.close()
            return
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers |= {writer, other_writer}
        await asyncio.gather(self._copy(reader, other_writer), self._copy(other_reader, writer))
        self._writers -= {writer, other_writer}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@dataclass
class Sandbox:
    """The sandbox in a process of its own."""

    folder: Path
    webhook_url: str
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        secret = self.folder / "secret"
        secret.write_text(SECRET)
        arguments = ["--port", str(self.port), "--data", str(self.folder), "--webhook-url", self.webhook_url]
        arguments += ["--webhook-secret-file", str(secret), "--first-retry-ms", "50"]
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen([sys.executable, "-m", "sandbox.stripe", *arguments], stderr=log)
        log.close()
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                assert self._process.poll() is None, (self.folder / "log").read_text()
                await asyncio.sleep(0)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(SECONDS_MAX)

    async def control(self, path: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call the control API. Raises `Impossible` if the sandbox refuses."""
        async with httpx.AsyncClient(
            base_url=self.url, trust_env=False, verify=False, timeout=SECONDS_MAX
        ) as client:
            if values is None:
                response = await client.get(f"/sandbox/{path}")
            else:
                response = await client.post(f"/sandbox/{path}", json=dict(values))
        if response.is_error:
            raise Impossible(response.text)
        return dict(response.json())

    async def pay(self, session: str, outcome: str = "paid", **more: str) -> dict[str, Any]:
        return await self.control(f"checkout/{session}/pay", {"outcome": outcome, **more})

    async def api(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A raw API request, for what the SDK would not send."""
        headers = {"Authorization": f"Bearer {KEY}", **more.pop("headers", {})}
        async with httpx.AsyncClient(
            base_url=self.url, trust_env=False, verify=False, timeout=SECONDS_MAX
        ) as client:
            return await client.request(method, f"/v1/{path}", headers=headers, **more)

    async def logged(self) -> str:
        return (self.folder / "log").read_text()


@asynccontextmanager
async def running_inbox() -> AsyncIterator[Inbox]:
    inbox = Inbox()
    await inbox.start()
    yield inbox
    await inbox.stop()


@asynccontextmanager
async def running_sandbox(folder: Path, inbox: Inbox) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(folder, f"http://127.0.0.1:{inbox.port}/v1/hooks/card")
    await sandbox.start()
    yield sandbox
    assert sandbox.stop() == 0


LOST_AFTER_SECONDS = 2.0
"""After which a rail takes an answer for lost, where one is."""


class CardWorld:
    """The outside of the card rail, moved by the contract suite."""

    def __init__(self, sandbox: Sandbox, relay: Relay, inbox: Inbox) -> None:
        self.sandbox = sandbox
        self.inbox = inbox
        self._relay = relay
        self._clock = OffsetClock()
        self._rails: list[CardRail] = []
        self.offers = (Offer(plan="starter", length="month"), Offer(plan="pro", length="month"))
        self.metered, self.overage_minor = Offer(plan="studio", length="month"), 3

    @property
    def clock(self) -> OffsetClock:
        return self._clock

    async def start(self, references: ReferenceStore, **more: Any) -> CardRail:
        context = RailContext(clock=self._clock, references=references, production=False)
        settings: dict[str, Any] = {
            "poll_seconds": 0.05,
            "deadline_seconds": SECONDS_MAX,
            "retries": 0,
            "secrets": (SECRET,),
            "key": KEY,
            **more,
        }
        rail = build_rail(context, base=f"http://127.0.0.1:{self._relay.port}", **settings)
        self._rails.append(rail)
        return rail

    async def pay(
        self, instructions: Instructions, amount: int | None = None, asset: Asset | None = None
    ) -> None:
        if amount is not None or asset is not None:
            raise Impossible("Checkout takes what was asked, in the currency asked for")
        await self.sandbox.pay(instructions.reference)

    async def settle_world(self) -> None:
        """A card payment is final by Stripe's rule at once."""

    async def expire(self, instructions: Instructions) -> None:
        await self.move_clock(timedelta(hours=2))

    async def move_clock(self, step: timedelta) -> None:
        self._clock.offset += step
        await self.sandbox.control("clock", {"advance_seconds": int(step.total_seconds())})

    async def reverse(self, instructions: Instructions) -> None:
        await self.sandbox.control("refund", {"session": instructions.reference})

    async def dispute(self, instructions: Instructions) -> None:
        await self.sandbox.control("dispute", {"session": instructions.reference})

    async def end_dispute(self, instructions: Instructions, *, won: bool) -> None:
        status = "won" if won else "lost"
        await self.sandbox.control("dispute", {"session": instructions.reference, "status": status})

    async def decline(self, instructions: Instructions) -> None:
        await self.sandbox.pay(instructions.reference, "declined", decline_code="insufficient_funds")

    async def stock(self) -> None:
        """Put both plans into the catalogue, once."""
        offers = (*self.offers, Offer(plan=self.offers[0].plan, length="year"))
        for offer, cents in zip(offers, ("800", "2000", "8000"), strict=True):
            product = await self.sandbox.api("POST", "products", data={"name": offer.plan.title()})
            price = {
                "product": product.json()["id"],
                "currency": "usd",
                "unit_amount": cents,
                "lookup_key": lookup_key(offer),
                "recurring[interval]": offer.length,
                "metadata[plan]": offer.plan,
            }
            await self.sandbox.api("POST", "prices", data=price)

    async def stock_metered(self) -> None:
        """Put the meter and a plan beyond which use is billed into the catalogue, as `stripe sync` does."""
        plan = Plan(
            name=self.metered.plan,
            label="Studio",
            price_usd_minor=3_000,
            period="month",
            credits=9_000,
            rank=3,
            overage_limit=100,
            overage_usd_minor=self.overage_minor,
        )
        client, transport = sdk_of(
            {"STRIPE_SECRET_KEY": KEY, "STRIPE_API_BASE": f"http://127.0.0.1:{self._relay.port}"}
        )
        catalogue = StripeCatalogue(client)
        try:
            for change in await catalogue.changes(list(wanted([plan], []))):
                await catalogue.apply(change)
        finally:
            await transport.close_async()

    async def pay_page(self, instructions: Instructions) -> None:
        await self.sandbox.pay(instructions.reference)

    async def decline_page(self, instructions: Instructions) -> None:
        await self.decline(instructions)

    async def next_period(self, reference: str) -> None:
        await self.move_clock(timedelta(days=31))

    async def put_card(self, reference: str, *, works: bool) -> None:
        await self.sandbox.control(f"subscriptions/{reference}/card", {"last4": "4242" if works else "0341"})

    async def pay_invoice(self, reference: str) -> None:
        await self.sandbox.control(f"invoices/{reference}/pay", {"outcome": "paid"})

    async def end_at_once(self, reference: str) -> None:
        await self.sandbox.api("DELETE", f"subscriptions/{reference}")

    async def pause(self, reference: str) -> None:
        data = {"pause_collection[behavior]": "void"}
        await self.sandbox.api("POST", f"subscriptions/{reference}", data=data)

    async def reverse_invoice(self, reference: str) -> None:
        invoice = (await self.sandbox.api("GET", f"invoices/{reference}?expand[]=payments")).json()
        intent = invoice["payments"]["data"][0]["payment"]["payment_intent"]
        await self.sandbox.control("refund", {"payment_intent": intent})

    async def break_down(self) -> None:
        self._relay.break_down()

    async def restore(self) -> None:
        self._relay.cut = False

    async def lose_next_answer(self) -> None:
        for rail in self._rails:  # they would wait for it as long as for anything
            rail._calls._deadline_seconds = LOST_AFTER_SECONDS
        await self.sandbox.control("faults", {"timeout_after_commit": 1})

    async def webhook(self, instructions: Instructions) -> tuple[Mapping[str, str], bytes]:
        message = await self.inbox.message("checkout.session.completed", instructions.reference)
        return message.headers, message.body

    async def calm(self) -> None:
        """Forget faults and clock steps."""
        await self.sandbox.control("faults", {"reset": True})
        await self.sandbox.control("clock", {"reset": True})
        self._clock.offset = timedelta()
        self.inbox.status = 200
