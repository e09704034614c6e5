"""From a stroke to an image, in a real browser, through every process of the real stack."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import expect

from tests.e2e.people import Person, scribble

pytestmark = pytest.mark.browser
FREE = 20


async def test_one_stroke_and_one_click_give_an_image_that_is_linked_to_its_debit(visitor: Person) -> None:
    await visitor.visit()
    await expect(visitor.page.locator(".paint")).to_contain_text("free: 20 left today")
    await visitor.draw()
    await visitor.paint()
    job = await visitor.sees_picture()
    await expect(visitor.page.locator(".paint")).to_contain_text("free: 19 left today")
    await visitor.page.locator(".debit").click()
    await expect(visitor.page.get_by_role("heading", name="One image, one debit")).to_be_visible()
    await expect(visitor.page.locator(".entries .entry")).to_have_count(2)
    await visitor.page.get_by_role("link", name="In my statement").click()
    used = visitor.page.locator(".entry", has_text="Used").first
    await expect(used).to_contain_text("19 available")
    await expect(used.locator("a.entry-thumb")).to_have_attribute("href", f"/images/{job}")
    debits = [entry for entry in await visitor.statement() if entry["kind"] == "captured"]
    assert [(entry["credits"], entry["reference"]["id"]) for entry in debits] == [(-1, job)]


@pytest.mark.thorough
async def test_an_image_that_fails_says_that_it_was_not_charged(visitor: Person) -> None:
    await visitor.visit()
    await visitor.page.locator("#prompt").fill("a llama that cannot be painted: sandbox-fail")
    await visitor.draw()
    await visitor.paint()
    await expect(visitor.page.locator(".ending")).to_contain_text("Not charged")
    await expect(visitor.page.locator(".paint")).to_contain_text("free: 20 left today")
    await visitor.page.get_by_role("link", name="See the release in your statement").click()
    await expect(visitor.page.locator(".entry", has_text="Given back")).to_be_visible()
    assert [entry["kind"] for entry in await visitor.statement()] == ["released", "held", "granted"]


async def test_a_picture_can_be_cancelled_while_it_is_painted(
    visitor: Person, paint_seconds: Callable[[float], Awaitable[None]]
) -> None:
    await paint_seconds(50)
    await visitor.visit()
    await visitor.draw()
    await visitor.paint()
    await expect(visitor.page.locator(".status-title")).to_have_text("Painting")
    await visitor.page.get_by_role("button", name="Cancel").click()
    await expect(visitor.page.locator(".ending")).to_contain_text("Not charged")
    await expect(visitor.page.locator(".ending h2")).to_have_text("Cancelled")
    await expect(visitor.page.locator(".paint")).to_contain_text("free: 20 left today")
    await paint_seconds(1)
    await visitor.paint()
    await visitor.sees_picture()


async def test_live_mode_paints_along_for_a_credit_a_frame(visitor: Person) -> None:
    await visitor.visit()
    await visitor.draw()
    await visitor.page.get_by_role("switch", name="Live").click()
    first = await visitor.sees_picture()
    await visitor.draw(((0.1, 0.1), (0.3, 0.15), (0.5, 0.1)))
    picture = visitor.page.locator(".picture")
    await expect(picture).not_to_have_attribute("src", re.compile(first))
    await expect(visitor.page.locator(".live-spend")).to_contain_text("2 of")
    await visitor.page.get_by_role("switch", name="Live").click()
    assert await visitor.available() == FREE - 2


async def test_out_of_free_images_the_topup_opens_and_the_picture_paints_itself_once_paid(
    visitor: Person,
) -> None:
    visitor.expected = ("status of 402",)
    await visitor.visit()
    await expect(visitor.page.locator(".paint")).to_contain_text("free: 20 left today")
    for number in range(FREE):
        await visitor.ask("POST", "/v1/generations", {"prompt": f"dot {number}", "sketch": scribble()})
    await visitor.draw()
    await visitor.page.get_by_role("button", name="Buy credits instead").click()
    await expect(visitor.page.get_by_text("Your picture is waiting.")).to_be_visible()
    await visitor.choose("BTC")
    await visitor.sees_state("waiting")
    await visitor.mark()
    await visitor.pay_in_wallet()
    await visitor.sees_state("paid")
    await expect(visitor.payment).to_contain_text("Your picture is being painted.")
    await visitor.page.get_by_role("button", name="Back to my sketch").click()
    await visitor.sees_picture()
    assert await visitor.still_same_page()
    assert await visitor.available() == 99
