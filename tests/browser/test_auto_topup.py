"""Automatic top-up as a person meets it: agreed to, a card saved, charged, declined, confirmed, turned off."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from rails.saved import AUTHENTICATION
from rails.testing.fake_saved import DECLINES, WORKS, FakeSaved
from tests.browser.conftest import Arrive, Visitor
from tests.browser.test_pages import faults
from tests.browser.test_people import signed_in
from tests.browser.test_refund import picture
from tests.browser.test_subscription import elsewhere
from tests.screens import ON_A_PHONE

pytestmark = pytest.mark.browser


def outside(visitor: Visitor) -> FakeSaved:
    return visitor.product.rails["card"].network.saved


async def agreed(visitor: Visitor, does: str) -> str:
    """Agree on the page, save a card that does this, and come back. Returns the card."""
    page = visitor.page
    section = page.locator("#auto-topup")
    await section.get_by_role("button", name="Set it up").click()
    await section.get_by_label("when fewer images").fill("30")
    await section.get_by_label("I agree that LlamaSketch").check()
    assert await faults(page) == []
    await picture(visitor, f"auto-topup-form-{does}")
    await section.get_by_role("button", name="Agree and save a card").click()
    await page.wait_for_url("https://fake.test/**")
    opened = await visitor.get("/v1/auto-topup")
    card = outside(visitor).save(opened["page_url"].rpartition("/")[2], does)
    await visitor.visit("/account#auto-topup")
    return card


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_a_person_agrees_and_sees_each_state_it_comes_to(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    await elsewhere(visitor)
    await signed_in(visitor, f"auto-{theme}-{width}@example.com")
    page, section = visitor.page, visitor.page.locator("#auto-topup")
    await expect(section).to_contain_text("never beyond your limit")
    await picture(visitor, "auto-topup-off")
    card = await agreed(visitor, DECLINES)
    await expect(section).to_contain_text("The bank declined it", timeout=30_000)
    assert await faults(page) == []
    await picture(visitor, "auto-topup-declined")
    outside(visitor).change(card, AUTHENTICATION)
    await section.get_by_role("button", name="Change it").click()
    await section.get_by_label("I agree that LlamaSketch").check()
    await section.get_by_role("button", name="Agree and change it").click()
    await expect(section).to_contain_text("Your bank wants you to confirm", timeout=30_000)
    assert await faults(page) == []
    await picture(visitor, "auto-topup-confirm")
    await section.get_by_role("button", name="Confirm with your bank").click()
    await page.wait_for_url("https://fake.test/**")
    opened = await visitor.get("/v1/auto-topup")
    outside(visitor).save(opened["page_url"].rpartition("/")[2], WORKS)
    await visitor.visit("/account#auto-topup")
    await expect(section).to_contain_text("$5.00 of at most $20.00", timeout=30_000)
    await expect(page.locator(".balance")).to_contain_text("5", timeout=30_000)
    assert await faults(page) == []
    await picture(visitor, "auto-topup-on")
    await section.get_by_role("button", name="Turn it off").click()
    await expect(section.get_by_role("button", name="Set it up")).to_be_visible()
