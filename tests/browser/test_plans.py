"""The page of plans: live prices, and a pack, a pass or a period of a plan bought from it in every state."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.async_api import expect

from ledger.domain.commands import PayPeriod
from ledger.identifiers import AccountId
from ledger.plans import PLANS
from tests.browser import states
from tests.browser.conftest import Arrive, Visitor
from tests.browser.test_pages import faults
from tests.browser.test_people import signed_in
from tests.screens import AT_A_DESK, ON_A_PHONE

pytestmark = pytest.mark.browser


async def person(arrive: Arrive, name: str, **looks: object) -> Visitor:
    visitor: Visitor = await arrive(**looks)
    await signed_in(visitor, f"{name}@example.com")
    await visitor.visit("/plans")
    return visitor


async def looks_well(visitor: Visitor, name: str) -> None:
    """Axe finds nothing. A picture is kept where `SCREENSHOTS` says."""
    assert await faults(visitor.page) == []
    if folder := os.environ.get("SCREENSHOTS"):
        size = visitor.page.viewport_size
        theme = await visitor.page.evaluate("() => matchMedia('(prefers-color-scheme: dark)').matches")
        shown = f"{name}-{size['width'] if size else 0}-{'dark' if theme else 'light'}.png"
        await visitor.page.screenshot(path=Path(folder) / shown, full_page=True)


async def newest(visitor: Visitor) -> str:
    """The top-up that the page has opened."""
    await expect(visitor.page.locator(".pay")).to_be_visible()
    return str((await visitor.get("/v1/topups"))["topups"][0]["id"])


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_everything_for_sale_has_its_price_in_dollars_sats_and_usdt(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    await visitor.visit("/plans")
    pro = visitor.page.locator("[data-plan=pro]")
    await expect(pro).to_contain_text("$20 a month")
    await expect(pro).to_contain_text("or 20,480 sats or 20.00 USDT")
    await expect(pro.get_by_role("link", name="Sign in to subscribe")).to_be_visible()
    await visitor.page.get_by_label("By the year").check()
    await expect(pro).to_contain_text("$200 a year")
    await expect(visitor.page.locator("[data-pack=pack_500]")).to_contain_text("5,120 sats or 5.00 USDT")
    session = visitor.page.locator("[data-pack=session]")
    await expect(session).to_contain_text("200 images within 4 hours")
    await expect(session).to_contain_text("$0.50")
    await looks_well(visitor, "plans")


@pytest.mark.parametrize("screen", AT_A_DESK, ids=str)
async def test_a_plan_is_paid_ahead_in_sats_and_shows_until_when_it_lasts(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await person(arrive, f"ahead-{theme}-{width}", theme=theme, width=width)
    await visitor.page.get_by_role("button", name="Pay a month ahead: Pro").click()
    modal = visitor.page.locator(".topup-modal")
    await expect(modal).to_contain_text("Pro for a month")
    await expect(modal).to_contain_text("nothing renews by itself")
    await looks_well(visitor, "plan-choose")
    await modal.get_by_role("button", name="20,480 sats").click()
    await expect(modal).to_contain_text("Pay 20,480 sats")
    await expect(modal).to_contain_text("for Pro, a month")
    topup = await newest(visitor)
    await states.paid(visitor, topup)
    await expect(modal).to_contain_text("Pro is yours until")
    await looks_well(visitor, "plan-paid")
    await modal.get_by_role("button", name="Close").click()
    await visitor.visit("/plans")
    mine = visitor.page.locator("[data-plan=pro]")
    await expect(mine).to_contain_text("Your plan")
    await expect(mine).to_contain_text("Paid until")
    await expect(mine.get_by_role("button", name="Add a month: Pro")).to_be_visible()


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_a_plan_that_is_underpaid_says_what_is_missing_and_what_becomes_of_it(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await person(arrive, f"short-{theme}-{width}", theme=theme, width=width)
    made = await visitor.post("/v1/topups", {"rail": "liquid", "pay_asset": "USDT", "plan": "starter"})
    await visitor.product.pay(made["id"], 500_000_000)
    await visitor.product.settle(made["id"])
    await visitor.topup_is(made["id"], "underpaid")
    await visitor.visit(f"/topups/{made['id']}")
    pay = visitor.page.locator(".pay")
    await expect(pay).to_contain_text("Send 3.00 USDT more")
    await expect(pay).to_contain_text("Starter is yours when the rest is here.")
    await expect(pay).to_contain_text("and then becomes credits")
    await looks_well(visitor, "plan-short")
    await visitor.product.pay(made["id"], 300_000_000)
    await visitor.product.settle(made["id"])
    await expect(pay).to_contain_text("Starter is yours until")


async def test_a_guest_buys_a_pass_from_the_page(visitor: Visitor) -> None:
    await visitor.visit("/plans")
    await visitor.page.locator("[data-pack=session]").click()
    modal = visitor.page.locator(".topup-modal")
    await expect(modal).to_contain_text("200 images within 4 hours of the payment")
    await modal.get_by_role("button", name="512 sats").click()
    topup = await newest(visitor)
    await states.paid(visitor, topup)
    await expect(modal).to_contain_text("+200 credits")


async def test_whose_plan_renews_by_itself_is_told_to_cancel_it_first(arrive: Arrive) -> None:
    visitor = await person(arrive, "renews")
    gateway = visitor.product.gateway
    base, account_id = gateway.services.base, AccountId((await visitor.get("/v1/account"))["id"])
    renewing = PayPeriod(
        subscription_id="sub_renews",
        plan=PLANS["starter"],
        period_start=base.clock(),
        period_end=base.clock() + timedelta(days=30),
        lot_id=base.identifiers.lot(),
    )
    await gateway.services.ledger.ledger.act(account_id, renewing)
    await visitor.visit("/plans")
    await expect(visitor.page.locator("[data-plan=starter]")).to_contain_text(
        "renews by itself. Cancel it first"
    )
    await expect(visitor.page.get_by_role("button", name="Pay a month ahead: Pro")).to_have_count(0)


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_where_credits_are_missing_a_plan_a_pass_and_just_this_image_are_offered(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    await visitor.has_free_images(0)
    await visitor.visit("/")
    await visitor.stroke((0.2, 0.2), (0.8, 0.8), (0.3, 0.7))
    await visitor.page.get_by_role("button", name="Buy credits instead").click()
    modal = visitor.page.locator(".topup-modal")
    await expect(modal).to_contain_text("Your picture is waiting")
    await expect(modal.get_by_role("button", name="Paint this for 10.24 sats")).to_be_visible()
    await expect(modal.get_by_role("link", name="A plan, from $8.00 a month")).to_be_visible()
    await expect(modal.get_by_role("button", name="Sketch session, $0.50")).to_be_visible()
    await looks_well(visitor, "prompt")
    await modal.get_by_role("button", name="Just this image").click()
    await modal.get_by_role("button", name="0.01 USDT").click()
    topup = await newest(visitor)
    await visitor.product.pay(topup)
    await visitor.product.settle(topup)
    await expect(visitor.page.locator(".picture")).to_be_visible()
