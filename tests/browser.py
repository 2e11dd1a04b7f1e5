"""Debian's Chromium, headless and with WebGL in software, driven by Playwright; it reaches no host but the loopback.

Every page notes what went wrong in it, so that a test can ask. Pictures of pages are kept in `build/screenshots`.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, Response, expect, sync_playwright

from tests.services.process import HANGS_S, LOOPBACK, ServiceMissingError

SCREENSHOTS = Path(__file__).resolve().parent.parent / "build" / "screenshots"
SIZE = (1280, 800)
_ARGUMENTS = (
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {LOOPBACK}",
)
_HANGS_MS = HANGS_S * 1000


class WatchedPage:
    """A page that notes its errors, the requests that failed, and the hosts that it asked.

    Parameters
    ----------
    page
        The page.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        """Exceptions that nobody caught, and errors written to the console."""
        self.refused: list[tuple[int, str]] = []
        """Status and address of the answers from 400 on."""
        self.failed: list[str] = []
        """Requests without an answer, with the browser's reason; `net::ERR_ABORTED`: the page itself ended them."""
        self.strangers: list[str] = []
        """Addresses on other hosts, of which none is answered."""
        page.on("pageerror", self._note_exception)
        page.on("console", self._note_message)
        page.on("response", self._note_response)
        page.on("request", self._note_request)
        page.on("requestfailed", self._note_failure)

    def picture(self, keep_as: str | None = None) -> NDArray[np.uint8]:
        """Return the pixels of what the page shows, (Y, X, 3); under a name the picture is kept."""
        png = self.page.screenshot()
        if keep_as is not None:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            (SCREENSHOTS / f"{keep_as}.png").write_bytes(png)
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def _note_exception(self, error: Error) -> None:
        self.errors.append(f"exception: {error}")

    def _note_message(self, message: ConsoleMessage) -> None:
        # What the browser itself says of an answer from 400 on stands in `refused`.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(f"console: {message.text}")

    def _note_response(self, response: Response) -> None:
        if response.status >= 400:
            self.refused.append((response.status, response.url))

    def _note_failure(self, request: Request) -> None:
        self.failed.append(f"{request.method} {request.url}: {request.failure}")

    def _note_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob"} and parts.hostname != LOOPBACK:
            self.strangers.append(request.url)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser.

    Raises
    ------
    ServiceMissingError
        Chromium is not installed.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise ServiceMissingError("Chromium is not installed (Debian package: chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS, timeout=_HANGS_MS)
        expect.set_options(timeout=_HANGS_MS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched_page(browser: Browser, locale: str = "en-US") -> Iterator[WatchedPage]:
    """Open a page in a profile of its own, with a person's preferred language."""
    context = browser.new_context(viewport={"width": SIZE[0], "height": SIZE[1]}, locale=locale)
    context.set_default_timeout(_HANGS_MS)
    try:
        yield WatchedPage(context.new_page())
    finally:
        context.close()
