"""Customers as programs: they repeat what was not acknowledged, and keep their own account of every credit."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from tests.e2e.people import scribble
from tests.e2e.stack import Stack
from tests.waiting import SECONDS_MAX, Answer, eventually, until

FREE = 20
PACK = 50
PAUSE_SECONDS = 0.1
ENDED = frozenset({"completed", "failed", "cancelled", "superseded", "expired", "blocked"})
PASSING = frozenset({429, 500, 502, 503, 504})
RAILS = ("lightning", "liquid", "card")


class Customer:
    """One visitor of the API."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._http = httpx.AsyncClient(base_url=stack.url)
        self.jobs: dict[str, str] = {}
        """Acknowledged jobs, and the state each was first seen to end in."""
        self.paid: dict[str, int] = {}
        """Credits that were paid for, by top-up."""
        self.doubtful: dict[str, int] = {}
        """The same where the wallet died before it said whether the money had left."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def begin(self) -> None:
        """Become a visitor."""
        answer = await self._ask("POST", "/v1/visitors", {})
        self._http.headers["Authorization"] = f"Bearer {answer['token']}"

    # --- images ---

    async def request(self, prompt: str) -> str:
        """Ask for an image until that is acknowledged, under one key; the job."""
        answer = await self._ask("POST", "/v1/generations", {"prompt": prompt, "sketch": scribble()})
        job = str(answer["id"])
        self.jobs[job] = ""
        return job

    async def ends(self, job: str) -> str:
        """Wait for the end of a job; the state it ended in."""
        ended = await self._until(f"/v1/generations/{job}", lambda now: now["state"] in ENDED)
        self.jobs[job] = str(ended["state"])
        return self.jobs[job]

    async def paint_until_it_ends(self, prompt: str) -> str:
        """One image, delivered; its job."""
        job = await self.request(prompt)
        assert await self.ends(job) == "completed"
        return job

    async def image(self, job: str) -> bytes:
        """The image itself."""
        answer = await self._http.get(f"/v1/generations/{job}/image", follow_redirects=True)
        assert answer.status_code == 200
        return answer.content

    # --- money ---

    async def open(self, rail: str) -> dict[str, Any]:
        """A top-up that waits for money; tried again as long as the rail is closed."""
        while True:
            topup = await self._ask("POST", "/v1/topups", {"rail": rail, "credits": PACK, **_asset(rail)})
            if topup["state"] == "opening":
                topup = await self._until(f"/v1/topups/{topup['id']}", lambda now: now["state"] != "opening")
            if topup["state"] == "waiting":
                return topup

    async def pay(self, topup: dict[str, Any]) -> bool:
        """Pay from the sandbox's wallet until that is acknowledged; never twice. False: nobody knows."""
        instructions = topup["instructions"]
        match topup["rail"]:
            case "lightning":
                await self._pay("SANDBOX_LND_CONTROL_URL", "/sandbox/pay", {"bolt11": instructions["text"]})
            case "liquid":
                try:
                    await self._pay(
                        "SANDBOX_ELEMENTS_CONTROL_URL",
                        "/sandbox/pay",
                        {"uri": instructions["uri"]},
                        repeat=False,
                    )
                except httpx.TransportError:
                    self.doubtful[topup["id"]] = int(topup["credits"])
                    return False
            case _:
                session = urlsplit(instructions["url"]).path.rsplit("/", 1)[-1]
                path = f"/sandbox/checkout/{session}/pay"
                await self._pay("SANDBOX_STRIPE_CONTROL_URL", path, {"outcome": "paid"})
        self.paid[topup["id"]] = int(topup["credits"])
        return True

    async def credited(self, topup: dict[str, Any]) -> None:
        """Wait until it is paid."""
        await self._until(f"/v1/topups/{topup['id']}", lambda now: now["state"] == "paid")

    async def top_up(self, rail: str) -> None:
        """Open, pay, wait."""
        topup = await self.open(rail)
        await self.pay(topup)
        await self.credited(topup)

    # --- sums ---

    async def adds_up(self) -> None:
        """Every job ended in one state for good, every payment was credited once, and the sum is right."""
        for job, state in self.jobs.items():
            assert (await self._ask("GET", f"/v1/generations/{job}"))["state"] == state != ""
        entries = await self._statement()
        granted = Counter[str]()
        for entry in entries:
            if entry["kind"] == "granted" and entry["reference"]["type"] == "topup":
                granted[entry["reference"]["id"]] += entry["credits"]
        arrived = {topup: count for topup, count in self.doubtful.items() if topup in granted}
        assert dict(granted) == self.paid | arrived
        ends = Counter(
            entry["reference"]["id"]
            for entry in entries
            if entry["kind"] in {"captured", "released", "hold_expired"}
        )
        assert ends == Counter(dict.fromkeys(self.jobs, 1))
        completed = sum(state == "completed" for state in self.jobs.values())
        now = (await self._ask("GET", "/v1/account"))["credits"]
        assert (now["available"], now["held"]) == (FREE + granted.total() - completed, 0)

    async def _statement(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = await self._ask("GET", f"/v1/statement?limit=200{cursor}")
            entries += page["entries"]
            if page["next_cursor"] is None:
                return entries
            cursor = f"&cursor={page['next_cursor']}"

    # --- asking ---

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask until there is an answer that means something, always under the same key."""
        headers = {"Idempotency-Key": secrets.token_hex(16)} if method == "POST" else {}

        async def once() -> httpx.Response | None:
            with contextlib.suppress(httpx.TransportError):
                answer = await self._http.request(method, path, json=body, headers=headers)
                if answer.status_code not in PASSING:
                    return answer
            return None

        answer = await _patiently(once, lambda answer: answer is not None, f"{path} answers")
        assert answer is not None
        assert answer.is_success, f"{path} answered {answer.status_code}: {answer.text}"
        return answer.json()

    async def _until(self, path: str, wanted: Callable[[Any], bool]) -> Any:
        return await _patiently(lambda: self._ask("GET", path), wanted, f"{path} has moved on")

    async def _pay(self, control: str, path: str, body: dict[str, str], *, repeat: bool = True) -> None:
        url = self._stack.setting(control) + path

        async def once() -> bool:
            try:
                answer = await self._http.post(url, json=body)
            except httpx.TransportError as error:
                # Who could not be reached heard nothing.
                if not repeat and not isinstance(error, httpx.ConnectError):
                    raise
                return False
            # The node refuses a second payment of one invoice, Checkout one of a completed session.
            assert answer.is_success or "already" in answer.text or "complete" in answer.text, answer.text
            return True

        await _patiently(once, bool, f"{path} is acknowledged")


async def _patiently(
    ask: Callable[[], Awaitable[Answer]], wanted: Callable[[Answer], bool], what: str
) -> Answer:
    return await until(ask, wanted, what, seconds_max=SECONDS_MAX, pause_seconds=PAUSE_SECONDS)


def _asset(rail: str) -> dict[str, str]:
    return {"pay_asset": "USDT"} if rail == "liquid" else {}


class Load:
    """Some customers, each always painting something or paying for something."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.customers: list[Customer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._topups: list[tuple[Customer, dict[str, Any]]] = []

    @property
    def painted(self) -> int:
        """Images delivered so far."""
        return sum(list(customer.jobs.values()).count("completed") for customer in self.customers)

    @property
    def failed(self) -> int:
        """Jobs that ended otherwise."""
        return sum(
            state not in {"", "completed"} for customer in self.customers for state in customer.jobs.values()
        )

    async def __aenter__(self) -> Self:
        rails = itertools.cycle(RAILS)
        for number in range(len(RAILS)):
            customer = Customer(self._stack)
            await customer.begin()
            self.customers.append(customer)
            self._tasks.append(asyncio.create_task(self._go_on(customer, rails, number)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for customer in self.customers:
            await customer._http.aclose()

    async def _go_on(self, customer: Customer, rails: Iterator[str], number: int) -> None:
        while not self._stopping:
            topup = await customer.open(next(rails))
            job = await customer.request(f"llama {number} of many")
            if await customer.pay(topup):
                self._topups.append((customer, topup))
            await customer.ends(job)

    async def under_way(self) -> None:
        """Return at a moment when a job is in the queue or being painted."""

        def busy() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return any("" in customer.jobs.values() for customer in self.customers)

        await eventually(busy, "a job is under way")

    async def finish(self) -> None:
        """Let everything that was begun come to its end."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        for customer, topup in self._topups:
            await customer.credited(topup)
