"""How long the main job takes for the person in front of it.

Starts a stack of its own in a temporary folder and a headless Chromium in front of it, and prints JSON:
starts, memory, click to image, payment to "paid" on the page (with the event stream and without it),
and top-up to QR code. `--cold` also times `make run` from a fresh clone. Every time is in milliseconds
unless its name says otherwise. Run it on a calm machine: the load at each part is printed beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, BrowserContext, Page, Route, async_playwright

from bench.surroundings import descendants
from sandbox.embedded.ports import free_port
from tests.conftest import find_browser
from tests.e2e.people import Person
from tests.e2e.stack import ROOT, Stack

PARTS = ("starts", "memory", "image", "paid", "paid_without_stream", "qr")
COLD_SECONDS_MAX = 900
WAIT_MS_MAX = 30_000
VISITS = 5

PAINTED = """() => new Promise((resolve, reject) => {
  const tooLate = performance.now() + 30_000;
  const frame = () => {
    if (performance.now() > tooLate) reject(new Error("never painted"));
    else if ((LOOK)()) requestAnimationFrame(() => resolve(Date.now()));
    else requestAnimationFrame(frame);
  };
  frame();
})"""
"""Resolves with the time of the frame after the one in which the inserted function first says yes."""
PICTURE = """() => {
  const picture = document.querySelector(".picture");
  return picture && picture.src !== window.before && picture.complete && picture.naturalWidth > 0;
}"""
PAID = """() => document.querySelector(".pay[data-state=paid]")"""
REMEMBER = """() => {
  window.before = document.querySelector(".picture")?.src;
  document.querySelector(".paint").addEventListener("click", () => { window.clickedAt = Date.now(); }, { once: true, capture: true });
}"""
OPEN_TO_QR = """async () => {
  const next = () => new Promise(requestAnimationFrame);
  const began = performance.now();
  const until = async (look) => {
    let found;
    while (!(found = look())) {
      if (performance.now() > began + 30_000) throw new Error("never shown");
      await next();
    }
    return found;
  };
  document.querySelector("#top-balance button").click();
  const ways = () => [...document.querySelectorAll("button.way:not([disabled])")];
  (await until(() => ways().find((way) => way.textContent.includes("Lightning")))).click();
  await until(() => document.querySelector("canvas.qr-code")?.width > 20);
  await next();
  return performance.now() - began;
}"""


def summary(values_ms: Sequence[float]) -> dict[str, Any]:
    """Median, 95th percentile and extremes."""
    ordered = sorted(values_ms)
    return {
        "runs": len(ordered),
        "p50": round(statistics.median(ordered)),
        "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]),
        "min": round(ordered[0]),
        "max": round(ordered[-1]),
    }


# --- starts ---


async def starts(count: int) -> dict[str, Any]:
    """First start (databases are made), then `count` starts on the same data, each until a click gives an image."""
    stack = Stack()
    try:
        first = await stack.start()
        first_image = await _image_by_api(stack)
        ready, image = [], []
        for _ in range(count):
            await stack.stop()
            ready.append(await stack.start() * 1000)
            image.append(await _image_by_api(stack))
        return {
            "first_to_ready": round(first * 1000),
            "first_ready_to_image": round(first_image),
            "second_to_ready": summary(ready),
            "second_ready_to_image": summary(image),
        }
    finally:
        await stack.dispose()


async def _image_by_api(stack: Stack) -> float:
    from tests.e2e.program import Customer

    began = time.perf_counter()
    async with Customer(stack) as customer:
        await customer.begin()
        await customer.paint_until_it_ends("the first llama after the start")
    return (time.perf_counter() - began) * 1000


def cold() -> dict[str, Any]:
    """`make run` from a fresh clone, with whatever the package caches of this machine hold."""
    folder = Path(tempfile.mkdtemp(prefix="cold-"))
    folder.chmod(0o755)
    try:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "clone")], check=True)
        port = free_port()
        began = time.perf_counter()
        process = subprocess.Popen(
            ["make", "run", f"PORT={port}"],
            cwd=folder / "clone",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        reported = []
        for line in process.stdout:
            reported.append(line.rstrip())
            if line.startswith("Ready in") or time.perf_counter() - began > COLD_SECONDS_MAX:
                break
        seconds = time.perf_counter() - began
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        ready = next((re.search(r"[\d.]+", line) for line in reported if line.startswith("Ready in")), None)
        if ready is None:
            return {"failed": reported[-5:]}
        return {"make_run_seconds": round(seconds, 1), "of_which_start_seconds": float(ready.group())}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- memory ---


def memory(stack: Stack) -> dict[str, Any]:
    """Proportional set size of each process of the tree (PostgreSQL with all its backends), in MB."""
    sizes = {"supervisor": _pss_kb(stack.pid)}
    for name, pid in stack.children().items():
        sizes[name] = sum(_pss_kb(one) for one in (pid, *descendants(pid)))
    return {
        "pss_mb": {name: round(kb / 1024) for name, kb in sizes.items()},
        "total_mb": round(sum(sizes.values()) / 1024),
    }


def _pss_kb(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))


# --- in the browser ---


class Journey:
    """A stack and a browser."""

    def __init__(self, stack: Stack, browser: Browser) -> None:
        self.stack = stack
        self._browser = browser

    async def _arrive(self) -> tuple[Person, BrowserContext]:
        context = await self._browser.new_context(viewport={"width": 1280, "height": 860})
        context.set_default_timeout(WAIT_MS_MAX)
        page = await context.new_page()
        return Person(self.stack, context, page), context

    async def image(self, rounds: int) -> dict[str, Any]:
        """From the click on Paint to the frame that shows the image."""
        person, context = await self._arrive()
        await self._buy(person, 500)
        await person.draw()
        times = []
        for _ in range(rounds):
            await person.page.evaluate(REMEMBER)
            painted = asyncio.create_task(self._painted(person.page, PICTURE))
            await person.page.locator(".paint:not([aria-disabled])").click()
            times.append(await painted - await person.page.evaluate("() => window.clickedAt"))
        await context.close()
        return summary(times)

    async def paid(self, rounds: int, *, stream: bool = True) -> dict[str, Any]:
        """From just before the node is told to take a payment to the frame that says "Paid"."""
        person, context = await self._arrive()
        if not stream:
            await context.route("**/v1/events", _abort)
        await person.visit("/account")
        await person.page.locator("#top-balance button").wait_for()
        times = []
        async with httpx.AsyncClient(base_url=self.stack.setting("SANDBOX_LND_CONTROL_URL")) as node:
            for _ in range(rounds):
                topup = await self._topup(person)
                await person.visit(f"/topups/{topup['id']}")
                await person.sees_state("waiting")
                words = "This page changes by itself" if stream else "Reconnecting"
                await person.page.get_by_text(words).wait_for()
                painted = asyncio.create_task(self._painted(person.page, PAID))
                await asyncio.sleep(0.05)  # the watch is set up; what is measured begins below
                began = time.time() * 1000
                paying = node.post("/sandbox/pay", json={"bolt11": topup["instructions"]["text"]})
                (await paying).raise_for_status()
                times.append(await painted - began)
        await context.close()
        return summary(times)

    async def qr(self, rounds: int) -> dict[str, Any]:
        """From the click that opens the top-up (then Lightning at once) to the frame that shows the code."""
        times: list[float] = []
        decoded = False
        while len(times) < rounds:
            # Somebody new now and then: nobody may have very many top-ups open at once.
            person, context = await self._arrive()
            for _ in range(min(VISITS, rounds - len(times))):
                await person.visit("/account")
                await person.page.locator("#top-balance button").wait_for()
                times.append(float(await person.page.evaluate(OPEN_TO_QR)))
            decoded = await _decode(person.page)
            await context.close()
        return {**summary(times), "last_one_scanned": decoded}

    @staticmethod
    async def _painted(page: Page, look: str) -> float:
        return float(await page.evaluate(PAINTED.replace("LOOK", look)))

    async def _topup(self, person: Person, count: int = 100) -> dict[str, Any]:
        body = {"rail": "lightning", "credits": count}
        topup: dict[str, Any] = await person.ask("POST", "/v1/topups", body)
        return topup

    async def _buy(self, person: Person, count: int) -> None:
        await person.visit()
        await person.page.locator("#top-balance button").wait_for()
        topup = await self._topup(person, count)
        async with httpx.AsyncClient(base_url=self.stack.setting("SANDBOX_LND_CONTROL_URL")) as node:
            await node.post("/sandbox/pay", json={"bolt11": topup["instructions"]["text"]})
        await person.visit(f"/topups/{topup['id']}")
        await person.sees_state("paid")
        await person.visit()


async def _abort(route: Route) -> None:
    await route.abort()


async def _decode(page: Page) -> bool:
    import cv2
    import numpy as np

    shot = await page.locator(".qr").screenshot()
    picture = cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)
    # The detector wants some room around the code.
    framed = cv2.copyMakeBorder(picture, 40, 40, 40, 40, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    text, *_ = cv2.QRCodeDetector().detectAndDecode(framed)
    return bool(text)


# --- all of it ---


async def measure(parts: Sequence[str], rounds: int, start_rounds: int) -> dict[str, Any]:
    """The wanted parts, each with the load of the machine when it began."""
    found: dict[str, Any] = {}
    if "starts" in parts:
        found["starts"] = await _noting_load(lambda: starts(start_rounds))
    if not set(parts) - {"starts"}:
        return found
    stack = Stack()
    try:
        await stack.start()
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
            journey = Journey(stack, browser)
            work: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
                "image": lambda: journey.image(rounds),
                "paid": lambda: journey.paid(rounds),
                "paid_without_stream": lambda: journey.paid(rounds, stream=False),
                "qr": lambda: journey.qr(rounds),
            }
            for name in (name for name in work if name in parts):
                found[name] = await _noting_load(work[name])
            await browser.close()
        if "memory" in parts:
            found["memory"] = memory(stack)
            print(json.dumps(found["memory"]), file=sys.stderr, flush=True)
    finally:
        await stack.dispose()
    return found


async def _noting_load(work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    load = os.getloadavg()[0]
    found = {**await work(), "load_before": round(load, 1), "load_after": round(os.getloadavg()[0], 1)}
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def machine() -> dict[str, Any]:
    """What it was measured on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line), "")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip(),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="llamasketch bench journey", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON on one line")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--start-rounds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be repeated")
    parser.add_argument("--cold", action="store_true", help="also `make run` from a fresh clone (minutes)")
    options = parser.parse_args()
    found = {"machine": machine()}
    if options.cold:
        found["cold"] = {**cold(), "load_before": round(os.getloadavg()[0], 1)}
    found |= asyncio.run(measure(options.only or PARTS, options.rounds, options.start_rounds))
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
