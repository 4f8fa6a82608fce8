"""What a user does on the page with the prompt box."""

import json

from playwright.sync_api import Page, Route, expect

from tests.browser.chromium import Watched

LONG = 8000
"""Tokens: more than are made before a test ends them."""


def ready(watched: Watched, path: str = "/") -> Page:
    page = watched.open(path)
    expect(page.locator("#state")).to_have_attribute("data-state", "ready")
    return page


def set_samplers(page: Page, **values: object) -> None:
    if page.locator("details.samplers").get_attribute("open") is None:
        page.get_by_text("Samplers", exact=True).click()
    for name, value in values.items():
        page.locator(f"#sampler-{name}").fill(str(value))


def write(page: Page, prompt: str = "hello world") -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Continue").click()


def write_long(page: Page, button: str = "Continue", speed: str = "#rate") -> None:
    """Start something long, and wait until text has come."""

    def never_end(route: Route) -> None:
        asked = json.loads(route.request.post_data or "")
        route.continue_(post_data=asked | {"ban_eos_token": True})

    page.route("**/generate/stream", never_end)
    set_samplers(page, max_length=LONG)
    page.get_by_role("button", name=button).click()
    expect(page.locator(speed)).to_contain_text("tokens/s")
    page.unroute("**/generate/stream")


def finish(page: Page) -> str:
    """The whole reply, once it is there."""
    expect(page.get_by_role("button", name="Continue")).to_be_enabled()
    return page.locator("#reply").text_content() or ""
