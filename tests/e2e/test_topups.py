"""Paying on every rail: the page shows each state by itself, and a reload changes nothing."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.e2e.conftest import Arrive
from tests.e2e.people import Person

pytestmark = pytest.mark.browser
FREE = 20
PACK = 100


async def resumes(person: Person, state: str) -> None:
    """The same payment in the same state after a reload (the address is now the payment's own)."""
    address = person.page.url
    assert "/topups/pay_" in address
    await person.page.reload()
    await person.sees_state(state)
    assert person.page.url == address


async def granted(person: Person) -> list[int]:
    """The credits of each grant by payment, oldest first."""
    return [
        entry["credits"]
        for entry in reversed(await person.statement())
        if entry["kind"] == "granted" and entry["reference"]["type"] == "topup"
    ]


async def test_lightning_is_paid_on_the_page_without_a_reload(visitor: Person) -> None:
    await visitor.visit()
    await visitor.open_topup("BTC")
    await visitor.sees_state("waiting")
    await expect(visitor.page.locator("canvas.qr-code")).to_be_visible()
    await resumes(visitor, "waiting")
    await visitor.mark()
    await visitor.pay_in_wallet()
    await visitor.sees_state("paid")
    assert await visitor.still_same_page()
    await expect(visitor.payment).to_contain_text("+100")
    await expect(visitor.payment).to_contain_text(f"New balance: {FREE + PACK}")
    await resumes(visitor, "paid")
    await visitor.page.get_by_role("link", name="Receipt in the statement").click()
    await expect(visitor.page.locator(".entry", has_text="Credited")).to_contain_text("+100")
    assert await granted(visitor) == [PACK]


async def test_half_of_the_dollars_is_said_loudly_and_the_rest_completes_it(visitor: Person) -> None:
    await visitor.visit("/account")
    await visitor.open_topup("USDT")
    await visitor.sees_state("waiting")
    await resumes(visitor, "waiting")
    await visitor.mark()
    await visitor.pay_in_wallet("Pay half")
    await visitor.sees_state("underpaid")
    head = visitor.page.locator(".pay-head-warn")
    await expect(head).to_contain_text("Send 0.50 USDT more")
    await expect(head).to_contain_text("Got 0.50 USDT of 1.00 USDT")
    assert await visitor.still_same_page()
    await resumes(visitor, "underpaid")
    await visitor.mark()
    await visitor.pay_in_wallet(bill="underpaid")
    await visitor.sees_state("paid")
    assert await visitor.still_same_page()
    # Each funds receipt is credited by itself, and together they are what was bought.
    assert sum(await granted(visitor)) == PACK


@pytest.mark.thorough
async def test_bitcoin_on_liquid_is_seen_at_once_and_paid_two_blocks_later(visitor: Person) -> None:
    await visitor.visit("/account")
    await visitor.open_topup("L-BTC")
    await visitor.sees_state("waiting")
    await visitor.mark()
    await visitor.pay_in_wallet()
    await visitor.sees_state("seen")
    assert await visitor.still_same_page()
    await resumes(visitor, "seen")
    await visitor.mark()
    await visitor.sees_state("paid")
    assert await visitor.still_same_page()
    assert await granted(visitor) == [PACK]


async def to_the_card_page(person: Person) -> Page:
    await person.visit("/account")
    await person.open_topup("card")
    await person.page.wait_for_url("**/c/pay/**")
    return person.page


async def test_a_declined_card_charges_nothing_and_the_next_one_pays(visitor: Person) -> None:
    checkout = await to_the_card_page(visitor)
    await checkout.locator("#declined").check()
    await checkout.get_by_label("Reason for the decline").select_option("insufficient_funds")
    await checkout.locator("button.primary").click()
    await expect(checkout.get_by_role("alert")).to_contain_text("Nothing was charged")
    await checkout.locator("input[value=success]").check()
    await checkout.locator("button.primary").click()
    await checkout.wait_for_url("**/topups/pay_**")
    await visitor.sees_state("paid")
    assert await granted(visitor) == [PACK]


async def test_a_card_page_that_was_left_resumes_where_it_was(visitor: Person) -> None:
    checkout = await to_the_card_page(visitor)
    await checkout.get_by_role("link", name="Go back without paying").click()
    await checkout.wait_for_url("**/topups/pay_**")
    await visitor.sees_state("waiting")
    await resumes(visitor, "waiting")
    await expect(visitor.payment).not_to_contain_text("Paid")
    await visitor.page.get_by_role("link", name="Back to the card page").click()
    await checkout.locator("button.primary").click()
    await checkout.wait_for_url("**/topups/pay_**")
    await visitor.sees_state("paid")


@pytest.mark.thorough
async def test_a_card_that_asks_the_bank_pays_once_the_bank_has_agreed(visitor: Person) -> None:
    checkout = await to_the_card_page(visitor)
    await checkout.locator("input[value=challenge]").check()
    await checkout.locator("button.primary").click()
    await checkout.get_by_role("button", name="Fail authentication").click()
    await expect(checkout.get_by_role("alert")).to_contain_text("Nothing was charged")
    await checkout.locator("input[value=challenge]").check()
    await checkout.locator("button.primary").click()
    await checkout.get_by_role("button", name="Approve payment").click()
    await checkout.wait_for_url("**/topups/pay_**")
    await visitor.sees_state("paid")
    assert await granted(visitor) == [PACK]


async def test_the_recovery_code_is_shown_once_and_opens_the_credits_in_another_browser(
    arrive: Arrive, visitor: Person
) -> None:
    await visitor.visit("/account")
    await visitor.open_topup("BTC")
    await visitor.sees_state("waiting")
    await visitor.pay_in_wallet()
    code = await visitor.page.locator(".recovery-code").inner_text()
    await visitor.page.get_by_role("button", name="I have kept it").click()
    await visitor.page.reload()
    await visitor.sees_state("paid")
    await expect(visitor.page.locator(".recovery-code")).to_have_count(0)
    elsewhere = await arrive()
    await elsewhere.visit("/account")
    await elsewhere.page.get_by_text("I have a recovery code").click()
    await elsewhere.page.locator("#code").fill(code)
    await elsewhere.page.get_by_role("button", name="Bring my credits").click()
    await expect(elsewhere.page.locator(".balance-big")).to_have_text(f"{FREE + PACK} images")
    await expect(elsewhere.page.locator(".entry", has_text="Credited")).to_contain_text("+100")


@pytest.mark.thorough
async def test_a_wrong_recovery_code_opens_nothing(visitor: Person) -> None:
    visitor.expected = ("status of 404", "status of 422")
    await visitor.visit("/account")
    await visitor.page.get_by_text("I have a recovery code").click()
    await visitor.page.locator("#code").fill("LLAMA-AAAA-BBBB-CCCC-DDDD")
    await visitor.page.get_by_role("button", name="Bring my credits").click()
    await expect(visitor.page.get_by_role("alert")).to_be_visible()
    assert await visitor.available() == FREE


async def test_signing_in_brings_a_guests_paid_credits_along(visitor: Person) -> None:
    await visitor.visit("/account")
    await visitor.open_topup("BTC")
    await visitor.sees_state("waiting")
    await visitor.pay_in_wallet()
    await visitor.sees_state("paid")
    await visitor.visit("/account")
    await visitor.page.locator("input[name=email]").fill("llama@example.com")
    await visitor.page.get_by_role("button", name="Sign in").click()
    await expect(visitor.page.get_by_role("heading", name="Signed in")).to_be_visible()
    await expect(visitor.page.get_by_text("100 credits came along.")).to_be_visible()
    await expect(visitor.page.locator(".entry", has_text="Brought along")).to_contain_text("+100")
    await visitor.page.reload()
    await expect(visitor.page.locator(".who-name")).to_have_text("llama@example.com")
    assert (await visitor.ask("GET", "/v1/account"))["person"]["kind"] == "person"


async def test_what_was_paid_by_lightning_and_not_used_goes_back_to_the_wallets_address(
    visitor: Person,
) -> None:
    await visitor.visit()
    await visitor.open_topup("BTC")
    await visitor.sees_state("waiting")
    await visitor.pay_in_wallet()
    await visitor.sees_state("paid")
    wallet = await visitor.second_tab("/sandbox/wallet")
    address = await wallet.locator("code").text_content()
    assert address
    await wallet.close()
    topup = visitor.page.url.rpartition("/")[2]
    await visitor.page.get_by_role("button", name="Refund").click()
    await visitor.page.get_by_label("Your Lightning address or invoice").fill(address)
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.page.locator(".refund[data-state=sent]")).to_be_visible()
    shown = await visitor.ask("GET", f"/v1/topups/{topup}")
    assert (shown["credited"], shown["refunds"][0]["state"]) == (0, "sent")
