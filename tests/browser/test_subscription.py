"""A plan by card, as a person meets it: subscribe, change, cancel, resume, and what is due."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Route, expect

from rails.recurring import Offer
from rails.testing.fake_subscriptions import PAY_URL, PORTAL_URL, FakeSubscriptions
from tests.browser.conftest import Arrive, Visitor
from tests.browser.test_pages import faults
from tests.browser.test_people import signed_in
from tests.browser.test_refund import picture
from tests.screens import AT_A_DESK, ON_A_PHONE
from tests.waiting import until

pytestmark = pytest.mark.browser
PRICES = {"starter": 800, "pro": 2_000, "unlimited": 4_000}


def outside(visitor: Visitor) -> FakeSubscriptions:
    """The provider, with its catalogue."""
    found = visitor.product.rails["card"].network.subscriptions
    found.prices = {Offer(plan=plan, length="month"): cents for plan, cents in PRICES.items()}
    found.prices |= {Offer(plan=plan, length="year"): 10 * cents for plan, cents in PRICES.items()}
    return found


async def elsewhere(visitor: Visitor) -> None:
    """The provider's pages: all of them blank."""

    async def blank(route: Route) -> None:
        await route.fulfill(body="<title>Elsewhere</title>", content_type="text/html")

    await visitor.context.route("https://fake.test/**", blank)


async def mine(visitor: Visitor) -> dict[str, Any]:
    """The newest subscription."""
    listed: dict[str, Any] = await visitor.get("/v1/subscriptions")
    newest: dict[str, Any] = listed["subscriptions"][0]
    return newest


def name_of(subscription: dict[str, Any]) -> str:
    return f"card-sub-{subscription['id']}"


async def subscribed(visitor: Visitor, plan: str, email: str) -> dict[str, Any]:
    """Somebody who came back from the payment page, and whose payment arrived."""
    provider = outside(visitor)
    await elsewhere(visitor)
    await signed_in(visitor, email)
    opened = await visitor.post("/v1/subscriptions", {"plan": plan, "rail": "card"})
    await provider.pay(opened["page_url"].rpartition("/")[2])
    await visitor.visit(f"/account?subscription={opened['id']}")
    await expect(visitor.page.locator(".subscription")).to_be_visible()
    return dict(opened)


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_somebody_subscribes_by_card_and_the_page_waits_for_the_payment(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    provider, page = outside(visitor), visitor.page
    await elsewhere(visitor)
    await visitor.visit("/plans")
    await expect(page.get_by_role("link", name="Sign in to subscribe")).to_have_count(3)
    await picture(visitor, "plans-guest")
    await signed_in(visitor, f"subscribes-{theme}-{width}@example.com")
    await expect(page.locator("#plan")).to_contain_text("No plan.")
    await visitor.visit("/plans")
    await expect(page.get_by_role("button", name="Subscribe by card")).to_have_count(3)
    assert await faults(page) == []
    await picture(visitor, "plans-person")
    await page.get_by_role("button", name="Subscribe by card").first.click()
    await expect(page).to_have_url(re.compile(r"https://fake\.test/card-page-"))
    opened = await mine(visitor)
    await visitor.visit(f"/account?subscription={opened['id']}")
    await expect(page.locator("#plan")).to_contain_text("Waiting for your payment")
    assert (await visitor.get("/v1/account"))["plan"] == "free", "coming back grants nothing"
    await picture(visitor, "subscription-waiting")
    await provider.pay(opened["page_url"].rpartition("/")[2])
    card = page.locator(".subscription")
    await expect(card).to_contain_text("Renews on")
    await expect(card).to_contain_text("Starter")
    await expect(page.locator(".balance")).to_contain_text("2,0")
    assert await faults(page) == []
    await picture(visitor, "subscription-active")
    await visitor.visit("/plans")
    await expect(page.get_by_role("link", name="Change to it")).to_have_count(2)


@pytest.mark.parametrize("screen", AT_A_DESK, ids=str)
async def test_a_change_shows_what_it_costs_now_and_then(arrive: Arrive, screen: tuple[str, int]) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    await subscribed(visitor, "starter", f"changes-{theme}-{width}@example.com")
    page, card = visitor.page, visitor.page.locator(".subscription")
    await card.get_by_role("button", name="Change plan").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Pro").check()
    await expect(dialog.locator(".preview")).to_contain_text("$20.00 a month")
    await expect(dialog.locator(".preview")).to_contain_text("images more")
    assert await faults(page) == []
    await picture(visitor, "subscription-preview-up")
    await dialog.get_by_role("button", name=re.compile(r"^Pay \$1[12]\.\d\d and change$")).click()
    await expect(card).to_contain_text("Pro")
    assert (await visitor.get("/v1/account"))["plan"] == "pro"
    await card.get_by_role("button", name="Change plan").click()
    await dialog.get_by_label("Starter").check()
    await expect(dialog.locator(".preview")).to_contain_text("$0.00")
    await picture(visitor, "subscription-preview-down")
    await dialog.get_by_role("button", name="Change then").click()
    await expect(card).to_contain_text("Becomes Starter on")
    await picture(visitor, "subscription-becomes")
    await card.get_by_role("button", name="Keep Pro").click()
    await expect(card).to_contain_text("Renews on")


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_a_month_becomes_a_year_and_back_with_what_it_costs(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    await subscribed(visitor, "starter", f"longer-{theme}-{width}@example.com")
    page, card = visitor.page, visitor.page.locator(".subscription")
    dialog = page.get_by_role("dialog")
    await card.get_by_role("button", name="Change plan").click()
    await dialog.get_by_label("By the year").check()
    await dialog.get_by_label("Starter").check()
    await expect(dialog.locator(".preview")).to_contain_text("$80.00 a year")
    await dialog.get_by_label("Not before this period ends").check()
    await expect(dialog.locator(".preview")).to_contain_text("$0.00")
    await expect(dialog.get_by_role("button", name="Change then")).to_be_visible()
    await picture(visitor, "subscription-preview-year-later")
    await dialog.get_by_label("Not before this period ends").uncheck()
    await expect(dialog.locator(".preview")).to_contain_text("images more")
    assert await faults(page) == []
    await picture(visitor, "subscription-preview-year")
    await dialog.get_by_role("button", name=re.compile(r"^Pay \$7[12]\.\d\d and change$")).click()
    await expect(card).to_contain_text("by the year")
    await picture(visitor, "subscription-by-the-year")
    await card.get_by_role("button", name="Change plan").click()
    await dialog.get_by_label("By the month").check()
    await dialog.get_by_label("Pro").check()
    await expect(dialog.locator(".preview")).to_contain_text("$20.00 a month")
    await dialog.get_by_role("button", name="Change then").click()
    await expect(card).to_contain_text("Becomes Pro, by the month on")
    await picture(visitor, "subscription-becomes-monthly")


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_what_is_due_is_shown_with_the_way_to_pay_it(arrive: Arrive, screen: tuple[str, int]) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    opened = await subscribed(visitor, "starter", f"overdue-{theme}-{width}@example.com")
    provider, page, card = outside(visitor), visitor.page, visitor.page.locator(".subscription")
    provider.set_card(name_of(opened), works=False)
    await card.get_by_role("button", name="Change plan").click()
    await page.get_by_role("dialog").get_by_label("Pro").check()
    await page.get_by_role("button", name=re.compile("and change$")).click()
    await expect(card).to_contain_text("Pro begins when it is paid")
    assert await faults(page) == []
    await picture(visitor, "subscription-pending")
    await expect(card.get_by_role("link", name="Pay now")).to_have_attribute("href", re.compile(PAY_URL))
    seen = provider.observe(name_of(opened))
    assert seen is not None
    await provider.pay_invoice(seen.invoices[-1].reference)
    await visitor.product.gateway.services.payments.subscriptions.observe(opened["id"])
    await page.reload()
    await expect(card).to_contain_text("Pro")
    provider.set_card(name_of(opened), works=False)
    await provider.renew(name_of(opened))
    await visitor.product.gateway.services.payments.subscriptions.observe(opened["id"])
    await page.reload()
    await expect(card.get_by_text("could not be charged")).to_have_count(1)
    await expect(card).to_contain_text("It is tried again on")
    assert await faults(page) == []
    await picture(visitor, "subscription-past-due")


async def test_somebody_cancels_keeps_the_plan_and_opens_the_portal_by_keyboard(arrive: Arrive) -> None:
    visitor = await arrive()
    await subscribed(visitor, "starter", "keyboard@example.com")
    page, card = visitor.page, visitor.page.locator(".subscription")
    await card.get_by_role("button", name="Cancel at the end").focus()
    await page.keyboard.press("Enter")
    await expect(card).to_contain_text("Ends on")
    await picture(visitor, "subscription-cancelled")
    await card.get_by_role("button", name="Keep Starter").focus()
    await page.keyboard.press("Enter")
    await expect(card).to_contain_text("Renews on")
    await card.get_by_role("button", name="Card and invoices").click()
    await expect(page).to_have_url(re.compile(PORTAL_URL))


async def test_two_plans_are_shown_with_the_offer_to_cancel_one(
    arrive: Arrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stays_open(page: str) -> None:
        """The other tab is quicker."""

    visitor = await arrive(width=360)
    provider = outside(visitor)
    monkeypatch.setattr(provider, "close", stays_open)
    await signed_in(visitor, "two-plans@example.com")
    pages = [
        (await visitor.post("/v1/subscriptions", {"plan": plan, "rail": "card"}))["page_url"]
        for plan in ("pro", "starter")
    ]
    for page in pages:
        await provider.pay(page.rpartition("/")[2])
    await until(
        lambda: visitor.get("/v1/subscriptions"),
        lambda listed: [one["status"] for one in listed["subscriptions"]] == ["active", "active"],
        "both have begun",
    )
    await visitor.page.reload()
    await expect(visitor.page.locator(".subscription")).to_have_count(2)
    await expect(visitor.page.locator("#plan")).to_contain_text("You pay for two plans")
    assert (await visitor.get("/v1/account"))["plan"] == "pro"
    await picture(visitor, "subscription-two")
    await visitor.page.get_by_role("button", name="Cancel at the end").first.click()
    await expect(visitor.page.locator(".subscription").first).to_contain_text("Ends on")
