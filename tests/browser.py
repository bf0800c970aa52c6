"""A headless Chromium for tests, and pages that remember what went wrong on them.

Driven with playwright, which needs no browser of its own: TAXIMETER_CHROMIUM, else `chromium` or `google-chrome` on the
PATH. Without one the tests are skipped and say so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def executable() -> str:
    """The browser, or a skip that says what is missing."""
    found = os.environ.get("TAXIMETER_CHROMIUM") or next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("no chromium on this machine (apt-get install chromium, or set TAXIMETER_CHROMIUM)")
    return found


class Troubles(list[str]):
    """Console errors, script errors and requests to anywhere but the page's own port."""

    def watch(self, page: Any, origin: str) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.append(f"script: {error}"))
        page.on("request", lambda request: self._asked(request.url, origin))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.append(f"console: {message.text}")

    def _asked(self, url: str, origin: str) -> None:
        if not url.startswith(origin):
            self.append(f"request to {url}")


@asynccontextmanager
async def browsing(origin: str, **context: Any) -> AsyncIterator[tuple[Any, Troubles]]:
    """A fresh browser with an empty profile: (page, its troubles)."""
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=executable(), args=FLAGS)
        try:
            opened = await browser.new_context(base_url=origin, **({"viewport": DESKTOP} | context))
            page = await opened.new_page()
            troubles = Troubles()
            troubles.watch(page, origin)
            yield page, troubles
        finally:
            await browser.close()
