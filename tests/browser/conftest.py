"""A browser, and the pages in front of a double of the API."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.browser.api_double import serve

NODE_MODULES = Path(__file__).parents[2] / "node_modules"
EXPECTED = ("status of 402", "status of 404", "status of 500", "status of 503", "net::ERR_")


@dataclass
class Visitor:
    """One person with a browser of their own, who notices every fault on the console."""

    context: BrowserContext
    page: Page
    base: str
    faults: list[str] = field(default_factory=list)

    async def scene(self, **state: Any) -> None:
        """Start the double anew."""
        await self.post("/double/reset", state)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Write to the API or to the scene, past the page."""
        answer = await self.context.request.post(self.base + path, data=body)
        assert answer.ok, f"{path} answered {answer.status}"
        return await answer.json()

    async def visit(self, path: str) -> None:
        """Open a page."""
        await self.page.goto(self.base + path)

    async def open_topup(self, rail: str = "lightning", asset: str = "BTC", count: int = 500) -> str:
        """A top-up made past the page; its id."""
        made = await self.post("/v1/topups", {"rail": rail, "credits": count, "pay_asset": asset})
        return str(made["id"])

    async def stroke(self, *points: tuple[float, float]) -> None:
        """Draw with the mouse; coordinates are parts of the sheet."""
        box = await self.page.locator("canvas.sheet").bounding_box()
        assert box
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
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


@pytest.fixture(scope="session")
def double_url() -> Iterator[str]:
    """The double, listening."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = serve(port, NODE_MODULES)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    server.force_exit = True
    thread.join(10)


@pytest_asyncio.fixture(scope="session")
async def chromium(chromium_path: str) -> AsyncIterator[Browser]:
    """One browser for all tests."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        yield browser
        await browser.close()


Arrive = Callable[..., Any]


@pytest_asyncio.fixture
async def arrive(chromium: Browser, double_url: str) -> AsyncIterator[Arrive]:
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
        context.set_default_timeout(8_000)
        page = await context.new_page()
        visitor = Visitor(context, page, double_url)

        def note(message: Any) -> None:
            if message.type == "error" and not any(part in message.text for part in EXPECTED):
                visitor.faults.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: visitor.faults.append(str(error)))
        visitors.append(visitor)
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
    await person.scene()
    return person
