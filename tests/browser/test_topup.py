"""The top-up: amount, way to pay, and a screen for everything that can become of a payment."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.async_api import Route, expect

from tests.browser.conftest import Arrive, Visitor

pytestmark = pytest.mark.browser


def money(asset: str, minor: int, state: str = "settled") -> list[dict[str, Any]]:
    return [{"amount_minor": minor, "asset": asset, "state": state}]


STATES: list[tuple[str, str, str, dict[str, Any], list[str]]] = [
    ("waiting", "lightning", "BTC", {}, ["Pay 5,120 sats", "Copy invoice", "Waiting for the payment"]),
    ("address", "liquid", "USDT", {}, ["Pay 5.00 USDT", "Copy address", "may need a little L-BTC"]),
    ("card", "card", "USD", {}, ["Confirming", "Back to the card page"]),
    ("opening", "lightning", "BTC", {"state": "opening"}, ["Opening"]),
    (
        "seen",
        "liquid",
        "USDT",
        {"state": "seen", "received": money("USDT", 500_000_000, "seen")},
        ["Payment received", "about two minutes"],
    ),
    (
        "underpaid",
        "liquid",
        "USDT",
        {"state": "underpaid", "received": money("USDT", 200_000_000)},
        ["Send 3.00 USDT more", "Got 2.00 USDT of 5.00 USDT"],
    ),
    ("expired", "lightning", "BTC", {"state": "expired"}, ["This quote has ended", "New quote"]),
    ("expired card", "card", "USD", {"state": "expired"}, ["Nothing was charged"]),
    (
        "late",
        "liquid",
        "USDT",
        {"state": "expired", "received": money("USDT", 500_000_000)},
        ["Arrived late", "not lost"],
    ),
    (
        "wrong asset",
        "liquid",
        "USDT",
        {"state": "suspense", "received": money("L-BTC", 5_000)},
        ["That was L-BTC, not USDT"],
    ),
    (
        "declined",
        "card",
        "USD",
        {"state": "declined", "decline_code": "insufficient_funds"},
        ["declined", "not enough funds", "Nothing was charged"],
    ),
    ("unpriced", "lightning", "BTC", {"state": "unpriced"}, ["waiting for a price"]),
    ("reversed", "liquid", "USDT", {"state": "reversed"}, ["taken back"]),
    ("disputed", "card", "USD", {"state": "disputed"}, ["disputed"]),
]


@pytest.mark.parametrize(
    ("rail", "asset", "change", "words"), [row[1:] for row in STATES], ids=[row[0] for row in STATES]
)
async def test_every_state_has_its_screen(
    visitor: Visitor, rail: str, asset: str, change: dict[str, Any], words: list[str]
) -> None:
    topup = await visitor.open_topup(rail, asset)
    if change:
        await visitor.post(f"/double/topups/{topup}", change)
    await visitor.visit(f"/topups/{topup}")
    for text in words:
        await expect(visitor.page.locator(".pay")).to_contain_text(text)


async def test_paid_shows_credits_balance_and_surplus(visitor: Visitor) -> None:
    topup = await visitor.open_topup("liquid", "USDT")
    await visitor.visit(f"/topups/{topup}")
    await visitor.post(f"/double/topups/{topup}", {"state": "paid", "amount": 600_000_000})
    pay = visitor.page.locator(".pay")
    await expect(pay).to_contain_text("+500 credits")
    await expect(pay).to_contain_text("New balance: 520")
    await expect(pay).to_contain_text("1.00 USDT more than asked")


async def test_a_guest_sees_the_recovery_code_until_it_is_kept(visitor: Visitor) -> None:
    await visitor.visit("/account")
    await visitor.page.get_by_role("button", name="Top up").last.click()
    await visitor.page.get_by_role("button", name="Card").click()
    await visitor.page.wait_for_url("**/double/checkout/*")
    topup = visitor.page.url.rsplit("/", 1)[1]
    await visitor.post(f"/double/topups/{topup}", {"state": "paid"})
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".recovery-code")).to_have_text("LLAMA-7Q4F-K2ZT-9MXA")
    await visitor.page.get_by_role("button", name="I have kept it").click()
    await visitor.page.reload()
    await expect(visitor.page.locator(".receipt-credits")).to_be_visible()
    await expect(visitor.page.locator(".recovery-code")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("rail", "asset"), [("lightning", "BTC"), ("liquid", "USDT")])
async def test_the_code_can_be_read_from_the_screen(
    arrive: Arrive, theme: str, rail: str, asset: str
) -> None:
    visitor = await arrive(theme=theme, width=360, device_scale_factor=2)
    await visitor.scene()
    topup = await visitor.open_topup(rail, asset)
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".qr-code")).to_be_visible()
    text = read_code(await visitor.page.screenshot())
    assert text.upper().startswith("LIGHTNING:LNBC" if rail == "lightning" else "LIQUIDNETWORK:EL1")


async def test_the_code_of_an_underpaid_topup_asks_for_the_rest(arrive: Arrive) -> None:
    visitor = await arrive(device_scale_factor=2)
    await visitor.scene()
    topup = await visitor.open_topup("liquid", "USDT")
    await visitor.post(
        f"/double/topups/{topup}", {"state": "underpaid", "received": money("USDT", 150_000_000)}
    )
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
    await visitor.scene(topup_delay=6.0)
    await visitor.visit("/account")
    await visitor.page.get_by_role("button", name="Top up").last.click()
    await visitor.page.get_by_role("button", name="Lightning").click()
    await expect(visitor.page.locator(".skeleton").first).to_be_visible()
    await expect(visitor.page.get_by_text("Lightning is slow today.")).to_be_visible()
    await visitor.page.get_by_role("button", name="Pay another way").click()
    await expect(visitor.page.get_by_role("button", name="Card")).to_be_enabled()


async def test_a_closed_rail_says_why(visitor: Visitor) -> None:
    await visitor.scene(closed={"liquid": "No fresh exchange rate."})
    await visitor.visit("/account")
    await visitor.page.get_by_role("button", name="Top up").last.click()
    closed = visitor.page.get_by_role("button", name="USDT")
    await expect(closed).to_be_disabled()
    await expect(closed).to_contain_text("No fresh exchange rate.")


async def test_without_the_stream_the_page_asks_and_says_so(visitor: Visitor) -> None:
    async def block(route: Route) -> None:
        await route.abort()

    await visitor.page.route("**/v1/events", block)
    topup = await visitor.open_topup()
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.get_by_text("Reconnecting")).to_be_visible()
    await visitor.post(f"/double/topups/{topup}", {"state": "paid"})
    await expect(visitor.page.locator(".pay")).to_contain_text("+500 credits", timeout=3_000)


async def test_the_clock_shows_in_the_last_five_minutes_only(visitor: Visitor) -> None:
    topup = await visitor.open_topup()
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".qr-code")).to_be_visible()
    await expect(visitor.page.locator(".timer")).to_have_count(0)
    ends = (datetime.now(UTC) + timedelta(seconds=200)).isoformat()
    await visitor.post(f"/double/topups/{topup}", {"quote": {"expires_at": ends}})
    await expect(visitor.page.locator(".timer")).to_contain_text("3:1")


async def test_a_card_goes_to_the_hosted_page_and_returns_to_confirming(visitor: Visitor) -> None:
    await visitor.visit("/account")
    await visitor.page.get_by_role("button", name="Top up").last.click()
    await visitor.page.get_by_role("button", name="Card").click()
    await visitor.page.wait_for_url("**/double/checkout/*")
    await visitor.page.get_by_role("link", name="Back").click()
    await expect(visitor.page.locator(".pay")).to_contain_text("Confirming")


async def test_another_persons_topup_is_not_shown(visitor: Visitor) -> None:
    await visitor.visit("/topups/pay_unknown")
    await expect(visitor.page.get_by_role("alert")).to_contain_text("cannot be shown")


async def test_the_sandbox_wallet_pays_and_underpays(visitor: Visitor) -> None:
    topup = await visitor.open_topup("liquid", "USDT")
    await visitor.visit("/sandbox/wallet")
    await visitor.page.get_by_role("button", name="Pay half", exact=True).click()
    await expect(visitor.page.locator(".bill")).to_contain_text("underpaid")
    await visitor.page.locator(".bill").get_by_role("button", name="Pay", exact=True).click()
    await expect(visitor.page.locator(".wallet-log")).to_contain_text("Paid.")
    await visitor.visit(f"/topups/{topup}")
    await expect(visitor.page.locator(".pay")).to_contain_text("+500 credits")
