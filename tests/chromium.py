"""A headless Chromium for tests that look at pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright, expect

from tests.waiting import SECONDS_MAX

WITHOUT = (
    # Of playwright's own list, which ours replaces: what changes how a page is loaded, shown or kept.
    "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable",
    "PaintHolding",
    "MediaRouter",
    "ThirdPartyStoragePartitioning",
    "DestroyProfileOnBrowserClose",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    # Renderers that every window starts for its address bar, and for a page that may come: two thirds of the
    # processor's time that a new window takes.
    "PreloadTopChromeWebUI",
    "SpareRendererForSitePerProcess",
    "WebUIOmniboxPopup",
    "WebUIOmniboxFullPopup",
    "WebUIOmniboxAimPopup",
)


@asynccontextmanager
async def running_chromium(path: str) -> AsyncIterator[Browser]:
    """The browser, as long as the context lasts. Whatever is expected of a page is waited for `SECONDS_MAX`."""
    expect.set_options(timeout=SECONDS_MAX * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", f"--disable-features={','.join(WITHOUT)}"],
            timeout=SECONDS_MAX * 1000,
        )
        yield browser
        await browser.close()
