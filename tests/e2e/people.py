"""Somebody with a browser, in front of the real stack."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from playwright.async_api import BrowserContext, Locator, Page, expect

from tests.e2e.stack import Stack

LLAMA = (
    (0.35, 0.58),
    (0.34, 0.30),
    (0.45, 0.22),
    (0.42, 0.45),
    (0.72, 0.50),
    (0.74, 0.80),
    (0.40, 0.80),
    (0.35, 0.58),
)
"""One stroke, in parts of the sheet."""
WAYS = {
    "card": "credit or debit",
    "BTC": "Bitcoin, in seconds",
    "USDT": "dollars on Liquid",
    "L-BTC": "bitcoin on Liquid",
}
"""How the top-up words each payment request."""


def scribble() -> dict[str, str]:
    """A small sketch for the API: its image is a quarter of the standard size."""
    buffer = io.BytesIO()
    picture = Image.linear_gradient("L").resize((64, 16))
    picture.save(buffer, "PNG")
    return {"content_type": "image/png", "data": base64.b64encode(buffer.getvalue()).decode()}


@dataclass
class Person:
    """One browser (a context of its own) with one page, whose every fault is noted."""

    stack: Stack
    context: BrowserContext
    page: Page
    faults: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    """Parts of console errors that the test provokes."""

    def watch(self, page: Page) -> None:
        """Note console errors (violations of the content policy among them) and exceptions of this page."""
        page.on(
            "console", lambda message: message.type == "error" and self._note(message.text, message.location)
        )
        page.on("pageerror", lambda error: self._note(str(error)))

    def _note(self, text: str, place: Any = None) -> None:
        if not any(part in text for part in self.expected):
            self.faults.append(f"{text} {(place or {}).get('url', '')}")

    async def visit(self, path: str = "/") -> None:
        """Open a page of the stack."""
        await self.page.goto(self.stack.url + path)

    async def second_tab(self, path: str) -> Page:
        """Another page of the same browser."""
        page = await self.context.new_page()
        self.watch(page)
        await page.goto(self.stack.url + path)
        return page

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The API as this browser sees it, past the page."""
        answer = await self.context.request.fetch(
            self.stack.url + path, method=method, data=body, headers={"Origin": self.stack.url}
        )
        assert answer.ok, f"{path} answered {answer.status}: {await answer.text()}"
        return await answer.json()

    async def statement(self) -> list[dict[str, Any]]:
        """All entries, newest first."""
        entries: list[dict[str, Any]] = (await self.ask("GET", "/v1/statement?limit=200"))["entries"]
        return entries

    async def available(self) -> int:
        """Credits that could be used now."""
        return int((await self.ask("GET", "/v1/account"))["credits"]["available"])

    # --- drawing ---

    async def draw(self, points: tuple[tuple[float, float], ...] = LLAMA) -> None:
        """Draw with the mouse."""
        sheet = self.page.locator("canvas.sheet")
        await expect(sheet).to_be_visible()
        worker = await sheet.bounding_box()
        assert worker is not None
        places = [(worker["x"] + x * worker["width"], worker["y"] + y * worker["height"]) for x, y in points]
        await self.page.mouse.move(*places[0])
        await self.page.mouse.down()
        for place in places[1:]:
            await self.page.mouse.move(*place, steps=5)
        await self.page.mouse.up()

    async def paint(self) -> None:
        """Press Paint."""
        await self.page.locator(".paint").click()

    async def sees_picture(self) -> str:
        """Wait until the picture is painted on the page; its job."""
        picture = self.page.locator(".picture")
        await expect(picture).to_be_visible()
        await self.page.wait_for_function(
            "() => { const it = document.querySelector('.picture'); return it?.complete && it.naturalWidth > 200; }"
        )
        address = await picture.get_attribute("src")
        assert address is not None
        found = re.search(r"job_[0-9a-z]+", address)
        assert found is not None, address
        return found.group()

    # --- paying ---

    async def open_topup(self, way: str) -> None:
        """From the balance on any page to the payment."""
        await self.page.locator("#top-balance button").click()
        await self.choose(way)

    async def choose(self, way: str) -> None:
        """In the open top-up."""
        await self.page.locator("button.way", has_text=WAYS[way]).click()

    @property
    def payment(self) -> Locator:
        """What the page says about the payment."""
        return self.page.locator(".pay")

    async def sees_state(self, state: str) -> None:
        """Wait for the payment's state on the page."""
        await expect(self.page.locator(f".pay[data-state={state}]")).to_be_visible()

    async def mark(self) -> None:
        """Leave a mark that a reload would wipe away."""
        await self.page.evaluate("() => { window.notReloaded = true; }")

    async def still_same_page(self) -> bool:
        """Whether the mark is still there."""
        return bool(await self.page.evaluate("() => window.notReloaded === true"))

    async def pay_in_wallet(self, button: str = "Pay", *, bill: str = "waiting") -> None:
        """In a second tab: the sandbox wallet pays the only open bill, which is in this state."""
        wallet = await self.second_tab("/sandbox/wallet")
        await expect(wallet.locator(".bill .tag")).to_have_text(bill)
        await wallet.locator(".bill").get_by_role("button", name=button, exact=True).click()
        await expect(wallet.locator(".log-ok").first).to_be_visible()
        await wallet.close()
