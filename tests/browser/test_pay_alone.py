"""One picture paid for alone: from the button with its price to each of the ends, and wherever else it is looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Route, expect

from rails.contract import PaymentRequestStatus
from tests.browser import worker
from tests.browser.conftest import Arrive, Visitor
from tests.browser.test_plans import looks_well
from tests.waiting import eventually, until

pytestmark = pytest.mark.browser
SIZES = pytest.mark.parametrize(
    ("theme", "width"), [pytest.param("light", 1280, marks=pytest.mark.thorough), ("dark", 360)]
)
"""The invoice has to be read by a camera on both."""
LINE = ((0.2, 0.2), (0.8, 0.8), (0.3, 0.7))
PRICE = "Paint this for 10.24 sats"


async def at_the_limit(visitor: Visitor) -> None:
    """A guest with a sketch and no credits, and what is offered first."""
    await visitor.has_free_images(0)
    await visitor.visit("/")
    await visitor.stroke(*LINE)
    await expect(visitor.page.locator(".paint")).to_have_text(PRICE)


async def invoiced(visitor: Visitor) -> tuple[str, str]:
    """The button is pressed: (the picture, its payment)."""
    await at_the_limit(visitor)
    await visitor.page.locator(".paint").click()
    await expect(visitor.page.locator(".pay-alone .qr-code")).to_be_visible()
    (found,) = (await visitor.get("/v1/generations"))["generations"]
    assert found["state"] == "awaiting_payment"
    return found["id"], found["topup"]["id"]


async def is_in(visitor: Visitor, job_id: str, state: str) -> None:
    await until(
        lambda: visitor.get(f"/v1/generations/{job_id}"),
        lambda found: found["state"] == state,
        f"the picture is {state}",
    )


@SIZES
async def test_a_guest_at_the_limit_pays_for_one_picture_and_it_is_held_painted_and_settled(
    arrive: Arrive, theme: str, width: int
) -> None:
    visitor = await arrive(theme=theme, width=width)
    page = visitor.page
    visitor.product.worker.script = worker.show_and_wait
    async with visitor.product.worker.silent():
        await at_the_limit(visitor)
        await looks_well(visitor, "alone-0-button")
        await page.locator(".paint").click()
        modal = page.locator(".topup-modal")
        await expect(modal).to_contain_text("Pay 10.24 sats")
        await expect(modal).to_contain_text("about $0.01")
        await expect(modal).to_contain_text("This price holds for")
        await expect(modal).to_contain_text("If it does not come, it goes back by itself")
        code = await page.locator(".pay-alone .qr-code").bounding_box()
        assert code
        assert code["width"] > 200, "a camera can read it"
        await looks_well(visitor, "alone-1-invoice")
        (found,) = (await visitor.get("/v1/generations"))["generations"]
        await visitor.product.pay(found["topup"]["id"])
        result = page.locator(".leaf-result")
        await expect(result).to_contain_text("Next in line")
        await expect(modal).to_have_count(0)
        await expect(result).to_contain_text("Your wallet holds 10.24 sats")
        await expect(result).to_contain_text("your payment goes back by itself")
        await looks_well(visitor, "alone-2-held")
    await expect(result).to_contain_text("Painting")
    await expect(result.locator("progress")).to_have_attribute("value", "0.5")
    await looks_well(visitor, "alone-3-painting")
    visitor.product.worker.go.set()
    await expect(page.locator(".picture")).to_be_visible()
    await expect(page.locator(".debit")).to_contain_text("10.24 sats")
    await looks_well(visitor, "alone-4-delivered")
    await page.locator(".debit").click()
    await expect(page.locator(".image-side")).to_contain_text("You paid 10.24 sats, as agreed")
    await looks_well(visitor, "alone-5-receipt")


async def test_an_invoice_stays_on_its_page_while_the_server_does_not_answer(visitor: Visitor) -> None:
    missed: list[str] = []

    async def nothing(route: Route) -> None:
        missed.append(route.request.url)
        await route.abort()

    async with visitor.product.worker.silent():
        job_id, topup = await invoiced(visitor)
        await visitor.page.goto(f"{visitor.base}/images/{job_id}")
        await expect(visitor.page.locator(".pay-alone .qr-code")).to_be_visible()
        await visitor.page.route(f"**/v1/generations/{job_id}", nothing)
        await eventually(lambda: len(missed) >= 2, "it is asked twice in vain")
        await expect(visitor.page.locator(".pay-alone .qr-code")).to_be_visible()
        await visitor.page.unroute(f"**/v1/generations/{job_id}", nothing)
        await visitor.product.pay(topup)
        await expect(visitor.page.locator(".pay-alone")).to_contain_text("Held, and in line")
    await expect(visitor.page.locator(".polaroid img")).to_be_visible()


async def test_reload_back_and_a_second_tab_show_the_same(visitor: Visitor) -> None:
    async with visitor.product.worker.silent():
        job_id, topup = await invoiced(visitor)
        await visitor.page.reload()
        await expect(visitor.page.locator(".pay-alone .qr-code")).to_be_visible()
        other = await visitor.context.new_page()
        await other.goto(f"{visitor.base}/images/{job_id}")
        await expect(other.locator(".pay-alone")).to_contain_text("Pay 10.24 sats")
        await visitor.page.goto(f"{visitor.base}/topups/{topup}")
        await expect(visitor.page.locator(".pay-alone .qr-code")).to_be_visible()
        assert visitor.page.url.endswith(f"/images/{job_id}")
        await visitor.page.goto(f"{visitor.base}/account")
        await visitor.page.goto(f"{visitor.base}/")
        await expect(visitor.page.locator(".pay-alone .qr-code")).to_be_visible()
        await visitor.product.pay(topup)
        await expect(visitor.page.locator(".leaf-result")).to_contain_text("Your wallet holds 10.24 sats")
        await expect(other.locator(".pay-alone")).to_contain_text("Held, and in line")
        await expect(other.locator(".topup-card")).to_contain_text("Then your payment goes back by itself")
        await visitor.page.reload()
        await expect(visitor.page.locator(".leaf-result")).to_contain_text("Your wallet holds 10.24 sats")
    await expect(visitor.page.locator(".picture")).to_be_visible()
    await expect(other.locator(".polaroid img")).to_be_visible()


async def test_without_the_stream_it_goes_on_all_the_same(visitor: Visitor) -> None:
    async def block(route: Route) -> None:
        await route.abort()

    await visitor.page.route("**/v1/events", block)
    _, topup = await invoiced(visitor)
    await visitor.product.pay(topup)
    await expect(visitor.page.locator(".picture")).to_be_visible()


# --- the other ends -------------------------------------------------------------------------------

End = Callable[[Visitor, str, str], Awaitable[None]]


async def cancelled_before(visitor: Visitor, job_id: str, topup: str) -> None:
    await visitor.page.get_by_role("button", name="Cancel this picture").click()
    await is_in(visitor, job_id, "cancelled")


async def cancelled_while_held(visitor: Visitor, job_id: str, topup: str) -> None:
    await visitor.product.pay(topup)
    await is_in(visitor, job_id, "queued")
    await visitor.page.locator(".leaf-result").get_by_role("button", name="Cancel").click()
    await is_in(visitor, job_id, "cancelled")
    await given_back(visitor, topup)


async def closed_unpaid(visitor: Visitor, job_id: str, topup: str) -> None:
    await visitor.product.stand(topup, PaymentRequestStatus.EXPIRED)
    await is_in(visitor, job_id, "failed")


async def given_back(visitor: Visitor, topup: str) -> None:
    await until(
        lambda: visitor.get(f"/v1/topups/{topup}"),
        lambda view: view["received"][0]["state"] == "released",
        "the money is back",
    )


ENDS: list[tuple[str, End, list[str]]] = [
    ("cancelled before", cancelled_before, ["Cancelled", "No money was taken"]),
    ("cancelled while held", cancelled_while_held, ["Cancelled", "10.24 sats went back to your wallet"]),
    ("closed unpaid", closed_unpaid, ["Not paid in time", "No money was taken"]),
]


@pytest.mark.parametrize(("end", "words"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
async def test_every_end_without_a_picture_says_what_became_of_the_money(
    visitor: Visitor, end: End, words: list[str]
) -> None:
    async with visitor.product.worker.silent():
        job_id, topup = await invoiced(visitor)
        await end(visitor, job_id, topup)
        result = visitor.page.locator(".leaf-result")
        await expect(result).to_contain_text("Not charged")
        for text in words:
            await expect(result).to_contain_text(text)
        await looks_well(visitor, f"alone-end-{end.__name__}")
        await visitor.visit(f"/images/{job_id}")
        await expect(visitor.page.locator("#image")).to_contain_text("charged")


async def test_a_picture_that_fails_costs_nothing_and_the_money_goes_back(visitor: Visitor) -> None:
    visitor.product.worker.script = worker.fail
    job_id, topup = await invoiced(visitor)
    await visitor.product.pay(topup)
    await is_in(visitor, job_id, "failed")
    await given_back(visitor, topup)
    result = visitor.page.locator(".leaf-result")
    await expect(result).to_contain_text("10.24 sats went back to your wallet")
    await looks_well(visitor, "alone-end-failed")


async def test_a_node_that_is_away_says_so_and_the_invoice_comes_by_itself(visitor: Visitor) -> None:
    await at_the_limit(visitor)
    rail = visitor.product.rails["lightning"].rail
    rail.answers.clear()
    await visitor.page.locator(".paint").click()
    await expect(visitor.page.locator(".leaf-result")).to_contain_text("Sending your sketch")
    rail.answers.set()
    await expect(visitor.page.locator(".pay-alone .qr-code")).to_be_visible()


async def test_a_closed_rail_offers_credits_instead(visitor: Visitor) -> None:
    await at_the_limit(visitor)
    await visitor.product.price_bitcoin(False)
    await visitor.page.locator(".paint").click()
    result = visitor.page.locator(".leaf-result")
    await expect(result).to_contain_text("Not charged")
    await result.get_by_role("button", name="Buy credits instead").click()
    await expect(visitor.page.locator(".topup-modal")).to_contain_text("Your picture is waiting")


async def test_a_wallet_that_does_not_come_back_gets_another_invoice(visitor: Visitor) -> None:
    await visitor.page.add_init_script(
        "window.webln = { enable: async () => {}, sendPayment: () => Promise.reject(new Error('timeout')) };"
    )
    job_id, _ = await invoiced(visitor)
    await visitor.page.get_by_role("button", name="Pay in this browser").click()
    await is_in(visitor, job_id, "cancelled")

    await until(
        lambda: visitor.get("/v1/generations"),
        lambda found: [one["id"] for one in found["generations"]] not in ([], [job_id]),
        "another picture waits to be paid",
    )
    await expect(visitor.page.locator(".pay-alone .qr-code")).to_be_visible()
