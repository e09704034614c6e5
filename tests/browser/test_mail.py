"""Letters as a mail program's browser shows them, the page on which they are turned off, and the try-out mailbox."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
import sqlalchemy as sa
import uvicorn
from playwright.async_api import Browser, Page, Route, expect

from gateway.auth.sign_in_links import SignInLinks
from gateway.database.tables import sign_in_links
from mail.domain.message import Sender, compose
from mail.domain.writing import Writer
from mail.server import Server
from mail.smtp import SmtpTransport
from sandbox.common.process import listen
from sandbox.embedded.ports import free_port
from sandbox.mail.app import Stand
from sandbox.mail.reception import Door
from tests.browser.conftest import Arrive
from tests.browser.test_pages import faults
from tests.gateway.stack import Gateway
from tests.mail.letters import LETTERS, MOMENT
from tests.screens import AT_A_DESK, ON_A_PHONE
from tests.waiting import SECONDS_MAX, eventually

pytestmark = pytest.mark.browser
SITE = "https://sketch.llamas.art"
OF_DOCUMENTS = ("region", "landmark-one-main", "page-has-heading-one")
"""What axe wants of a page and a letter need not have: it is a part of the mail program's page."""


async def keep(page: Page, name: str, theme: str, width: int) -> None:
    """A picture, where `SCREENSHOTS` names a folder."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        await page.screenshot(
            path=f"{folder}/mail-{name.replace(' ', '-')}-{theme}-{width}.png", full_page=True
        )


async def open_page(chromium: Browser, theme: str, width: int) -> Page:
    context = await chromium.new_context(
        viewport={"width": width, "height": 820}, color_scheme="dark" if theme == "dark" else "light"
    )
    context.set_default_timeout(SECONDS_MAX * 1000)
    return await context.new_page()


async def has_no_sideways_scroll(page: Page) -> bool:
    width = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    return bool(await page.evaluate(width))


@pytest.mark.parametrize("screen", AT_A_DESK, ids=str)
async def test_every_letter_is_readable_and_fits(chromium: Browser, screen: tuple[str, int]) -> None:
    theme, width = screen
    page = await open_page(chromium, theme, width)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name, letter in LETTERS.items():
        await page.set_content(Writer(SITE).write(letter, f"{SITE}/mail/x", f"{SITE}/sign-in#x").html)
        found = [fault for fault in await faults(page) if not fault.startswith(OF_DOCUMENTS)]
        assert found == [], name
        assert await has_no_sideways_scroll(page), name
        paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(26, 23, 21)" if theme == "dark" else "rgb(247, 241, 229)")
        await keep(page, name, theme, width)
    assert asked == [], "a letter loads nothing"
    await page.context.close()


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_the_page_of_a_letter_turns_receipts_off_and_on(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    url = (await visitor.get("/v1/mail"))["url"]
    await visitor.page.goto(url)
    off = visitor.page.get_by_role("button", name="Turn them off")
    await expect(off).to_be_visible()
    assert await faults(visitor.page) == []
    await keep(visitor.page, "choice on", theme, width)
    await off.focus()
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.page.get_by_role("heading", name="Receipts and reminders are off")).to_be_visible()
    assert (await visitor.get("/v1/mail"))["optional"] is False
    assert await faults(visitor.page) == []
    await keep(visitor.page, "choice off", theme, width)
    await visitor.page.reload()
    await visitor.page.get_by_role("button", name="Turn them on").click()
    await expect(visitor.page.get_by_role("heading", name="Receipts and reminders are on")).to_be_visible()
    assert (await visitor.get("/v1/mail"))["optional"] is True


async def test_a_broken_link_says_so_and_offers_nothing(arrive: Arrive) -> None:
    visitor = await arrive(width=360)
    await visitor.visit("/mail/lsm1.broken")
    await expect(visitor.page.get_by_role("alert")).to_contain_text("This link does not work")
    await expect(visitor.page.locator("#mail button")).to_have_count(0)
    await keep(visitor.page, "choice broken", "light", 360)
    visitor.faults.clear()  # the browser notes the 403


@pytest.mark.parametrize("screen", AT_A_DESK, ids=str)
async def test_the_account_says_where_receipts_go_if_mail_is_sent(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    await visitor.post("/v1/session", {"email": "ada@llamas.art"})
    await visitor.visit("/account")
    await expect(visitor.page.locator(".who-name")).to_be_visible()
    await expect(visitor.page.locator("#letters-title")).to_have_count(0)

    async def sends(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, json={**await answer.json(), "sends": True})

    await visitor.page.route("**/v1/mail", sends)
    await visitor.visit("/account")
    await expect(visitor.page.locator("#letters-title")).to_be_visible()
    assert await faults(visitor.page) == []
    await keep(visitor.page, "account", theme, width)
    await visitor.page.get_by_role("link", name="Change it").click()
    await expect(visitor.page.get_by_role("button", name="Turn them off")).to_be_visible()


@pytest_asyncio.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[tuple[str, SmtpTransport]]:
    """The try-out mailbox's address, and a way to mail to it."""
    stand = Stand(tmp_path, product_url="http://127.0.0.1:8000", now=lambda: datetime.now(UTC))
    port, smtp = free_port(), free_port()
    server = uvicorn.Server(uvicorn.Config(stand.app(), log_config=None))
    async with stand.receiving(smtp, Door()):
        serving = asyncio.create_task(server._serve([listen(port)]))
        await eventually(lambda: server.started, "the mailbox serves")
        yield f"http://127.0.0.1:{port}", SmtpTransport(Server.parse(f"smtp+plain://127.0.0.1:{smtp}"))
        server.should_exit = True
        await serving


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_the_mailbox_shows_what_came_as_html_as_text_and_as_it_was_sent(
    chromium: Browser, mailbox: tuple[str, SmtpTransport], screen: tuple[str, int]
) -> None:
    theme, width = screen
    url, transport = mailbox
    page = await open_page(chromium, theme, width)
    await page.goto(url)
    await expect(page.get_by_text("Nothing has come yet")).to_be_visible()
    assert await faults(page) == []
    await keep(page, "mailbox empty", theme, width)
    for number, letter in enumerate(LETTERS.values()):
        message = compose(
            Writer(SITE).write(letter, f"{SITE}/mail/x", f"{SITE}/sign-in#x"),
            mail_id=f"x:{number}",
            sender=Sender("LlamaSketch", "mail@llamas.art"),
            to="ada@llamas.art",
            written_at=MOMENT,
            turn_off_url=None,
        )
        await transport.send(message)
    await page.reload()
    await expect(page.locator(".list a")).to_have_count(len(LETTERS))
    assert await faults(page) == []
    assert await has_no_sideways_scroll(page)
    await keep(page, "mailbox", theme, width)
    newest_first = list(reversed(LETTERS))
    await page.locator(".list a").nth(newest_first.index("receipt by card")).click()
    frame = page.frame_locator("iframe")
    await expect(frame.get_by_role("link", name="Open the receipt")).to_be_visible()
    assert [fault for fault in await faults(page) if not fault.startswith(OF_DOCUMENTS)] == []
    assert await has_no_sideways_scroll(page)
    await keep(page, "message", theme, width)
    await page.get_by_role("link", name="Text", exact=True).click()
    await expect(page.locator("pre")).to_contain_text("Thank you: your payment has arrived.")
    assert await faults(page) == []
    await keep(page, "message text", theme, width)
    await page.get_by_role("link", name="Source").click()
    await expect(page.locator("pre")).to_contain_text("Auto-Submitted: auto-generated")
    assert await has_no_sideways_scroll(page)
    await page.get_by_role("link", name="All messages").click()
    await page.get_by_role("button", name="Empty it").click()
    await expect(page.get_by_text("Nothing has come yet")).to_be_visible()
    await page.goto(f"{url}/messages/1")
    await expect(page.get_by_role("heading", name="There is no such message")).to_be_visible()
    await page.context.close()


@pytest.mark.parametrize("screen", AT_A_DESK, ids=str)
async def test_a_mailed_link_signs_in_after_a_click_and_never_twice(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    links = visitor.product.gateway.services.identity.sign_in_links
    page, url = visitor.page, await _link(visitor.product.gateway, links)

    async def says(route: Route) -> None:
        answer = await route.fetch()
        known = await answer.json()
        await route.fulfill(response=answer, json={**known, "sign_in": "link", "mails_links": True})

    async def takes(route: Route) -> None:
        await route.fulfill(status=202, json={"lasts_seconds": 900})

    # The application of these tests has no mail server: what is mailed is in tests/gateway/test_sign_in_links.py.
    await page.route(
        "**/v1/session", lambda route: says(route) if route.request.method == "GET" else route.continue_()
    )
    await page.route(
        "**/v1/session/links",
        lambda route: takes(route) if route.request.method == "POST" else route.continue_(),
    )
    await visitor.visit("/sign-in")
    await page.get_by_label("E-mail address").fill("ada@llamas.art")
    assert await faults(page) == []
    await keep(page, "sign in", theme, width)
    await page.get_by_role("button", name="Mail me a link").click()
    await expect(page.get_by_role("heading", name="Look into your mail")).to_be_visible()
    await expect(page.get_by_text("ada@llamas.art")).to_be_visible()
    assert await faults(page) == []
    await keep(page, "sign in mailed", theme, width)
    await page.goto("about:blank")
    await page.goto(url)
    await expect(page.get_by_role("heading", name="Sign in here?")).to_be_visible()
    assert (await visitor.get("/v1/session"))["kind"] == "visitor", "opening it does nothing"
    assert await faults(page) == []
    await keep(page, "sign in confirm", theme, width)
    await expect(page.locator(".who-name")).to_have_text("ada@llamas.art")
    await page.get_by_role("button", name="Sign in").focus()
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(f"{visitor.base}/account")
    assert (await visitor.get("/v1/session"))["email"] == "ada@llamas.art"
    other = await arrive(theme=theme, width=width)
    await other.page.goto(url)
    await expect(other.page.get_by_role("alert")).to_contain_text("was used before")
    await keep(other.page, "sign in used", theme, width)
    assert (await other.get("/v1/session"))["kind"] == "visitor"
    other.faults.clear()  # the browser notes the 403


async def _link(gateway: Gateway, links: SignInLinks) -> str:
    """A link that was just asked for, without the letter."""
    await links.mail("ada@llamas.art")
    query = sa.select(sign_in_links.c.link_id).where(sign_in_links.c.used_at.is_(None))
    async with gateway.services.base.engine.connect() as connection:
        return links.url((await connection.execute(query)).scalars().all()[-1])
