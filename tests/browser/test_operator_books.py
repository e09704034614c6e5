"""Where the rails' books and ours differ, on the operators' page."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playwright.async_api import expect

from ledger.clock import system_clock
from ledger.money import USD, Money
from rails.movements import MovementKind
from tests.browser.conftest import Arrive
from tests.browser.test_operator import open_at, operator
from tests.browser.test_pages import faults
from tests.browser.test_refund import picture
from tests.screens import AT_A_DESK

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("screen", AT_A_DESK, ids=str)
async def test_a_difference_is_compared_shown_and_closed(arrive: Arrive, screen: tuple[str, int]) -> None:
    visitor = await operator(arrive, *screen)
    page, books = visitor.page, visitor.product.rails["card"].network.books
    long_ago = system_clock() - timedelta(hours=2)
    strange = f"card:strange:{screen[0]}{screen[1]}"
    books.add(MovementKind.RECEIVED, Money(1_234, USD), strange, at=long_ago)
    await open_at(visitor, "books")
    await expect(page.get_by_role("heading", name="Rails", exact=True)).to_be_visible()
    assert await faults(page) == []
    await picture(visitor, "operator-books-before")
    await page.get_by_role("button", name="Compare now").click()
    row = page.locator(".op-row", has_text=strange)

    async def shown() -> None:
        await page.get_by_role("button", name="Open", exact=True).click()
        await expect(row).to_contain_text("missing in our books", timeout=1_000)

    for attempt in range(30):
        try:
            await shown()
        except AssertionError:
            assert attempt < 29
        else:
            break
    await expect(row).to_contain_text("$12.34")
    await expect(row).to_contain_text("nothing")
    assert await faults(page) == []
    await picture(visitor, "operator-books")
    await page.get_by_role("button", name="Closed").click()
    await expect(row).to_have_count(0)
    wide = await page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
