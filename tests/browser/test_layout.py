"""Room and contrast on the page, in windows of several sizes, light and dark."""

from itertools import combinations

import pytest
from playwright.sync_api import Locator, Page

from tests.browser.chromium import PHONE
from tests.browser.conftest import Opener
from tests.browser.prompt_page import ready, set_samplers
from tests.server.live import LiveServer


def controls(page: Page) -> list[Locator]:
    found = page.locator("button, input, textarea, summary, nav a").all()
    return [control for control in found if control.is_visible()]


def check_layout(page: Page) -> None:
    """No scrolling sideways; every control is large enough for a finger, inside, and on its own."""
    width = page.evaluate("document.documentElement.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = {}
    for number, control in enumerate(controls(page)):
        # A checkbox is switched by a finger on its label.
        target = control.locator("xpath=..") if control.get_attribute("type") == "checkbox" else control
        box = target.bounding_box()
        assert box is not None
        name = f"{number} {control.get_attribute('id')}"
        assert box["height"] >= 40, name
        assert box["x"] >= 0, name
        assert box["x"] + box["width"] <= width, name
        boxes[name] = box
    assert len(boxes) > 3
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        apart = (
            a["x"] + a["width"] <= b["x"]
            or b["x"] + b["width"] <= a["x"]
            or a["y"] + a["height"] <= b["y"]
            or b["y"] + b["height"] <= a["y"]
        )
        assert apart, f"{one} lies over {other}"


@pytest.mark.parametrize("viewport", [PHONE, {"width": 768, "height": 1024}, {"width": 1280, "height": 900}])
def test_every_window_has_room(locked_server: LiveServer, opened: Opener, viewport: dict[str, int]) -> None:
    page = ready(opened(locked_server, viewport=viewport))
    check_layout(page)
    set_samplers(page)
    page.locator("#reply").evaluate("(reply) => reply.textContent = 'w'.repeat(3000)")
    page.locator("#model").evaluate("(model) => model.textContent = 'long-model-name-'.repeat(12)")
    check_layout(page)
    page.goto(f"{locked_server.url}/docs")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, 0 to 1 (WCAG 2.2)."""
    channels = [int(part) / 255 for part in colour.strip("rgba()").split(",")[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


COLOURS = """() => {
  const paper = (element) => {
    const own = getComputedStyle(element).backgroundColor;
    return own === "rgba(0, 0, 0, 0)" ? paper(element.parentElement) : own;
  };
  const texts = "h1, h2, h3, p, dt, dd, label, summary, button:enabled, a, pre, b, textarea, [type=number]";
  return [...document.querySelectorAll(texts)]
    .filter((element) => element.checkVisibility())
    .map((element) => [element.id || element.tagName, getComputedStyle(element).color, paper(element)]);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(server: LiveServer, opened: Opener, scheme: str) -> None:
    page = ready(opened(server, color_scheme=scheme))
    page_colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(page_colour) < 0.1) == (scheme == "dark")
    for name, ink, paper in page.evaluate(COLOURS):
        low, high = sorted((luminance(ink), luminance(paper)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ink, paper)
