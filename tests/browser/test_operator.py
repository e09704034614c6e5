"""The operators' page: what waits, a payment and its events, and what is done with money."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from playwright.async_api import expect

from ledger.clock import system_clock
from rails.contract import ReceiptState, Refund
from tests.browser import states
from tests.browser.conftest import Arrive, Visitor
from tests.browser.test_pages import faults
from tests.browser.test_refund import picture
from tests.screens import ON_A_PHONE, THEMES

pytestmark = pytest.mark.browser


async def operator(arrive: Arrive, theme: str = "light", width: int = 1280) -> Visitor:
    """A browser in which an operator is signed in."""
    visitor: Visitor = await arrive(theme=theme, width=width)
    await visitor.post("/v1/session", {"email": "operator@example.com"})
    account = await visitor.get("/v1/account")
    await visitor.product.gateway.services.identity.operators.add(account["id"], "test")
    return visitor


async def open_at(visitor: Visitor, place: str) -> None:
    await visitor.visit("/offline")
    await visitor.visit(f"/operator#{place}")


async def test_others_are_told_that_it_is_for_operators(visitor: Visitor) -> None:
    await visitor.visit("/operator")
    await expect(visitor.page.get_by_text("Operators only.")).to_be_visible()
    assert await faults(visitor.page) == []


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_what_waits_is_shown_and_money_in_suspense_is_returned(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    payer, visitor = await arrive(), await operator(arrive, *screen)
    wrong = await payer.open_topup("liquid", "USDT")
    await states.wrong_asset(payer, wrong)
    disputed = await payer.open_topup("card", "USD")
    money = await payer.product.pay(disputed)
    await payer.topup_is(disputed, "paid")
    account = await payer.get("/v1/account")
    await payer.product.gateway.spend(account["id"], account["credits"]["available"])
    network, reference = await payer.product._outside(disputed)
    due = system_clock() + timedelta(hours=30)
    known = network.way(reference).receipts[money]
    await network.put(reference, replace(known, state=ReceiptState.DISPUTED, evidence_due_by=due))
    await payer.topup_is(disputed, "disputed")
    await open_at(visitor, "waiting")
    page = visitor.page
    await expect(page.get_by_role("heading", name="Disputes")).to_be_visible()
    await expect(page.locator(".op-late").first).to_contain_text("in 29 hours")
    row = page.locator(".op-row", has=page.get_by_role("link", name=wrong))
    await expect(row).to_contain_text("another asset than asked")
    assert await faults(page) == []
    await picture(visitor, "operator-waiting")
    await row.get_by_role("button", name="Return").click()
    await expect(page.get_by_role("dialog")).to_contain_text("Send 0.00005000 L-BTC back?")
    assert await faults(page) == []
    await picture(visitor, "operator-return")
    await page.get_by_label("Address or invoice of the payer").fill("el1qqdp3hs5hu2kkpwjdf0gz")
    await page.get_by_label("Why").fill("the payer asked for it")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(row.first).to_contain_text("on its way back")
    by_hand = page.locator(".op-row", has_text="send it by hand").filter(has_text=wrong)
    await by_hand.get_by_role("button", name="Record as sent").click()
    await page.get_by_label("Where it can be found").fill("1f6d0c42")
    await page.get_by_label("Why").fill("sent from the wallet")
    await page.get_by_role("dialog").get_by_role("button", name="Record as sent").click()
    await expect(by_hand).to_have_count(0)
    debt = page.locator(".op-row", has_text=account["id"]).filter(has_text="Owed")
    await debt.get_by_role("button", name="Forgive").click()
    await page.get_by_label("Why").fill("the bank was wrong")
    await page.get_by_role("dialog").get_by_role("button", name="Forgive").click()
    await expect(debt).to_have_count(0)


@pytest.mark.parametrize("theme", THEMES)
async def test_a_payment_is_found_and_refunded(arrive: Arrive, theme: str) -> None:
    payer, visitor = await arrive(), await operator(arrive, theme, 360)
    topup = await payer.open_topup("card", "USD")
    await states.paid(payer, topup)
    await open_at(visitor, "payments")
    page = visitor.page
    await page.get_by_label("Payment, account, refund, reference or e-mail address").fill(topup)
    await page.keyboard.press("Enter")
    await expect(page.locator(".op-row")).to_have_count(1)
    assert await faults(page) == []
    await picture(visitor, "operator-payments")
    await page.get_by_role("link", name=topup).click()
    await expect(page.get_by_role("heading", name="What happened")).to_be_visible()
    await page.locator("summary").first.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".op-events pre").first).to_contain_text("amount_due")
    assert await faults(page) == []
    await picture(visitor, "operator-payment")
    await page.get_by_role("button", name="Refund").click()
    await page.get_by_label("Credits").fill("501")
    await page.get_by_label("Why").fill("the payer asked for it")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("no such lot")
    await page.get_by_label("Credits").fill("200")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.locator(".op-row", has_text="$2.00").first).to_be_visible()
    await expect(page.get_by_text("refund requested")).to_be_visible()


async def test_nothing_scrolls_sideways_on_a_phone(arrive: Arrive) -> None:
    visitor = await operator(arrive, "light", 320)
    topup = await visitor.open_topup("card", "USD")
    await states.paid(visitor, topup)
    visitor.product.refunds_end("card", Refund.SENT)
    for place in ("waiting", "payments", topup):
        await open_at(visitor, place)
        await expect(visitor.page.locator(".op-section").first).to_be_visible()
        wide = await visitor.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, place
