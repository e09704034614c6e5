"""Refunds on the receipt: asking for one, and a screen for everything that can become of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.async_api import expect

from rails.contract import Refund
from tests.browser import states
from tests.browser.conftest import Arrive, Visitor
from tests.browser.test_pages import faults
from tests.screens import ON_A_PHONE, THEMES

pytestmark = pytest.mark.browser
INVOICE = "lnbcrt50u1pjluw"


async def paid(visitor: Visitor, rail: str = "card", asset: str = "USD") -> str:
    """A top-up of 500 credits that is paid, and its receipt on the screen."""
    topup = await visitor.open_topup(rail, asset)
    await states.paid(visitor, topup)
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".pay[data-state=paid]")).to_be_visible()
    return topup


async def picture(visitor: Visitor, name: str) -> None:
    """Kept where `SCREENSHOTS` says."""
    if folder := os.environ.get("SCREENSHOTS"):
        scheme = await visitor.page.evaluate("() => matchMedia('(prefers-color-scheme: dark)').matches")
        width = visitor.page.viewport_size["width"] if visitor.page.viewport_size else 0
        file = Path(folder) / f"{name}-{width}-{'dark' if scheme else 'light'}.png"
        await visitor.page.screenshot(path=file, full_page=True)


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_a_refund_is_asked_for_and_every_state_has_its_screen(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    visitor.product.refunds_end("card", Refund.UNKNOWN)
    topup = await paid(visitor)
    await visitor.page.get_by_role("button", name="Refund 500 unused credits").click()
    await expect(visitor.page.locator(".refund-ask")).to_contain_text("$5.00 is sent to where it came from")
    assert await faults(visitor.page) == []
    await picture(visitor, "refund-ask")
    await visitor.page.get_by_role("button", name="Refund $5.00").click()
    refund = visitor.page.locator(".refund")
    await expect(refund).to_contain_text("Refund of $5.00 requested")
    await expect(refund).to_contain_text("500 credits are held until it has left")
    assert await faults(visitor.page) == []
    await picture(visitor, "refund-requested")
    visitor.product.refunds_end("card", Refund.SENT)
    await expect(visitor.page.locator(".pay-title")).to_have_text("Refunded")
    await expect(refund).to_contain_text("five to ten days")
    assert await faults(visitor.page) == []
    await picture(visitor, "refund-sent")
    await visitor.product.bounce(topup)
    await expect(refund).to_contain_text("Refund of $5.00 came back")
    await expect(visitor.page.locator(".receipt-credits")).to_contain_text("+500 credits")
    assert await faults(visitor.page) == []
    await picture(visitor, "refund-returned")


@pytest.mark.parametrize("theme", THEMES)
async def test_a_refund_to_an_invoice_that_fails_says_why_and_can_be_asked_for_again(
    arrive: Arrive, theme: str
) -> None:
    visitor = await arrive(theme=theme, width=360)
    visitor.product.refunds_end("lightning", Refund.FAILED)
    await paid(visitor, "lightning", "BTC")
    await visitor.page.get_by_role("button", name="Refund 500 unused credits").click()
    field = visitor.page.get_by_label("Your Lightning address or invoice")
    await expect(visitor.page.locator(".refund-ask")).to_contain_text("exactly 5,120 sats")
    await field.fill("not an invoice")
    await visitor.page.get_by_role("button", name="Refund 5,120 sats").click()
    await expect(visitor.page.get_by_role("alert")).to_be_visible()
    await field.fill(INVOICE)
    await visitor.page.keyboard.press("Enter")
    refund = visitor.page.locator(".refund")
    await expect(refund).to_contain_text("Refund of 5,120 sats failed")
    await expect(refund).to_contain_text("took no such amount")
    assert await faults(visitor.page) == []
    await picture(visitor, "refund-failed")
    await expect(visitor.page.get_by_role("button", name="Refund 500 unused credits")).to_be_visible()


async def test_what_only_a_person_can_send_says_so(visitor: Visitor) -> None:
    await paid(visitor, "liquid", "USDT")
    await visitor.page.get_by_role("button", name="Refund 500 unused credits").click()
    await visitor.page.get_by_label("Your address").fill("el1qqdp3hs5hu2kkpwjdf0gzhkxrm8vrcck9rgj0vmn6wr8r0p")
    await visitor.page.get_by_role("button", name="Refund 5.00 USDT").click()
    await expect(visitor.page.locator(".refund")).to_contain_text("a person sends it by hand")


async def test_a_refund_is_asked_for_by_keyboard_and_found_in_the_statement(visitor: Visitor) -> None:
    topup = await paid(visitor)
    await visitor.page.get_by_role("button", name="Refund 500 unused credits").focus()
    await visitor.page.keyboard.press("Enter")
    await visitor.page.get_by_role("button", name="Refund $5.00").focus()
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.page.locator(".refund[data-state=sent]")).to_be_visible()
    await visitor.page.locator(".refund").get_by_role("link").click()
    await expect(visitor.page.locator(".entry").first).to_contain_text("Refunded")
    await expect(visitor.page.locator(".entry")).to_have_count(2)
    assert topup
