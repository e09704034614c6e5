"""What the pages say of who is here: of a person's sessions, and of workers that cannot paint."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from playwright.async_api import Page, Route, expect

from generation.store.tables import workers
from tests.browser.conftest import Arrive, Visitor
from tests.gateway.stack import generation_request
from tests.screens import AT_A_DESK, ON_A_PHONE

pytestmark = pytest.mark.browser


async def signed_in(visitor: Visitor, email: str) -> None:
    await visitor.visit("/account")
    await visitor.page.get_by_label("E-mail address").fill(email)
    await visitor.page.get_by_role("button", name="Sign in").click()
    await expect(visitor.page.locator(".who-name")).to_have_text(email)


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_signing_out_everywhere_ends_the_sessions_of_every_browser(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    here, elsewhere = await arrive(theme=theme, width=width), await arrive()
    for browser in (here, elsewhere):
        await signed_in(browser, f"everywhere-{theme}-{width}@example.com")
    elsewhere.expected = ("status of 401",)  # until it notices, it asks as somebody who was here
    await here.page.get_by_role("button", name="Sign out everywhere").click()
    for browser in (here, elsewhere):  # nobody has to load it again
        await expect(browser.page.get_by_text("You are a guest")).to_be_visible()


async def test_signing_out_here_leaves_the_other_browser_signed_in(arrive: Arrive) -> None:
    here, elsewhere = await arrive(), await arrive()
    for browser in (here, elsewhere):
        await signed_in(browser, "here@example.com")
    await here.page.get_by_role("button", name="Sign out", exact=True).click()
    await expect(here.page.get_by_text("You are a guest")).to_be_visible()
    await elsewhere.page.reload()
    await expect(elsewhere.page.locator(".who-name")).to_have_text("here@example.com")


SECRET = "a birthday cake for Mathilda"
KEPT = """async () => {
  const found = await new Promise((resolve, reject) => {
    const open = indexedDB.open("keyval-store");
    open.onerror = reject;
    open.onsuccess = () => {
      const names = [...open.result.objectStoreNames];
      if (names.length === 0) return resolve([]);
      const all = open.result.transaction(names[0]).objectStore(names[0]).getAll();
      all.onsuccess = () => resolve(all.result);
    };
  });
  return JSON.stringify([{ ...localStorage }, { ...sessionStorage }, found]);
}"""


async def paint(visitor: Visitor, prompt: str) -> None:
    await visitor.visit("/")
    await visitor.stroke((0.2, 0.7), (0.5, 0.3), (0.8, 0.7))
    await visitor.page.locator("#prompt").fill(prompt)
    await visitor.page.locator("button.paint").click()
    await expect(visitor.page.locator(".strip img")).to_have_count(1)
    assert prompt in await visitor.page.evaluate(KEPT)


async def nobody_is_here(page: Page) -> None:
    """The page has been loaded anew, by itself, for a guest."""
    await expect(page.locator(".who, canvas.sheet").first).to_be_visible()
    await page.wait_for_function("() => localStorage.getItem('llamasketch:person') === ''")
    await page.wait_for_function("() => sessionStorage.getItem('llamasketch:person') === ''")


@pytest.mark.parametrize(
    "way", ["Sign out", pytest.param("Sign out everywhere", marks=pytest.mark.thorough), "somewhere else"]
)
async def test_what_a_person_made_leaves_this_browser_with_them_in_every_tab(
    arrive: Arrive, way: str
) -> None:
    visitor = await arrive()
    visitor.expected = ("status of 401",)
    await signed_in(visitor, f"leaves-{way.replace(' ', '-').lower()}@example.com")
    tab = await visitor.context.new_page()
    await tab.goto(visitor.base + "/account")
    await paint(visitor, SECRET)
    if way == "somewhere else":
        answer = await visitor.context.request.delete(
            visitor.base + "/v1/sessions", data={}, headers={"Origin": visitor.base}
        )
        assert answer.ok
    else:
        await tab.get_by_role("button", name=way, exact=True).click()
    await expect(tab.get_by_text("You are a guest")).to_be_visible()
    await expect(visitor.page.locator(".strip img")).to_have_count(0)
    for page in (visitor.page, tab):
        await nobody_is_here(page)
    await expect(visitor.page.locator("#prompt")).not_to_have_value(SECRET)
    for page in (visitor.page, tab):
        kept = await page.evaluate(KEPT)
        assert "Mathilda" not in kept
        assert "stroke" not in kept
    assert await visitor.ink() == 0
    await visitor.visit("/")
    assert "Mathilda" not in await visitor.page.inner_text("body")


async def test_what_a_guest_made_comes_along_into_the_account(visitor: Visitor) -> None:
    await paint(visitor, SECRET)
    drawn = await visitor.ink()
    await signed_in(visitor, "comes-along@example.com")
    await visitor.visit("/")
    await expect(visitor.page.locator(".strip img")).to_have_count(1)
    await expect(visitor.page.locator("#prompt")).to_have_value(SECRET)
    assert await visitor.ink() == drawn


async def test_a_recovery_code_of_a_guest_outlives_a_person_who_was_here(arrive: Arrive) -> None:
    visitor = await arrive()
    await visitor.visit("/account")
    code = "LLAMA-7Q2M-X41D-9KTE-03WZ"
    await visitor.page.evaluate(f"() => localStorage.setItem('llamasketch:recovery', '{code}')")
    await signed_in(visitor, "was-here@example.com")
    await visitor.page.get_by_role("button", name="Sign out", exact=True).click()
    await expect(visitor.page.get_by_text("You are a guest")).to_be_visible()
    await nobody_is_here(visitor.page)
    assert code in await visitor.page.evaluate(KEPT)


async def test_an_image_is_not_kept_for_whoever_is_here_next(visitor: Visitor) -> None:
    await paint(visitor, SECRET)
    kept = "() => JSON.parse(sessionStorage.getItem('llamasketch:gallery'))[0].id"
    job = await visitor.page.evaluate(kept)
    address = f"{visitor.base}/v1/generations/{job}/image"
    answer = await visitor.context.request.get(address, max_redirects=0)
    assert answer.headers["vary"] == "Cookie, Authorization", "with another cookie a browser asks again"
    await visitor.context.clear_cookies()
    await visitor.get("/v1/account")
    assert (await visitor.context.request.get(address)).status == 404


async def test_whoever_signs_in_or_out_in_one_tab_is_shown_by_the_others(visitor: Visitor) -> None:
    tab = await visitor.context.new_page()
    await tab.goto(visitor.base + "/account")
    await expect(tab.get_by_text("You are a guest")).to_be_visible()
    await signed_in(visitor, "two-tabs@example.com")
    await expect(tab.locator(".who-name")).to_have_text("two-tabs@example.com")
    await tab.get_by_role("button", name="Sign out", exact=True).click()
    await expect(visitor.page.get_by_text("You are a guest")).to_be_visible()


async def test_with_a_recovery_code_every_tab_is_told_of_the_account_that_it_opened(arrive: Arrive) -> None:
    guest, elsewhere = await arrive(), await arrive()
    order = {"rail": "lightning", "credits": 500, "pay_asset": "BTC"}
    topup = await guest.post("/v1/topups", order)
    await guest.product.pay(topup["id"])
    await guest.topup_is(topup["id"], "paid")
    tab = await elsewhere.context.new_page()
    await tab.goto(elsewhere.base + "/account")
    await expect(tab.locator(".balance-big")).to_have_text("20 images")
    await elsewhere.visit("/account")
    await elsewhere.page.get_by_text("I have a recovery code").click()
    await elsewhere.page.locator("#code").fill(topup["recovery_code"])
    await elsewhere.page.get_by_role("button", name="Bring my credits").click()
    for page in (elsewhere.page, tab):
        await expect(page.locator(".balance-big")).to_have_text("520 images")
    account = await elsewhere.get("/v1/account")
    await elsewhere.product.gateway.spend(account["id"], 1)
    for page in (elsewhere.page, tab):
        await expect(page.locator(".balance-big")).to_have_text("519 images")


@pytest.mark.parametrize("screen", AT_A_DESK, ids=str)
async def test_when_every_worker_is_quarantined_the_page_says_that_nobody_can_paint(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    gateway, scripted = visitor.product.gateway, visitor.product.worker
    async with scripted.silent():
        worker, failed = scripted.worker, []
        for _ in range(3):
            somebody = await gateway.visitor()
            asked = await somebody.post("/v1/generations", json=generation_request())
            failed.append((somebody, asked.json()["id"]))
        while (job := await worker.claim(0)) is not None:
            (await worker.say(job, "fail", failure="infrastructure", code="out_of_memory")).raise_for_status()
        await visitor.visit("/")
        await visitor.stroke((0.2, 0.7), (0.5, 0.3), (0.8, 0.7))
        await visitor.page.locator("button.paint").click()
        await expect(visitor.page.get_by_text("Nobody can paint at the moment")).to_be_visible()
        await expect(visitor.page.get_by_text("you are not charged")).to_be_visible()
        for somebody, job_id in failed:
            await somebody.delete(f"/v1/generations/{job_id}")
        async with gateway.services.base.engine.begin() as connection:
            due = sa.update(workers).where(workers.c.worker_id == worker.worker_id)
            await connection.execute(due.values(self_test_at=gateway.services.base.clock()))
        answer = await worker.client.post("/v1/worker/self-test", json={"passed": True})
        assert answer.json() == {"state": "active"}
    await expect(visitor.page.get_by_text("Nobody can paint at the moment")).to_have_count(0)


async def test_a_recovery_code_that_is_sent_before_the_account_was_read_waits_for_it(arrive: Arrive) -> None:
    visitor = await arrive()
    await visitor.context.clear_cookies()
    sent = asyncio.Event()

    async def late(route: Route) -> None:
        await sent.wait()
        await route.continue_()

    await visitor.page.route("**/v1/account", late)
    await visitor.visit("/account")
    await visitor.page.get_by_text("I have a recovery code").click()
    await visitor.page.locator("#code").fill("LLAMA-AAAA-BBBB-CCCC-DDDD")
    await visitor.page.get_by_role("button", name="Bring my credits").click()
    sent.set()
    await expect(visitor.page.get_by_role("alert")).to_have_text("This recovery code is not known.")
