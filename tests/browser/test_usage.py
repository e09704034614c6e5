"""What a person sees of the images that a plan brings: used, nearly used up, used up."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Arrive
from tests.browser.test_pages import faults
from tests.browser.test_refund import picture
from tests.browser.test_subscription import subscribed
from tests.screens import ON_A_PHONE

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_the_page_says_how_much_of_the_period_is_used_and_warns_in_time(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    await subscribed(visitor, "starter", f"uses-{theme}-{width}@example.com")
    account, page, usage = await visitor.get("/v1/account"), visitor.page, visitor.page.locator("#usage")
    await expect(usage).to_contain_text("0 of 2,000 images")
    await expect(usage).not_to_contain_text("are used")
    await visitor.product.gateway.spend(account["id"], 1_650)
    await page.reload()
    await expect(usage).to_contain_text("1,650 of 2,000 images, until")
    await expect(usage).to_contain_text("82 % of them are used")
    assert await faults(page) == []
    await picture(visitor, "usage-82")
    await visitor.product.gateway.spend(account["id"], 350)
    await page.reload()
    await expect(usage).to_contain_text("All of them are used")
    await expect(usage).to_contain_text("New ones come on")
    assert await faults(page) == []
    await picture(visitor, "usage-100")
    await usage.get_by_role("button", name="Top up").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
