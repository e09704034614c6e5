"""The sketch page: drawing, painting, and what happens when painting goes wrong."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import Request, Route, expect

from gateway.http.problems import problem_of
from gateway.routes.shapes import ProblemOut
from generation.images.checking import read_sketch
from ledger.errors import LogUnavailable
from tests.browser.conftest import Arrive, Visitor
from tests.browser.worker import fail, show_and_wait
from tests.generation.core.test_blank_sketches import BLANK, DRAWN, encoded
from tests.pictures.kinds import COMPRESSED, difference, kinds, media_type
from tests.screens import ON_A_PHONE

pytestmark = pytest.mark.browser
LINE = ((0.3, 0.3), (0.6, 0.35), (0.7, 0.7))


async def begin(visitor: Visitor) -> None:
    await visitor.visit("/")
    await expect(visitor.page.locator("canvas.sheet")).to_be_visible()


async def paint(visitor: Visitor) -> None:
    await visitor.page.locator(".paint").click()


async def test_one_stroke_and_one_click_give_an_image_without_an_account(visitor: Visitor) -> None:
    await begin(visitor)
    await expect(visitor.page.locator(".paint")).to_contain_text("free: 20 left today")
    await visitor.stroke(*LINE)
    await paint(visitor)
    await expect(visitor.page.locator(".picture")).to_be_visible()
    await expect(visitor.page.locator(".debit")).to_contain_text("1 credit")
    await expect(visitor.page.locator(".paint")).to_contain_text("free: 19 left today")
    await expect(visitor.page.locator(".strip li")).to_have_count(1)


async def test_an_empty_page_is_not_sent(visitor: Visitor) -> None:
    await begin(visitor)
    await paint(visitor)
    await expect(visitor.page.get_by_text("Draw something first")).to_be_visible()


async def rub_out(visitor: Visitor) -> None:
    """Draw, and erase all of it with the broad eraser."""
    await visitor.stroke((0.4, 0.5), (0.6, 0.5))
    await visitor.page.get_by_label("Eraser").check()
    await visitor.page.get_by_label("Broad").check()
    for row in (0.47, 0.5, 0.53):
        await visitor.stroke((0.3, row), (0.7, row))


@pytest.mark.parametrize("screen", ON_A_PHONE, ids=str)
async def test_an_erased_page_is_not_sent_and_the_button_says_why(
    arrive: Arrive, screen: tuple[str, int]
) -> None:
    theme, width = screen
    visitor = await arrive(width=width, theme=theme)
    sent: list[str] = []
    visitor.page.on("request", lambda request: sent.append(request.method + request.url))
    await begin(visitor)
    before = await visitor.get("/v1/account")
    await rub_out(visitor)
    button = visitor.page.locator(".paint")
    await expect(button).to_contain_text("nothing to see yet")
    await expect(button).to_have_accessible_description(re.compile("Nothing can be seen.*Nothing is charged"))
    if folder := os.environ.get("SCREENSHOTS"):
        await button.scroll_into_view_if_needed()
        await visitor.page.screenshot(path=f"{folder}/erased-{theme}-{width}.png")
    await paint(visitor)
    await expect(visitor.page.locator(".toast")).to_contain_text("Nothing can be seen")
    assert not [one for one in sent if one.startswith("POST") and one.endswith("/v1/generations")]
    assert (await visitor.get("/v1/account"))["credits"] == before["credits"]
    await visitor.page.get_by_label("Pen", exact=True).check()
    await visitor.stroke(*LINE)
    await expect(button).to_contain_text("free: 20 left today")
    await paint(visitor)
    await expect(visitor.page.locator(".picture")).to_be_visible()


async def test_lines_as_light_as_the_paper_are_not_sent(visitor: Visitor) -> None:
    await begin(visitor)
    await visitor.page.locator("input[type=color]").fill("#ffffff")
    await visitor.stroke(*LINE)
    await expect(visitor.page.locator(".paint")).to_contain_text("nothing to see yet")
    await visitor.page.keyboard.press("Control+z")
    await expect(visitor.page.locator(".paint")).to_contain_text("free: 20 left today")


async def test_live_does_not_send_an_erased_page(visitor: Visitor) -> None:
    sent: list[str] = []
    visitor.page.on("request", lambda request: sent.append(request.method + request.url))
    await begin(visitor)
    await rub_out(visitor)
    await visitor.page.clock.install()
    await visitor.page.get_by_role("switch", name="Live").click()
    await visitor.page.clock.fast_forward(20_000)
    await expect(visitor.page.locator(".live-state")).to_contain_text("Paused until you draw on")
    assert not [one for one in sent if one.startswith("POST") and one.endswith("/v1/generations")]


async def test_the_page_and_the_api_have_one_rule(visitor: Visitor) -> None:
    await begin(visitor)
    drawings = {
        name: (make(), blank)
        for kind, blank in ((BLANK, True), (DRAWN, False))
        for name, make in kind.items()
    }
    for name, (drawing, blank) in drawings.items():
        if drawing.mode.startswith("I"):
            continue  # a canvas has eight bits
        verdict = await visitor.page.evaluate(
            """async ([png]) => {
              const { isBlank } = await import("/static/js/blank.js");
              const bytes = Uint8Array.from(atob(png), (one) => one.charCodeAt(0));
              const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
              const paper = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
              paper.fillStyle = "#ffffff";
              paper.fillRect(0, 0, picture.width, picture.height);
              paper.drawImage(picture, 0, 0);
              return isBlank(paper.getImageData(0, 0, picture.width, picture.height).data, picture.width, picture.height);
            }""",
            [base64.b64encode(encoded(drawing)).decode()],
        )
        assert verdict is blank, name


async def test_what_is_kept_of_a_sketch_is_what_a_browser_shows_of_its_file(visitor: Visitor) -> None:
    await begin(visitor)
    for name, kind in kinds().items():
        if not kind.browsers:
            continue
        width, height, pixels = await visitor.page.evaluate(
            """async ([data, type]) => {
              const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
              const picture = await createImageBitmap(new Blob([bytes], { type }));
              const { width, height } = picture;
              const paper = new OffscreenCanvas(width, height).getContext("2d");
              paper.fillStyle = "#ffffff";
              paper.fillRect(0, 0, width, height);
              paper.drawImage(picture, 0, 0);
              const shown = paper.getImageData(0, 0, width, height).data;
              let text = "";
              for (const value of shown) text += String.fromCharCode(value);
              return [width, height, btoa(text)];
            }""",
            [base64.b64encode(kind.data).decode(), media_type(kind.data)],
        )
        shown = Image.frombytes("RGBA", (width, height), base64.b64decode(pixels))
        with Image.open(io.BytesIO(read_sketch(kind.data, "").data)) as kept:
            assert difference(kept, shown) < COMPRESSED, name


async def test_a_finger_draws_and_two_fingers_do_not(arrive: Arrive) -> None:
    visitor = await arrive(width=360)
    await begin(visitor)
    worker = await visitor.page.locator("canvas.sheet").bounding_box()
    client = await visitor.context.new_cdp_session(visitor.page)

    async def touch(kind: str, *points: tuple[int, int]) -> None:
        places = [{"x": worker["x"] + x, "y": worker["y"] + y, "id": n} for n, (x, y) in enumerate(points)]
        await client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    await touch("touchStart", (60, 60))
    await touch("touchMove", (120, 120))
    await touch("touchMove", (180, 90))
    await touch("touchEnd")
    drawn = await visitor.ink()
    assert drawn > 100
    await touch("touchStart", (60, 200))
    await touch("touchStart", (60, 200), (200, 200))
    await touch("touchMove", (90, 240), (230, 240))
    await touch("touchEnd")
    assert await visitor.ink() == drawn


async def test_a_pen_draws_by_pressure_and_the_palm_is_ignored(visitor: Visitor) -> None:
    await begin(visitor)
    worker = await visitor.page.locator("canvas.sheet").bounding_box()
    assert worker
    client = await visitor.context.new_cdp_session(visitor.page)

    async def pen(kind: str, x: float, y: float, force: float) -> None:
        event: dict[str, Any] = {
            "type": kind,
            "x": worker["x"] + x,
            "y": worker["y"] + y,
            "pointerType": "pen",
            "force": force,
            "button": "left",
            "buttons": 1,
            "clickCount": 1,
        }
        await client.send("Input.dispatchMouseEvent", event)

    async def line(y: float, force: float) -> int:
        before = await visitor.ink()
        await pen("mousePressed", 60, y, force)
        for x in range(80, 320, 20):
            await pen("mouseMoved", x, y, force)
        await pen("mouseReleased", 320, y, force)
        return await visitor.ink() - before

    light, heavy = await line(100, 0.15), await line(200, 0.95)
    assert light > 0
    assert heavy > 1.4 * light
    await expect(visitor.page.get_by_role("button", name="Only the pen draws")).to_be_visible()
    drawn = await visitor.ink()
    palm = [{"x": worker["x"] + 100, "y": worker["y"] + 300, "id": 1}]
    await client.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": palm})
    await client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert await visitor.ink() == drawn


async def test_undo_redo_clear_and_the_eraser_work_by_button_and_key(visitor: Visitor) -> None:
    await begin(visitor)
    await visitor.stroke(*LINE)
    one = await visitor.ink()
    await visitor.stroke((0.2, 0.8), (0.8, 0.8))
    two = await visitor.ink()
    assert two > one > 0
    await visitor.page.keyboard.press("Control+z")
    assert await visitor.ink() == one
    await visitor.page.get_by_role("button", name="Redo").click()
    assert await visitor.ink() == two
    await visitor.page.keyboard.press("e")
    await visitor.stroke((0.2, 0.8), (0.8, 0.8))
    assert await visitor.ink() < two
    await visitor.page.get_by_role("button", name="Clear the page").click()
    assert await visitor.ink() == 0
    await visitor.page.keyboard.press("Control+z")
    assert await visitor.ink() > 0


async def test_a_drawing_survives_a_reload(visitor: Visitor) -> None:
    await begin(visitor)
    await visitor.stroke(*LINE)
    drawn = await visitor.ink()
    await visitor.page.wait_for_function(
        "() => new Promise((done) => { const ask = indexedDB.open('keyval-store'); ask.onsuccess = () => {"
        " const get = ask.result.transaction('keyval').objectStore('keyval').get('sketch:v1');"
        " get.onsuccess = () => done(get.result?.operations.length === 1); }; })"
    )
    await visitor.page.reload()
    await expect(visitor.page.get_by_role("button", name="Undo")).to_be_enabled()
    assert await visitor.ink() == drawn


async def test_the_keyboard_draws(visitor: Visitor) -> None:
    await begin(visitor)
    await visitor.page.locator("canvas.sheet").focus()
    await visitor.page.keyboard.press("Space")
    for _ in range(6):
        await visitor.page.keyboard.press("Shift+ArrowRight")
    await visitor.page.keyboard.press("Space")
    assert await visitor.ink() > 100


async def test_the_greeting_stays_away_once_dismissed(visitor: Visitor) -> None:
    await begin(visitor)
    await visitor.page.get_by_role("button", name="Got it").click()
    await visitor.page.reload()
    await expect(visitor.page.locator(".ghost")).to_be_visible()
    await expect(visitor.page.locator(".greeting")).to_have_count(0)


async def test_waiting_shows_place_range_preview_and_can_be_cancelled(visitor: Visitor) -> None:
    await begin(visitor)
    await visitor.stroke(*LINE)
    async with visitor.product.worker.silent():
        await paint(visitor)
        await expect(visitor.page.locator(".status-title")).to_contain_text("in line")
        await visitor.page.get_by_role("button", name="Cancel").click()
        await expect(visitor.page.locator(".ending")).to_contain_text("Not charged")
    await expect(visitor.page.locator(".paint")).to_contain_text("free: 20 left today")


async def test_a_rough_preview_is_labelled(visitor: Visitor) -> None:
    visitor.product.worker.script = show_and_wait
    await begin(visitor)
    await visitor.stroke(*LINE)
    await paint(visitor)
    await expect(visitor.page.get_by_text("Rough preview")).to_be_visible()
    await expect(visitor.page.locator("progress")).to_be_visible()
    visitor.product.worker.go.set()
    await expect(visitor.page.locator(".picture")).to_be_visible()


async def test_what_fails_is_not_charged_and_links_to_its_release(visitor: Visitor) -> None:
    visitor.product.worker.script = fail
    await begin(visitor)
    await visitor.stroke(*LINE)
    await paint(visitor)
    ending = visitor.page.locator(".ending")
    await expect(ending).to_contain_text("Not charged")
    await expect(ending).to_contain_text("Painting failed")
    await ending.get_by_role("link", name="See the release").click()
    await expect(visitor.page.locator(".entry")).to_have_count(2)
    await expect(visitor.page.locator(".entry").first).to_contain_text("Given back")


async def test_what_the_content_check_stops_is_not_charged(visitor: Visitor) -> None:
    await begin(visitor)
    await visitor.page.locator("#prompt").fill("a beheading")
    await visitor.stroke(*LINE)
    await paint(visitor)
    ending = visitor.page.locator(".ending")
    await expect(ending).to_contain_text("Not charged")
    await expect(ending).to_contain_text("not painted")
    await expect(ending).to_contain_text("content rules")
    await expect(ending).to_contain_text("No credit was held")
    await expect(ending.get_by_role("link")).to_have_count(0)
    await expect(visitor.page.locator(".paint")).to_contain_text("free: 20 left today")


async def test_without_credits_the_topup_opens_and_the_picture_follows_by_itself(visitor: Visitor) -> None:
    await visitor.has_free_images(0)
    keys: list[str] = []

    def note(request: Request) -> None:
        if request.method == "POST" and request.url.endswith("/v1/generations"):
            keys.append(request.headers["idempotency-key"])

    visitor.page.on("request", note)
    await begin(visitor)
    await visitor.stroke(*LINE)
    await visitor.page.get_by_role("button", name="Buy credits instead").click()
    await expect(visitor.page.get_by_text("Your picture is waiting.")).to_be_visible()
    async with visitor.page.expect_response("**/v1/topups") as made:
        await visitor.page.get_by_role("button", name="Lightning").click()
    topup = await (await made.value).json()
    await expect(visitor.page.locator(".qr")).to_be_visible()
    await visitor.product.pay(topup["id"])
    await expect(visitor.page.locator(".receipt-credits")).to_contain_text("+100")
    await visitor.page.get_by_role("button", name="Back to my sketch").click()
    await expect(visitor.page.locator(".picture")).to_be_visible()
    assert len(keys) == 2
    assert len(set(keys)) == 1


async def test_offline_one_draws_on_and_learns_why_painting_waits(visitor: Visitor) -> None:
    await begin(visitor)
    await visitor.context.set_offline(True)
    await expect(visitor.page.get_by_text("You are offline.")).to_be_visible()
    await expect(visitor.page.locator(".paint")).to_have_attribute("aria-disabled", "true")
    await visitor.stroke(*LINE)
    assert await visitor.ink() > 0
    await visitor.context.set_offline(False)
    await expect(visitor.page.get_by_text("You are offline.")).to_have_count(0)


async def test_a_low_balance_says_so(visitor: Visitor) -> None:
    await visitor.has_free_images(4)
    await begin(visitor)
    await expect(visitor.page.locator(".low")).to_contain_text("4 free pictures left today")


async def test_live_keeps_one_frame_in_flight_and_shows_the_spend(visitor: Visitor) -> None:
    frames: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.method == "POST" and request.url.endswith("/v1/generations"):
            frames.append(json.loads(request.post_data or "{}"))

    visitor.page.on("request", note)
    await begin(visitor)
    await visitor.page.get_by_role("switch", name="Live").click()
    for row in (0.3, 0.5, 0.7):
        await visitor.stroke((0.2, row), (0.8, row))
    await expect(visitor.page.locator(".live-spend")).to_contain_text("1 of")
    await expect(visitor.page.locator(".live-state")).to_contain_text("Ready")
    assert 1 <= len(frames) <= 3
    assert all(frame["live"] for frame in frames)
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    assert len({frame["session_id"] for frame in frames}) == 1


async def test_a_picture_becomes_the_next_sketch(visitor: Visitor) -> None:
    await begin(visitor)
    await visitor.stroke(*LINE)
    before = await visitor.ink()
    await paint(visitor)
    await visitor.page.get_by_role("button", name="Compare with the sketch").click()
    await expect(visitor.page.get_by_label("Sketch against picture")).to_be_visible()
    await visitor.page.get_by_role("button", name="Use as sketch").click()
    await expect(visitor.page.get_by_text("Draw over your picture")).to_be_visible()
    assert await visitor.ink() > before


async def test_a_fault_of_ours_is_not_charged_and_can_be_tried_again(visitor: Visitor) -> None:
    problem = problem_of(LogUnavailable())
    ProblemOut.model_validate(problem.document())
    await begin(visitor)
    await visitor.stroke(*LINE)

    async def unavailable(route: Route) -> None:
        answer = problem.response()
        await route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=bytes(answer.body))

    await visitor.page.route("**/v1/generations", unavailable)
    await paint(visitor)
    ending = visitor.page.locator(".ending")
    await expect(ending).to_contain_text("Not charged")
    await expect(ending).to_contain_text("Try again in 2 s.")
    await visitor.page.unroute("**/v1/generations")
    await ending.get_by_role("button", name="Try again").click()
    await expect(visitor.page.locator(".picture")).to_be_visible()
