"""The page behind the link of a refusal for want of credits, in the browser of somebody else than the account's owner."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.async_api import Page, Route, expect

from gateway.auth.topup_links import TopupLinks
from ledger.clock import system_clock
from tests.browser import states
from tests.browser.conftest import Arrive, Visitor
from tests.browser.rails import CHECKOUT
from tests.browser.test_pages import faults
from tests.gateway.stack import generation_request
from tests.screens import ON_A_PHONE

pytestmark = pytest.mark.browser


class Program:
    """A program with an account of its own and no credits left, and the link that it was answered with."""

    def __init__(self, client: httpx.AsyncClient, account_id: str, address: str) -> None:
        self.client = client
        self.account_id = account_id
        self.address = address

    @property
    def path(self) -> str:
        """The link without its host."""
        parts = urlsplit(self.address)
        return f"{parts.path}#{parts.fragment}"

    async def available(self) -> int:
        """What the account may spend now."""
        return int((await self.client.get("/v1/account")).json()["credits"]["available"])


async def program(visitor: Visitor) -> Program:
    client = await visitor.product.gateway.visitor()
    await visitor.product.gateway.spend_allowance(client)
    answer = await client.post("/v1/generations", json=generation_request())
    assert answer.status_code == 402
    account_id = (await client.get("/v1/account")).json()["id"]
    return Program(client, account_id, answer.json()["topup_url"])


async def pick(page: Page, name: str) -> str:
    """Choose a payment method; the id of the top-up."""
    await page.get_by_role("button", name=name).click()
    await page.wait_for_function("() => location.search.includes('payment=')")
    return parse_qs(urlsplit(page.url).query)["payment"][0]


async def test_somebody_else_pays_and_is_sent_back_to_the_program(visitor: Visitor) -> None:
    one = await program(visitor)
    before = (await visitor.get("/v1/account"))["credits"]
    await visitor.visit(one.path)
    card = visitor.page.locator(".topup-card")
    await expect(card).to_contain_text(f"For the account ending in {one.account_id[-4:]}")
    await expect(card).to_contain_text("1 more credit")
    topup = await pick(visitor.page, "Lightning")
    await expect(visitor.page.locator(".qr-code")).to_be_visible()
    await visitor.product.pay(topup)
    await expect(card).to_contain_text("+100 credits")
    await expect(card).to_contain_text("Credits added. Go back to your program.")
    await expect(card).to_contain_text("It has enough credits now")
    assert await one.available() == 100
    assert (await visitor.get("/v1/account"))["credits"] == before


async def test_the_page_shows_nothing_of_this_browsers_account_nor_of_the_other(visitor: Visitor) -> None:
    one = await program(visitor)
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    await visitor.visit(one.path)
    await expect(visitor.page.locator(".way").first).to_be_visible()
    topup = await pick(visitor.page, "Lightning")
    await visitor.product.pay(topup)
    await expect(visitor.page.locator(".receipt-credits")).to_be_visible()
    await expect(visitor.page.locator("#top-balance button")).to_have_count(0)
    assert {path for path in asked if path.startswith("/v1/")} == {
        "/v1/rails",
        "/v1/topup-link",
        "/v1/topup-link/topups",
        f"/v1/topup-link/topups/{topup}",
    }
    text = await visitor.page.locator("main").inner_text()
    assert one.account_id not in text
    assert "recovery" not in text.lower()
    assert "balance" not in text.lower()
    assert "statement" not in text.lower()


async def test_opening_a_link_makes_nobody_a_visitor(visitor: Visitor) -> None:
    one = await program(visitor)
    await visitor.context.clear_cookies()
    await visitor.visit(one.path)
    await expect(visitor.page.locator(".way").first).to_be_visible()
    assert await visitor.context.cookies() == []


async def test_the_token_is_in_no_address_that_is_asked_for(visitor: Visitor) -> None:
    one = await program(visitor)
    token = urlsplit(one.address).fragment
    asked: list[str] = []
    visitor.context.on(
        "request",
        lambda request: asked.append(request.url.partition("#")[0] + str(request.headers.get("referer"))),
    )
    await to_the_card_page(visitor, one)
    await visitor.page.get_by_role("link", name="Back").click()
    await expect(visitor.page.locator(".pay")).to_contain_text("Confirming")
    assert len(asked) > 5
    assert not [address for address in asked if token in address or "lst1" in address]


async def to_the_card_page(visitor: Visitor, one: Program) -> None:
    async def hosted(route: Route) -> None:
        back = parse_qs(urlsplit(route.request.url).query)["back"][0]
        page = f"<!doctype html><title>Checkout</title><a href={back}>Back</a>"
        await route.fulfill(content_type="text/html", body=page)

    await visitor.context.route(f"{CHECKOUT}/**", hosted)
    await visitor.visit(one.path)
    await visitor.page.get_by_role("button", name="Card").click()
    await visitor.page.wait_for_url(f"{CHECKOUT}/**")


async def test_a_card_page_leads_back_without_the_token_to_where_it_was_opened(visitor: Visitor) -> None:
    one = await program(visitor)
    await to_the_card_page(visitor, one)
    await visitor.page.get_by_role("link", name="Back").click()
    await expect(visitor.page.locator(".pay")).to_contain_text("Confirming")
    topup = parse_qs(urlsplit(visitor.page.url).query)["payment"][0]
    await visitor.product.pay(topup)
    await expect(visitor.page.locator(".pay")).to_contain_text("Go back to your program")
    # Another browser, where the card page was finished, does not know the link.
    await visitor.page.evaluate("() => sessionStorage.clear()")
    await visitor.visit(f"/topup?payment={topup}")
    await expect(visitor.page.get_by_role("alert")).to_contain_text("Open the link once more")


async def test_where_all_places_are_taken_the_page_says_what_helps(visitor: Visitor) -> None:
    one = await program(visitor)
    await visitor.visit(one.path)
    for _ in range(5):
        await pick(visitor.page, "Lightning")
        await visitor.page.get_by_role("button", name="Pay another way").click()
    await visitor.page.get_by_role("button", name="Lightning").click()
    await expect(visitor.page.get_by_role("alert")).to_contain_text("Pay one of them, or try again")


async def test_a_reload_back_and_a_second_tab_go_on_where_they_were(visitor: Visitor) -> None:
    one = await program(visitor)
    await visitor.visit("/plans")
    await visitor.visit(one.path)
    topup = await pick(visitor.page, "Lightning")
    await visitor.page.reload()
    await expect(visitor.page.locator(".qr-code")).to_be_visible()
    second = await visitor.context.new_page()
    await second.goto(visitor.page.url)
    await expect(second.locator(".qr-code")).to_be_visible()
    third = await visitor.context.new_page()
    await third.goto(one.address)
    await expect(third.locator(".way").first).to_be_visible()
    await visitor.page.go_back()
    await expect(visitor.page.locator(".plans")).to_be_visible()
    await visitor.page.go_forward()
    await expect(visitor.page.locator(".qr-code")).to_be_visible()
    await visitor.product.pay(topup)
    for page in (visitor.page, second):
        await expect(page.locator(".pay")).to_contain_text("Go back to your program")
    await third.reload()
    await expect(third.locator(".topup-card")).to_contain_text("It has enough credits now")


async def test_another_link_in_the_same_tab_is_the_one_that_counts(visitor: Visitor) -> None:
    one, other = await program(visitor), await program(visitor)
    await visitor.visit(one.path)
    card = visitor.page.locator(".topup-card")
    await expect(card).to_contain_text(one.account_id[-4:])
    await visitor.page.evaluate(f"() => {{ location.href = '{other.address}'; }}")
    await expect(card).to_contain_text(f"ending in {other.account_id[-4:]}")
    topup = await pick(visitor.page, "Lightning")
    await visitor.product.pay(topup)
    await expect(card).to_contain_text("Go back to your program")
    assert [await one.available(), await other.available()] == [0, 100]


async def test_pay_another_way_forgets_the_payment_but_not_the_link(visitor: Visitor) -> None:
    one = await program(visitor)
    await visitor.visit(one.path)
    await pick(visitor.page, "Lightning")
    await visitor.page.get_by_role("button", name="Pay another way").click()
    await visitor.page.reload()
    await expect(visitor.page.locator(".way").first).to_be_visible()
    await pick(visitor.page, "USDT")
    await expect(visitor.page.locator(".pay")).to_contain_text("Copy address")


WRONG: list[tuple[str, Callable[[str], str]]] = [
    ("cut off", lambda path: path[:-5]),
    ("without a token", lambda path: path.partition("#")[0]),
    ("for more", lambda path: path.replace(".1.", ".5.", 1)),
    ("of nonsense", lambda path: path.partition("#")[0] + "#<img src=x onerror=alert(1)>"),
]


@pytest.mark.parametrize(("kind", "change"), WRONG, ids=[row[0] for row in WRONG])
async def test_a_link_that_is_not_whole_says_what_to_do(
    visitor: Visitor, kind: str, change: Callable[[str], str]
) -> None:
    one = await program(visitor)
    await visitor.visit(change(one.path))
    await expect(visitor.page.get_by_role("alert")).to_contain_text("This link does not work")
    await expect(visitor.page.locator(".way")).to_have_count(0)


def ended(visitor: Visitor, account_id: str) -> str:
    """The path of a link that ended an hour ago."""
    settings = visitor.product.gateway.settings
    links = TopupLinks(
        settings.secret_for("topup-links"), settings.public_url, lambda: system_clock() - timedelta(hours=25)
    )
    return "/topup#" + links.issue(account_id, 1).partition("#")[2]


async def test_a_link_that_has_ended_says_so(visitor: Visitor) -> None:
    one = await program(visitor)
    await visitor.visit(ended(visitor, one.account_id))
    await expect(visitor.page.get_by_role("alert")).to_contain_text("This link has ended")
    await expect(visitor.page.locator(".way")).to_have_count(0)


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_axe_finds_nothing_on_any_state_of_the_page(arrive: Arrive, screen: tuple[str, int]) -> None:
    theme, width = screen
    visitor = await arrive(theme=theme, width=width)
    page, one = visitor.page, await program(visitor)
    found: dict[str, list[str]] = {}

    async def look(state: str, landmark: str) -> None:
        await expect(page.locator(landmark).first).to_be_visible()
        wide = await page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{state} scrolls sideways"
        found[state] = await faults(page)

    await visitor.visit(one.path)
    await look("choosing", ".way")
    topup = await pick(page, "Lightning")
    await look("paying", ".qr-code")
    await states.paid(visitor, topup)
    await look("paid", ".receipt-credits")
    await visitor.visit(one.path[:-3])
    await look("not whole", "text=This link does not work")
    await visitor.visit(ended(visitor, one.account_id))
    await look("ended", "text=This link has ended")
    assert not any(found.values()), found
