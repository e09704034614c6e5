"""Every page: reachable for everybody, light, self-contained and strict."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Request, Response, Route, expect

from rails.contract import PaymentRequestStatus, ReceiptState
from tests.browser import states
from tests.browser.conftest import NODE_MODULES, Arrive, Visitor
from tests.browser.states import Bring
from tests.screens import SCREENS, THEMES

pytestmark = pytest.mark.browser
JAVASCRIPT_BYTES_MAX = 43 * 1024
"""Compressed. The sketch page knows from the start how a picture stands that is paid for alone."""
PAGES = {
    "/": "canvas.sheet",
    "/account": ".balance",
    "/plans": ".plan",
    "/sign-in": ".who",
    "/sandbox/wallet": ".bill",
    "/offline": ".lost",
    "/nowhere": ".lost",
}


def keep(seen: list[Response], response: Response) -> None:
    """Playwright wants a function of its own for each listener."""
    seen.append(response)


SETTLED = """() => Promise.allSettled(document.getAnimations()
    .filter((one) => one.effect.getComputedTiming().iterations !== Infinity)
    .map((one) => one.finished))"""


async def faults(page: Page) -> list[str]:
    """What axe finds, in words."""
    if not await page.evaluate("() => Boolean(window.axe)"):
        await page.evaluate(Path(NODE_MODULES / "axe-core/axe.min.js").read_text())
    await page.evaluate(SETTLED)  # a colour half way between two states belongs to neither
    found: dict[str, Any] = await page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("screen", SCREENS, ids=str)
async def test_axe_finds_nothing_on_any_page(arrive: Arrive, screen: tuple[str, int]) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    topup = await visitor.open_topup("liquid", "USDT")
    await visitor.visit("/")
    await visitor.stroke((0.3, 0.3), (0.6, 0.6))
    assert await faults(visitor.page) == []
    await visitor.page.locator(".paint").click()
    await expect(visitor.page.locator(".picture")).to_be_visible()
    assert await faults(visitor.page) == []
    for path, landmark in {**PAGES, f"/topups/{topup}": ".qr-code"}.items():
        await visitor.visit(path)
        await expect(visitor.page.locator(landmark).first).to_be_visible()
        assert await faults(visitor.page) == [], path


@pytest.mark.parametrize("theme", THEMES)
async def test_axe_finds_nothing_where_a_rail_is_closed(arrive: Arrive, theme: str) -> None:
    visitor = await arrive(theme=theme, width=360)
    await visitor.has_free_images(0)
    await visitor.product.set_down("lightning", True)
    await visitor.visit("/")
    await visitor.stroke((0.3, 0.3), (0.6, 0.6))
    await visitor.page.locator(".paint").click()
    await expect(visitor.page.locator(".way").first).to_be_visible()
    assert await faults(visitor.page) == []


@pytest.mark.parametrize("theme", THEMES)
async def test_axe_finds_nothing_while_a_payment_goes_its_way(arrive: Arrive, theme: str) -> None:
    visitor = await arrive(theme=theme, width=360)
    product, topup = visitor.product, await visitor.open_topup("liquid", "USDT")
    await visitor.visit(f"/topups/{topup}")

    async def shows(state: str) -> None:
        await expect(visitor.page.locator(f".pay[data-state={state}]")).to_be_visible()
        assert await faults(visitor.page) == [], state

    await shows("waiting")
    await product.stand(topup, PaymentRequestStatus.DECLINED, "expired_card")
    await shows("declined")
    await product.pay(topup, 1_000_000)
    await shows("underpaid")
    money = await product.pay(topup)
    await shows("seen")
    await product.settle(topup)
    await shows("paid")
    await product.change(topup, money, ReceiptState.DISPUTED)
    await shows("disputed")
    await product.change(topup, money, ReceiptState.SETTLED)
    await shows("paid")


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(
    ("rail", "asset", "bring"),
    [
        ("liquid", "USDT", states.expired),
        ("liquid", "USDT", states.wrong_asset),
        ("liquid", "USDT", states.reversed_),
        ("lightning", "BTC", states.unpriced),
    ],
    ids=["expired", "suspense", "reversed", "unpriced"],
)
async def test_axe_finds_nothing_where_a_payment_went_astray(
    arrive: Arrive, theme: str, rail: str, asset: str, bring: Bring
) -> None:
    visitor = await arrive(theme=theme, width=360)
    topup = await visitor.open_topup(rail, asset)
    await bring(visitor, topup)
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".pay")).to_be_visible()
    assert await faults(visitor.page) == []


async def test_nothing_scrolls_sideways_at_320_pixels(arrive: Arrive) -> None:
    visitor = await arrive(width=320)
    topup = await visitor.open_topup("liquid", "USDT")
    for path, landmark in {**PAGES, f"/topups/{topup}": ".qr-code"}.items():
        await visitor.visit(path)
        await expect(visitor.page.locator(landmark).first).to_be_visible()
        wide = await visitor.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, path


async def test_no_page_needs_much_javascript_or_a_third_party(visitor: Visitor) -> None:
    topup = await visitor.open_topup()
    for path, landmark in {**PAGES, f"/topups/{topup}": ".qr-code"}.items():
        seen: list[Response] = []
        page = await visitor.context.new_page()
        page.on("response", functools.partial(keep, seen))
        await page.goto(visitor.base + path)
        await expect(page.locator(landmark).first).to_be_visible()
        assert all(response.url.startswith(visitor.base) for response in seen)
        scripts = [one for one in seen if "javascript" in one.headers.get("content-type", "")]
        assert all("?v=" in one.url and "immutable" in one.headers["cache-control"] for one in scripts)
        sizes = [len(gzip.compress(await one.body(), 9)) for one in scripts]
        assert sum(sizes) <= JAVASCRIPT_BYTES_MAX, path
        await page.close()


async def test_pages_are_strict_and_revalidated(visitor: Visitor) -> None:
    first = await visitor.context.request.get(visitor.base + "/account")
    policy = first.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    again = await visitor.context.request.get(
        visitor.base + "/account", headers={"If-None-Match": first.headers["etag"]}
    )
    assert again.status == 304
    assert (await visitor.context.request.get(visitor.base + "/modules/../package.json")).status == 404


async def test_three_tabs_share_one_stream(visitor: Visitor) -> None:
    streams: list[str] = []

    def note(request: Request) -> None:
        if "/v1/events" in request.url:
            streams.append(request.url)

    visitor.context.on("request", note)
    topup = await visitor.open_topup()
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.get_by_text("Waiting for the payment")).to_be_visible()
    others = [await visitor.context.new_page() for _ in range(2)]
    for other in others:
        await other.goto(f"{visitor.base}/topups/{topup}")
        await expect(other.get_by_text("Waiting for the payment")).to_be_visible()

    async def cut(route: Route) -> None:
        await route.abort()

    # Now and then every tab asks besides: whatever it shows from here on, it was told.
    await visitor.context.route(f"**/v1/topups/{topup}", cut)
    await visitor.product.pay(topup)
    for page in [visitor.page, *others]:
        await expect(page.locator(".pay")).to_contain_text("+500 credits")
    assert len(streams) == 1


async def test_the_account_links_an_image_to_its_debit_and_back(visitor: Visitor) -> None:
    await visitor.visit("/")
    await visitor.stroke((0.3, 0.3), (0.6, 0.6))
    await visitor.page.locator(".paint").click()
    await expect(visitor.page.locator(".picture")).to_be_visible()
    await visitor.visit("/account")
    await expect(visitor.page.locator(".balance-big")).to_contain_text("19")
    await visitor.page.locator(".entry-thumb").click()
    await expect(visitor.page.locator(".polaroid img")).to_be_visible()
    await expect(visitor.page.locator(".image-cost")).to_have_text("1 credit")
    await expect(visitor.page.locator(".entry")).to_have_count(2)
    await visitor.page.get_by_role("link", name="In my statement").click()
    await expect(visitor.page.locator(".entry")).to_have_count(2)
    await visitor.page.get_by_role("link", name="Show everything").click()
    await expect(visitor.page.get_by_text("Only what concerns")).to_have_count(0)


async def test_signing_in_and_a_recovery_code(visitor: Visitor) -> None:
    await visitor.visit("/account")
    await visitor.page.get_by_text("I have a recovery code").click()
    await visitor.page.get_by_label("Recovery code").fill("LLAMA-AAAA-BBBB-CCCC-DDDD")
    await visitor.page.get_by_role("button", name="Bring my credits").click()
    await expect(visitor.page.get_by_role("alert")).to_contain_text("not known")
    await visitor.page.get_by_label("E-mail address").fill("ada@example.com")
    await visitor.page.get_by_role("button", name="Sign in").click()
    await expect(visitor.page.locator(".who-name")).to_have_text("ada@example.com")
    await visitor.page.get_by_role("button", name="Sign out", exact=True).click()
    await expect(visitor.page.get_by_text("You are a guest")).to_be_visible()


async def test_what_is_filled_in_wrongly_is_said_in_plain_words(visitor: Visitor) -> None:
    alert = visitor.page.get_by_role("alert")
    await visitor.visit("/account")
    await visitor.page.get_by_text("I have a recovery code").click()
    await visitor.page.get_by_label("Recovery code").fill("LLAMA-7Q")
    await visitor.page.get_by_role("button", name="Bring my credits").click()
    await expect(alert).to_have_text(
        "That is not a whole recovery code. It looks like LLAMA-7Q2M-X41D-9KTE-03WZ."
    )
    await visitor.page.get_by_label("E-mail address").fill("ada@here")
    await visitor.page.get_by_role("button", name="Sign in").click()
    await expect(alert).to_have_text("That is not an e-mail address. It looks like you@example.com.")
    await visitor.visit("/")
    await visitor.stroke((0.3, 0.3), (0.6, 0.6))
    await visitor.page.locator("#prompt").fill("llama " * 333)
    await visitor.page.locator(".chip").last.click()
    await visitor.page.locator(".paint").click()
    await expect(visitor.page.get_by_text("The prompt is too long, or empty.")).to_be_visible()


async def test_the_sketchbook_opens_without_a_network(arrive: Arrive) -> None:
    visitor = await arrive(workers="allow")
    await visitor.visit("/")
    await visitor.page.wait_for_function("() => navigator.serviceWorker.ready.then(() => true)")
    await visitor.page.reload()
    await expect(visitor.page.locator("canvas.sheet")).to_be_visible()
    await visitor.context.set_offline(True)
    await visitor.page.reload()
    await expect(visitor.page.locator("canvas.sheet")).to_be_visible()
    await visitor.page.goto(visitor.base + "/account")
    await expect(visitor.page.get_by_text("No connection")).to_be_visible()


async def test_dark_paper_is_remembered(visitor: Visitor) -> None:
    await visitor.visit("/plans")
    await visitor.page.get_by_role("button", name="Dark paper").click()
    await visitor.page.reload()
    assert await visitor.page.evaluate("() => document.documentElement.dataset.theme") == "dark"
