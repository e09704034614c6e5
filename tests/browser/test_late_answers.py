"""Pages when answers come late: after newer ones, or when the page was away."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visitor

pytestmark = pytest.mark.browser
HOLD_BACK = """(held) => {
    const ask = window.fetch;
    let first = true;
    window.fetch = async (path, options) => {
        const answer = await ask(path, options);
        if (!String(path).endsWith(held) || !first) return answer;
        first = false;
        await new Promise((release) => { window.letGo = release; });
        return answer;
    };
}"""
"""The first answer about what is named stays on its way until it is let go."""
KEPT_AND_SHOWN = """() => {
    dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
    dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
}"""
"""What a browser says to a page that it kept as it was left, and shows again."""


async def let_go(visitor: Visitor) -> None:
    await visitor.page.evaluate("() => { letGo(); }")
    await visitor.page.evaluate("() => fetch('/v1/session')")  # what was let go has been dealt with before


async def test_an_answer_that_comes_after_a_newer_one_is_not_shown(visitor: Visitor) -> None:
    await visitor.visit("/account")
    await expect(visitor.page.locator(".balance-big")).to_have_text("20 images")
    await visitor.page.evaluate(HOLD_BACK, "/v1/account")
    await visitor.page.evaluate("() => { dispatchEvent(new Event('online')); }")
    await visitor.page.wait_for_function("() => 'letGo' in window")
    account = await visitor.get("/v1/account")
    await visitor.product.gateway.spend(account["id"], 1)
    await expect(visitor.page.locator(".balance-big")).to_have_text("19 images")
    await let_go(visitor)
    await expect(visitor.page.locator(".balance-big")).to_have_text("19 images")


async def test_entries_of_a_filter_that_was_left_are_not_shown_under_the_next_one(visitor: Visitor) -> None:
    await visitor.visit("/account")
    account = await visitor.get("/v1/account")
    await visitor.product.gateway.spend(account["id"], 1)
    await expect(visitor.page.locator(".entry")).not_to_have_count(0)
    await visitor.page.evaluate(HOLD_BACK, "type=topup")
    choice = visitor.page.locator(".statement-filter select")
    await choice.select_option("topup")
    await visitor.page.wait_for_function("() => 'letGo' in window")
    await choice.select_option("generation")
    await expect(visitor.page.locator(".entry")).not_to_have_count(0)
    await let_go(visitor)
    await expect(visitor.page.get_by_text("No entries like that")).to_have_count(0)
    await expect(visitor.page.locator(".entry")).not_to_have_count(0)


async def test_a_page_that_was_kept_and_is_shown_again_goes_on_being_told(visitor: Visitor) -> None:
    await visitor.visit("/account")
    await expect(visitor.page.locator(".balance-big")).to_have_text("20 images")
    await visitor.page.evaluate(KEPT_AND_SHOWN)
    account = await visitor.get("/v1/account")
    for left in (19, 18):
        await visitor.product.gateway.spend(account["id"], 1)
        await expect(visitor.page.locator(".balance-big")).to_have_text(f"{left} images")
