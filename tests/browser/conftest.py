"""A browser that reaches loopback only, and knows where npm put the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright, expect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Beside other tests, as slow as a machine is that does something else.
expect.set_options(timeout=20_000)
CHROMIUM = "/usr/bin/chromium"
PLACES = (Path(sys.prefix) / "node" / "node_modules", Path(__file__).parents[2] / "node_modules")


@pytest.fixture
def vendor() -> Path:
    return next(place for place in PLACES if (place / "@xterm" / "xterm").is_dir())


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()
