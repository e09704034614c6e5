"""The top-up: amount, payment request, and a screen for everything that can become of a payment."""

from __future__ import annotations

import asyncio
import io
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.async_api import Route, expect

from rails.contract import ReceiptState
from tests.browser import states
from tests.browser.conftest import Arrive, Visitor
from tests.browser.rails import CHECKOUT, AddressRail
from tests.browser.states import Bring
from tests.waiting import SECONDS_MAX

pytestmark = pytest.mark.browser
FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))"
"""Until the page has shown what it was told."""


STATES: list[tuple[str, str, str, Bring, list[str]]] = [
    (
        "waiting",
        "lightning",
        "BTC",
        states.waiting,
        ["Pay 5,120 sats", "Copy invoice", "Waiting for the payment"],
    ),
    (
        "address",
        "liquid",
        "USDT",
        states.waiting,
        ["Pay 5.00 USDT", "Copy address", "may need a little L-BTC"],
    ),
    ("card", "card", "USD", states.waiting, ["Confirming", "Back to the card page"]),
    ("seen", "liquid", "USDT", states.seen, ["Payment received", "about two minutes"]),
    ("underpaid", "liquid", "USDT", states.underpaid, ["Send 3.00 USDT more", "Got 2.00 USDT of 5.00 USDT"]),
    (
        "underpaid and expired",
        "liquid",
        "USDT",
        states.underpaid_and_expired,
        ["This quote has ended", "Got 2.00 USDT of 5.00 USDT", "credited in proportion", "New quote"],
    ),
    ("expired", "lightning", "BTC", states.expired, ["This quote has ended", "New quote"]),
    ("expired card", "card", "USD", states.expired, ["Nothing was charged"]),
    ("late", "liquid", "USDT", states.late, ["Arrived late", "not lost"]),
    ("late and paid", "liquid", "USDT", states.late_and_paid, ["+500 credits", "after the quote had ended"]),
    ("wrong asset", "liquid", "USDT", states.wrong_asset, ["That was L-BTC, not USDT"]),
    ("declined", "card", "USD", states.declined, ["declined", "not enough funds", "Nothing was charged"]),
    ("unpriced", "lightning", "BTC", states.unpriced, ["waiting for a price"]),
    (
        "another asset arriving",
        "liquid",
        "USDT",
        states.wrong_asset_arriving,
        ["Another asset is arriving", "Another asset (7af1…c3d2) is on its way, and USDT was asked for"],
    ),
    (
        "unknown asset",
        "liquid",
        "USDT",
        states.unknown_asset,
        ["That was another asset (7af1…c3d2), not USDT"],
    ),
    (
        "right and wrong asset",
        "liquid",
        "USDT",
        states.right_and_wrong_asset,
        ["+500 credits", "Another asset (7af1…c3d2) came as well"],
    ),
    ("taken back", "card", "USD", states.taken_back, ["taken back", "returned to its sender"]),
    (
        "reversed",
        "liquid",
        "USDT",
        states.reversed_,
        ["Waiting again after a reorganisation", "come back by themselves"],
    ),
    ("disputed", "card", "USD", states.disputed, ["disputed"]),
]


@pytest.mark.parametrize(
    ("rail", "asset", "bring", "words"), [row[1:] for row in STATES], ids=[row[0] for row in STATES]
)
async def test_every_state_has_its_screen(
    visitor: Visitor, rail: str, asset: str, bring: Bring, words: list[str]
) -> None:
    topup = await visitor.open_topup(rail, asset)
    await bring(visitor, topup)
    await visitor.visit(f"/topups/{topup}")
    for text in words:
        await expect(visitor.page.locator(".pay")).to_contain_text(text)
    shown = await visitor.page.locator(".pay").inner_text()
    assert "500,000,000" not in shown
    assert "0000000000000000" not in shown


async def test_blocks_are_counted_before_our_eyes(visitor: Visitor) -> None:
    topup = await visitor.open_topup("liquid", "USDT")
    money = await visitor.product.pay(topup)
    await visitor.topup_is(topup, "seen")
    await visitor.visit(f"/topups/{topup}")
    rail = visitor.product.rails["liquid"].rail
    assert isinstance(rail, AddressRail)
    for blocks in (0, 1):
        rail.blocks[money] = blocks
        await expect(visitor.page.locator(".pay")).to_contain_text(f"{blocks} of 2 blocks so far")


async def test_a_payment_that_a_reorganisation_took_is_credited_again_before_our_eyes(
    visitor: Visitor,
) -> None:
    topup = await visitor.open_topup("liquid", "USDT")
    money = await visitor.product.pay(topup)
    await visitor.product.settle(topup)
    await visitor.topup_is(topup, "paid")
    await visitor.product.change(topup, money, ReceiptState.SEEN)
    await visitor.visit(f"/topups/{topup}")
    pay = visitor.page.locator(".pay")
    await expect(pay).to_contain_text("Waiting again after a reorganisation")
    await visitor.product.settle(topup)
    await expect(pay).to_contain_text("+500 credits")


async def test_a_topup_that_is_still_opening_says_so_and_opens_by_itself(visitor: Visitor) -> None:
    visitor.product.lose_answers("lightning", True)
    topup = await visitor.open_topup()
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".pay")).to_contain_text("Opening")
    visitor.product.lose_answers("lightning", False)
    await expect(visitor.page.locator(".qr-code")).to_be_visible()


async def test_paid_shows_credits_balance_and_surplus(visitor: Visitor) -> None:
    topup = await visitor.open_topup("liquid", "USDT")
    await visitor.visit(f"/topups/{topup}")
    await visitor.product.pay(topup, 600_000_000)
    await visitor.product.settle(topup)
    pay = visitor.page.locator(".pay")
    await expect(pay).to_contain_text("+600 credits")
    await expect(pay).to_contain_text("New balance: 620")
    await expect(pay).to_contain_text("1.00 USDT more than asked")


async def test_a_guest_sees_the_recovery_code_until_it_is_kept(visitor: Visitor) -> None:
    topup = await to_the_card_page(visitor)
    await states.paid(visitor, topup["id"])
    await visitor.visit(f"/topups/{topup['id']}")
    await expect(visitor.page.locator(".recovery-code")).to_have_text(topup["recovery_code"])
    await visitor.page.get_by_role("button", name="I have kept it").click()
    await visitor.page.reload()
    await expect(visitor.page.locator(".receipt-credits")).to_be_visible()
    await expect(visitor.page.locator(".recovery-code")).to_have_count(0)


@pytest.mark.parametrize(
    ("theme", "rail", "asset"),
    [
        ("light", "lightning", "BTC"),
        ("dark", "liquid", "USDT"),
        pytest.param("dark", "lightning", "BTC", marks=pytest.mark.thorough),
        pytest.param("light", "liquid", "USDT", marks=pytest.mark.thorough),
    ],
)
async def test_the_code_can_be_read_from_the_screen(
    arrive: Arrive, theme: str, rail: str, asset: str
) -> None:
    visitor = await arrive(theme=theme, width=360, device_scale_factor=2)
    topup = await visitor.open_topup(rail, asset)
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".qr-code")).to_be_visible()
    text = read_code(await visitor.page.screenshot())
    assert text.upper().startswith("LIGHTNING:LNBC" if rail == "lightning" else "LIQUIDNETWORK:EL1")


async def test_the_code_of_an_underpaid_topup_asks_for_the_rest(arrive: Arrive) -> None:
    visitor = await arrive(device_scale_factor=2)
    topup = await visitor.open_topup("liquid", "USDT")
    await visitor.product.pay(topup, 150_000_000)
    await visitor.topup_is(topup, "underpaid")
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".qr-code")).to_be_visible()
    assert "amount=3.5&" in read_code(await visitor.page.locator(".pay").screenshot())


def read_code(png: bytes) -> str:
    """What a phone's camera would read, held at a few distances."""
    image = cv2.cvtColor(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), cv2.COLOR_RGB2BGR)
    for scale in (1.0, 0.75, 0.5, 1.5):
        sized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        text, _, _ = cv2.QRCodeDetector().detectAndDecode(sized)
        if text:
            return str(text)
    return ""


async def test_a_topup_works_by_keyboard_alone(visitor: Visitor) -> None:
    await visitor.visit("/account")
    await expect(visitor.page.locator(".balance")).to_be_visible()
    keys = visitor.page.keyboard

    async def tab_to(name: str) -> None:
        for _ in range(40):
            await keys.press("Tab")
            focused = await visitor.page.evaluate(
                "() => document.activeElement.textContent + (document.activeElement.value ?? '')"
            )
            if name in focused:
                return
        raise AssertionError(f"Tab never reached {name}")

    await tab_to("Top up")
    await keys.press("Enter")
    await expect(visitor.page.locator(".amount").first).to_be_visible()
    await tab_to("100")
    await keys.press("ArrowDown")
    await tab_to("Lightning")
    await keys.press("Enter")
    await expect(visitor.page.locator(".pay")).to_contain_text("for 500 images")
    await tab_to("Copy invoice")
    await keys.press("Escape")
    await expect(visitor.page.locator("dialog")).to_have_count(0)
    assert visitor.page.url.endswith("/account")


async def test_a_slow_rail_says_so_and_offers_the_others(visitor: Visitor) -> None:
    visitor.product.rails["lightning"].rail.answers.clear()
    await visitor.visit("/account")
    await visitor.page.get_by_role("button", name="Top up").last.click()
    await visitor.page.get_by_role("button", name="Lightning").click()
    await expect(visitor.page.locator(".skeleton").first).to_be_visible()
    await expect(visitor.page.get_by_text("Lightning is slow today.")).to_be_visible()
    await visitor.page.get_by_role("button", name="Pay another way").click()
    await expect(visitor.page.get_by_role("button", name="Card")).to_be_enabled()


async def test_a_closed_rail_says_why(visitor: Visitor) -> None:
    await visitor.product.set_down("liquid", True)
    await visitor.visit("/account")
    await visitor.page.get_by_role("button", name="Top up").last.click()
    closed = visitor.page.get_by_role("button", name="USDT")
    await expect(closed).to_be_disabled()
    await expect(closed).to_contain_text("not reachable at the moment")


async def test_without_the_stream_the_page_asks_and_says_so(visitor: Visitor) -> None:
    async def block(route: Route) -> None:
        await route.abort()

    await visitor.page.route("**/v1/events", block)
    topup = await visitor.open_topup()
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.get_by_text("Reconnecting")).to_be_visible()
    await visitor.product.pay(topup)
    await expect(visitor.page.locator(".pay")).to_contain_text("+500 credits")


async def test_until_when_the_price_holds_can_always_be_read(visitor: Visitor) -> None:
    topup = await visitor.open_topup()
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".qr-code")).to_be_visible()
    await expect(visitor.page.locator(".timer")).to_contain_text("This price holds for 1")
    ends = datetime.fromisoformat((await visitor.get(f"/v1/topups/{topup}"))["quote"]["expires_at"])
    await visitor.page.clock.set_fixed_time(ends - timedelta(seconds=200))
    await expect(visitor.page.locator(".timer")).to_contain_text("3:20")


async def test_the_price_is_shown_in_sats_and_in_dollars(visitor: Visitor) -> None:
    topup = await visitor.open_topup()
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".pay-title")).to_have_text("Pay 5,120 sats")
    await expect(visitor.page.locator(".pay-dollars")).to_have_text("about $5.00")


WALLET = """window.webln = { enable: async () => {}, sendPayment: () => %s };"""


async def test_a_wallet_that_fails_gets_a_new_invoice_and_the_old_one_is_closed(visitor: Visitor) -> None:
    await visitor.page.add_init_script(WALLET % "Promise.reject(new Error('timeout'))")
    topup = await visitor.open_topup()
    await visitor.visit(f"/topups/{topup}")
    async with visitor.page.expect_response("**/v1/topups") as made:
        await visitor.page.get_by_role("button", name="Pay in this browser").click()
    newer = await (await made.value).json()
    assert newer["id"] != topup
    await expect(visitor.page.get_by_text("the old one is closed")).to_be_visible()
    await expect(visitor.page.locator(".qr-code")).to_be_visible()
    assert (await visitor.get(f"/v1/topups/{topup}"))["state"] == "expired"


async def test_a_wallet_that_failed_after_it_had_paid_gets_no_second_invoice(visitor: Visitor) -> None:
    await visitor.page.add_init_script(WALLET % "Promise.reject(new Error('timeout'))")
    topup = await visitor.open_topup()
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".qr-code")).to_be_visible()
    before = len((await visitor.get("/v1/topups"))["topups"])

    async def pay_first(route: Route) -> None:
        await visitor.product.pay(topup)
        await route.continue_()

    await visitor.page.route(f"**/v1/topups/{topup}/cancel", pay_first)
    await visitor.page.get_by_role("button", name="Pay in this browser").click()
    await expect(visitor.page.locator(".receipt-credits")).to_be_visible()
    assert len((await visitor.get("/v1/topups"))["topups"]) == before


async def test_who_does_not_want_to_pay_in_the_browser_keeps_the_invoice(visitor: Visitor) -> None:
    await visitor.page.add_init_script(WALLET % "Promise.reject(new Error('User rejected'))")
    topup = await visitor.open_topup()
    await visitor.visit(f"/topups/{topup}")
    await visitor.page.get_by_role("button", name="Pay in this browser").click()
    await expect(visitor.page.get_by_text("you did not want to pay")).to_be_visible()
    assert (await visitor.get(f"/v1/topups/{topup}"))["state"] == "waiting"


async def test_a_stream_that_is_open_and_silent_does_not_keep_a_payment_waiting(visitor: Visitor) -> None:
    async def silent(route: Route) -> None:
        await route.fulfill(content_type="text/event-stream", body=": nothing\n\nretry: 600000\n\n")

    await visitor.page.route("**/v1/events", silent)
    topup = await visitor.open_topup()
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".qr-code")).to_be_visible()
    await visitor.product.pay(topup)
    await expect(visitor.page.locator(".pay")).to_contain_text("+500 credits")


async def to_the_card_page(visitor: Visitor) -> dict[str, Any]:
    """From the account to the card page, as the application words it; the top-up as it was opened."""

    async def hosted(route: Route) -> None:
        back = parse_qs(urlsplit(route.request.url).query)["back"][0]
        page = f"<!doctype html><title>Checkout</title><a href={back}>Back</a>"
        await route.fulfill(content_type="text/html", body=page)

    opened: list[dict[str, Any]] = []

    async def overhear(route: Route) -> None:
        answer = await route.fetch()
        opened.append(await answer.json())
        await route.fulfill(response=answer)

    await visitor.context.route(f"{CHECKOUT}/**", hosted)
    await visitor.page.route("**/v1/topups", overhear)
    await visitor.visit("/account")
    await visitor.page.get_by_role("button", name="Top up").last.click()
    await visitor.page.get_by_role("button", name="Card").click()
    await visitor.page.wait_for_url(f"{CHECKOUT}/**")
    return opened[0]


async def test_a_card_goes_to_the_hosted_page_and_returns_to_confirming(visitor: Visitor) -> None:
    await to_the_card_page(visitor)
    await visitor.page.get_by_role("link", name="Back").click()
    await expect(visitor.page.locator(".pay")).to_contain_text("Confirming")


async def test_another_persons_topup_is_not_shown(visitor: Visitor) -> None:
    await visitor.visit("/topups/pay_unknown")
    await expect(visitor.page.get_by_role("alert")).to_contain_text("cannot be shown")


async def test_an_answer_that_comes_late_does_not_turn_paid_back_into_waiting(visitor: Visitor) -> None:
    topup = await visitor.open_topup()
    released, seen = asyncio.Event(), asyncio.Event()

    async def keep_back(route: Route) -> None:
        answer = await route.fetch()
        await released.wait()
        await route.fulfill(response=answer)
        seen.set()

    await visitor.page.route(f"**/v1/topups/{topup}", keep_back, times=1)
    await visitor.visit(f"/topups/{topup}")
    # The stream begins, and the page asks again.
    await expect(visitor.page.locator(".qr-code")).to_be_visible()
    await visitor.product.pay(topup)
    await expect(visitor.page.locator(".receipt-credits")).to_be_visible()
    released.set()
    await asyncio.wait_for(seen.wait(), SECONDS_MAX)
    await visitor.page.evaluate(FRAMES)
    await expect(visitor.page.locator(".receipt-credits")).to_be_visible()
