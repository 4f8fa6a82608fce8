"""Headless Chromium, and pages that keep a record of what went wrong in them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}


def find_chromium() -> str:
    """The browser of this machine; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium here: install Debian's package `chromium`, or Google Chrome")
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser that sees this machine alone."""
    with sync_playwright() as playwright:
        # As root, which containers run tests as, Chromium starts without its sandbox only.
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page, and everything about it that a user would call broken."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)
    """Console errors, exceptions, failed requests and answers of 400 and above."""
    hosts: set[str] = field(default_factory=set)
    """Host and port of every request."""

    def watch(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._answered)

    def open(self, path: str = "/") -> Page:
        """Load a page of the server and wait until it has heard from it."""
        self.page.goto(self.url + path)
        return self.page

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _failed(self, request: Request) -> None:
        # Chromium says ERR_ABORTED also of streams that a script has read to their end.
        if not (request.url.endswith("/stream") and request.failure == "net::ERR_ABORTED"):
            self.faults.append(f"failed: {request.url} {request.failure}")

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.status}: {response.url}")
