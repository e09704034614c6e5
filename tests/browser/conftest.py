"""A browser, and the pages in front of the real application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from playwright.async_api import Browser, BrowserContext, Page

from gateway.database.schema import migrate_async
from tests.browser.product import Product, running_product
from tests.gateway.stack import settings_for
from tests.waiting import SECONDS_MAX, until

NODE_MODULES = Path(__file__).parents[2] / "node_modules"
EXPECTED = ("status of 402", "status of 404", "status of 422", "status of 503", "net::ERR_")
REFUSED = ("status of 403", "status of 409", "status of 429")
"""Also where a link is asked by (one that has ended, one whose places are taken), or an operator asks."""


@dataclass
class Visitor:
    """One person with a browser of their own, who notices every fault on the console."""

    context: BrowserContext
    page: Page
    product: Product
    faults: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    """What this console may say besides."""

    @property
    def base(self) -> str:
        return self.product.url

    async def get(self, path: str) -> Any:
        """Read from the API as this browser, past the page."""
        answer = await self.context.request.get(self.base + path)
        assert answer.ok, f"{path} answered {answer.status}: {await answer.text()}"
        return await answer.json()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Write to the API as this browser, past the page."""
        answer = await self.context.request.post(self.base + path, data=body, headers={"Origin": self.base})
        assert answer.ok, f"{path} answered {answer.status}: {await answer.text()}"
        return await answer.json()

    async def visit(self, path: str) -> None:
        """Open a page."""
        await self.page.goto(self.base + path)

    async def has_free_images(self, left: int) -> None:
        """All but so many of today's free images are used up."""
        account = await self.get("/v1/account")
        await self.product.gateway.spend(account["id"], account["free_today"]["left"] - left)

    async def open_topup(self, rail: str = "lightning", asset: str = "BTC", count: int = 500) -> str:
        """A top-up made past the page; its id."""
        made = await self.post("/v1/topups", {"rail": rail, "credits": count, "pay_asset": asset})
        return str(made["id"])

    async def topup_is(self, topup: str, state: str) -> None:
        """Wait until the application says so."""
        await until(
            lambda: self.product.payments.topup(topup),
            lambda view: view.state == state,
            f"{topup} is {state}",
        )

    async def stroke(self, *points: tuple[float, float]) -> None:
        """Draw with the mouse; coordinates are parts of the sheet."""
        worker = await self.page.locator("canvas.sheet").bounding_box()
        assert worker
        places = [(worker["x"] + x * worker["width"], worker["y"] + y * worker["height"]) for x, y in points]
        await self.page.mouse.move(*places[0])
        await self.page.mouse.down()
        for place in places[1:]:
            await self.page.mouse.move(*place, steps=4)
        await self.page.mouse.up()

    async def ink(self) -> int:
        """How many pixels of the sheet are drawn on."""
        count = await self.page.evaluate(
            """() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => {
              const canvas = document.querySelector("canvas.sheet");
              const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              let inked = 0;
              for (let at = 3; at < data.length; at += 4) if (data[at] > 40) inked += 1;
              resolve(inked);
            })))"""
        )
        return int(count)


@pytest_asyncio.fixture(scope="package")
async def running_app(
    make_database: Callable[..., str], valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Product]:
    """The application, on a database of its own."""
    url = await asyncio.to_thread(make_database)
    await migrate_async(url.replace("postgresql://", "postgresql+psycopg://", 1))
    before = structlog.get_config()
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
    async with running_product(settings_for(url, valkey_url, tmp_path_factory.mktemp("data"))) as product:
        yield product
    structlog.configure(**before)


def _drop(logger: Any, name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    raise structlog.DropEvent


@pytest_asyncio.fixture
async def product(running_app: Product) -> AsyncIterator[Product]:
    """The application with nothing wrong in the world around it, and its worker at work."""
    await running_app.reset()
    yield running_app
    await running_app.reset()


Arrive = Callable[..., Any]


@pytest_asyncio.fixture
async def arrive(chromium: Browser, product: Product) -> AsyncIterator[Arrive]:
    """Make visitors: `await arrive(theme="dark", width=360)`. Their consoles must stay clean."""
    visitors: list[Visitor] = []

    async def make(
        *, theme: str = "light", width: int = 1280, workers: str = "block", **options: Any
    ) -> Visitor:
        context = await chromium.new_context(
            viewport={"width": width, "height": 860 if width > 600 else 760},
            color_scheme="dark" if theme == "dark" else "light",
            has_touch=width < 600,
            service_workers="allow" if workers == "allow" else "block",
            reduced_motion="reduce",
            **options,
        )
        context.set_default_timeout(SECONDS_MAX * 1000)
        page = await context.new_page()
        visitor = Visitor(context, page, product)

        def note(message: Any) -> None:
            asked = message.location["url"]
            expected = (*EXPECTED, *(REFUSED if "/v1/topup-link" in asked or "/v1/operator" in asked else ()))
            if message.type == "error" and not any(
                part in message.text for part in (*expected, *visitor.expected)
            ):
                visitor.faults.append(f"{message.text} ({asked})")

        page.on("console", note)
        page.on("pageerror", lambda error: visitor.faults.append(str(error)))
        visitors.append(visitor)
        await visitor.get("/v1/account")  # from now on this browser is somebody
        return visitor

    yield make
    faults = [fault for visitor in visitors for fault in visitor.faults]
    for visitor in visitors:
        await visitor.context.close()
    assert faults == []


@pytest_asyncio.fixture
async def visitor(arrive: Arrive) -> Visitor:
    """Somebody with twenty free images, at a desk."""
    person: Visitor = await arrive()
    return person
