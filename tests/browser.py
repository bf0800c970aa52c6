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


LOOKS: dict[str, dict[str, Any]] = {
    "desktop-light": {"viewport": DESKTOP, "color_scheme": "light"},
    "desktop-dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone-light": {"viewport": PHONE, "color_scheme": "light", "has_touch": True, "device_scale_factor": 2},
}
CUT_OFF = """() => [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)
  .map(e => e.textContent.trim().slice(0, 60))"""
"""Tables one would have to push aside to read."""
OVER_EACH_OTHER = """() => [...document.querySelectorAll('.axis')].flatMap(axis => {
  const boxes = [...axis.querySelectorAll('text')].filter(e => e.textContent && getComputedStyle(e).display !== 'none')
    .map(e => [e.textContent, e.getBoundingClientRect()]).filter(([, box]) => box.width > 0);
  return boxes.flatMap(([one, a], at) => boxes.slice(at + 1)
    .filter(([, b]) => a.left < b.right && b.left < a.right && a.top < b.bottom - 1 && b.top < a.bottom - 1)
    .map(([other]) => `${one} / ${other}`));
})"""
"""Labels of an axis that lie on each other."""
CONTRAST = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = rgb(getComputedStyle(node).backgroundColor);
      if (colour.length && colour[3] !== 0) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const node of document.querySelectorAll("main *, .top *, footer")) {
    const text = [...node.childNodes].some((each) => each.nodeType === 3 && each.textContent.trim());
    if (!text || node.closest("svg, .skip") || !node.checkVisibility()) continue;
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(`${node.tagName} ${node.className} ${node.textContent.trim()}`);
  }
  return bad;
}"""
"""Texts with less contrast to what is behind them than WCAG 2 asks for at level AA."""


async def faults_of(page: Any) -> list[str]:
    """What is wrong with how a page looks: too wide, cut off, over each other, too faint; or made twice."""
    found = [] if await page.evaluate("document.documentElement.scrollWidth <= innerWidth") else ["too wide"]
    for said, look in (("cut off", CUT_OFF), ("over each other", OVER_EACH_OTHER), ("too faint", CONTRAST)):
        found += [f"{said}: {each}" for each in await page.evaluate(look)]
    if await page.evaluate("document.querySelectorAll('h1').length") != 1:
        found.append("not one h1")
    ids = await page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    return found + [f"twice: {each}" for each in sorted(set(ids)) if ids.count(each) > 1]
