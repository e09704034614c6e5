"""The hosted Checkout page in a real browser: every button, both themes, small and large."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page

from tests.rails.stripe.outside import CardWorld, Inbox, Sandbox
from tests.screens import SCREENS
from tests.waiting import SECONDS_MAX

FORM = {
    "mode": "payment",
    "line_items[0][quantity]": "1",
    "line_items[0][price_data][currency]": "usd",
    "line_items[0][price_data][unit_amount]": "500",
    "line_items[0][price_data][product_data][name]": "500 images <b>&",
}


@pytest.fixture
async def session(sandbox: Sandbox, inbox: Inbox, world: CardWorld) -> dict[str, Any]:
    shop = f"http://127.0.0.1:{inbox.port}"  # another origin than the sandbox, as the gateway is
    urls = {"success_url": f"{shop}/paid?session={{CHECKOUT_SESSION_ID}}", "cancel_url": f"{shop}/back"}
    return dict((await sandbox.api("POST", "checkout/sessions", data={**FORM, **urls})).json())


@pytest.fixture(params=SCREENS, ids=str)
async def page(chromium: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    scheme, width = request.param
    context = await chromium.new_context(viewport={"width": width, "height": 760}, color_scheme=scheme)
    context.set_default_timeout(SECONDS_MAX * 1000)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    assert complaints == []
    await context.close()


async def misfits(page: Page) -> list[str]:
    """What is wider than the window, or too small for a finger."""
    await page.wait_for_load_state("load")
    found: list[str] = await page.evaluate(
        """() => {
            const small = [...document.querySelectorAll('button, a, select, .choice')]
                .filter(e => e.offsetParent && e.getBoundingClientRect().height < 43.9)
                .map(e => `${e.outerHTML.slice(0, 60)} is small`);
            const over = document.documentElement.scrollWidth - window.innerWidth;
            return over > 0 ? [...small, `${over} px too wide`] : small;
        }"""
    )
    return found


async def test_a_payer_is_declined_challenged_and_pays(page: Page, session: dict[str, Any]) -> None:
    await page.goto(session["url"])
    assert await page.get_by_text("Sandbox", exact=True).is_visible()
    assert await page.get_by_text("500 images <b>&").is_visible()
    assert await misfits(page) == []

    await page.get_by_label("Is declined").check()
    await page.get_by_label("Reason for the decline").select_option("insufficient_funds")
    await page.get_by_role("button", name="Pay $5.00").click()
    await page.get_by_role("alert").get_by_text("insufficient funds").wait_for()
    assert await misfits(page) == []

    await page.get_by_label("Asks for 3-D Secure").check()
    await page.get_by_role("button", name="Pay $5.00").click()
    await page.get_by_role("button", name="Fail authentication").click()
    await page.get_by_role("alert").get_by_text("failed authentication").wait_for()

    await page.get_by_label("Asks for 3-D Secure").check()
    await page.get_by_role("button", name="Pay $5.00").click()
    await page.wait_for_url("**/challenge")
    assert await misfits(page) == []
    await page.get_by_role("button", name="Leave without answering").click()
    await page.get_by_role("heading", name="Pay with a test card").wait_for()

    await page.get_by_role("button", name="Pay $5.00").click()
    await page.wait_for_url(f"**/paid?session={session['id']}")
    await page.goto(session["url"])
    assert await page.get_by_role("heading", name="Payment submitted").is_visible()
    assert await misfits(page) == []


async def test_the_pages_are_accessible(page: Page, session: dict[str, Any]) -> None:
    axe = Path("node_modules/axe-core/axe.min.js")
    if not axe.exists():
        pytest.skip("axe is installed by npm at set-up")
    for suffix in ("", "/challenge"):
        await page.goto(session["url"] + suffix)
        await page.evaluate(axe.read_text())
        violations = await page.evaluate("async () => (await axe.run()).violations.map(v => v.id)")
        assert violations == []


async def test_a_payer_goes_back_and_the_session_stays_open(
    page: Page, session: dict[str, Any], sandbox: Sandbox
) -> None:
    await page.goto(session["url"])
    await page.get_by_role("link", name="Go back without paying").click()
    await page.wait_for_url("**/back")
    assert (await sandbox.control(f"checkout/{session['id']}"))["status"] == "open"


async def test_an_expired_page_says_that_nothing_was_charged(
    page: Page, session: dict[str, Any], sandbox: Sandbox
) -> None:
    await sandbox.api("POST", f"checkout/sessions/{session['id']}/expire")
    await page.goto(session["url"])
    assert await page.get_by_text("Nothing was charged").is_visible()
    assert await misfits(page) == []


async def test_the_page_can_be_paid_by_keyboard_alone(page: Page, session: dict[str, Any]) -> None:
    await page.goto(session["url"])
    await page.get_by_label("Pays at once").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowUp", "Enter"):
        await page.keyboard.press(key)
    await page.wait_for_url("**/paid?*")


async def test_the_page_runs_no_script_and_sends_strict_headers(
    sandbox: Sandbox, session: dict[str, Any]
) -> None:
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        response = await client.get(session["url"])
        unknown = await client.get(f"{sandbox.url}/c/pay/cs_test_nothing")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script" not in response.text
    assert unknown.status_code == 404
