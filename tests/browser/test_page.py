"""The page with the prompt box, as a user sees it."""

import json
from itertools import combinations
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.chromium import PHONE, Watched
from tests.browser.conftest import KEY, Opener
from tests.server.live import LiveServer, wait_for

LONG = 8000
"""Tokens: more than are made before a test ends them."""


WATCH_REPLY = """() => {
  globalThis.lengths = new Set();
  const reply = document.getElementById("reply");
  new MutationObserver(() => lengths.add(reply.textContent.length))
    .observe(reply, { characterData: true, childList: true, subtree: true });
}"""
"""Notes each length that the reply has on its way."""


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


@pytest.mark.parametrize("path", ["/", "/nkat", "/lcpp", "/below/a/proxy/nkat/"])
def test_it_loads_alone(server: LiveServer, opened: Opener, path: str) -> None:
    watched = opened(server)
    page = ready(watched, path)
    expect(page.locator("#model")).to_have_text("babbler")
    expect(page.locator("#facts")).to_contain_text("8,192 tokens")
    expect(page.locator("#facts")).to_contain_text("rank 4, gamma 0.97")
    expect(page.locator("#key-form")).to_be_hidden()
    assert watched.faults == []
    assert watched.hosts == {urlsplit(server.url).netloc}


def test_it_works_below_the_path_of_a_proxy(server: LiveServer, opened: Opener) -> None:
    watched = opened(server)
    paths: list[str] = []

    def pass_on(route: Route) -> None:
        paths.append(urlsplit(route.request.url).path)
        route.continue_(url=route.request.url.replace("/base/", "/"))

    watched.page.route("**/base/**", pass_on)
    watched.page.on("request", lambda request: paths.append(urlsplit(request.url).path))
    page = ready(watched, "/base/")
    set_samplers(page, max_length=3, temperature=0)
    write(page)
    assert finish(page) != ""
    assert page.locator("#connect pre").first.inner_text() == f"{server.url}/base"
    page.get_by_role("link", name="API docs").click()
    expect(page.locator("#found")).to_contain_text("endpoint")
    assert all(path.startswith("/base/") for path in paths), paths
    assert watched.faults == []


def test_it_says_how_to_connect(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    lines = page.locator("#connect pre").all_inner_texts()
    assert lines[:2] == [server.url, f"{server.url}/v1"]
    assert lines[2].startswith(f"curl {server.url}/api/v1/generate")


def test_a_story_is_streamed(server: LiveServer, opened: Opener) -> None:
    watched = opened(server)
    page = ready(watched)
    set_samplers(page, max_length=1000, temperature=0)
    page.evaluate(WATCH_REPLY)
    write(page)
    whole = finish(page)
    assert len(page.evaluate("[...lengths]")) > 3, "it came in pieces"
    expect(page.locator("#rate")).to_contain_text("tokens/s")
    asked = {"prompt": "hello world", "max_length": 1000, "temperature": 0}
    assert whole == server.post("/api/v1/generate", asked).json["results"][0]["text"]
    expect(page.locator("#speed-made")).not_to_have_text("–")
    page.get_by_role("button", name="Append to prompt").click()
    assert page.locator("#prompt").input_value() == "hello world" + whole
    assert watched.faults == []


def test_the_samplers_are_sent_and_kept(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    set_samplers(page, max_length=3, temperature=0.5, top_k=40, sampler_seed=11, stop_sequence="x\\ny\n\nEND")
    with page.expect_request("**/api/extra/generate/stream") as sent:
        write(page, "a <b>bold</b> prompt")
    body = json.loads(sent.value.post_data or "")
    assert body.pop("genkey")
    assert body == {
        "prompt": "a <b>bold</b> prompt",
        "max_length": 3,
        "temperature": 0.5,
        "top_k": 40,
        "sampler_seed": 11,
        "stop_sequence": ["x\ny", "END"],
    }
    finish(page)
    page.reload()
    assert page.locator("#sampler-temperature").input_value() == "0.5"
    assert page.locator("#sampler-stop_sequence").input_value() == "x\\ny\n\nEND"
    set_samplers(page)
    page.get_by_role("button", name="Reset samplers").click()
    page.reload()
    assert page.locator("#sampler-temperature").input_value() == ""


def test_a_bad_sampler_is_not_sent(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    finished = server.service.status().finished
    set_samplers(page, top_p=1.5)
    write(page)
    expect(page.get_by_role("alert")).to_have_text("Top-p must lie between 0 and 1.")
    assert server.service.status().finished == finished


def test_abort_ends_it_on_the_server(server: LiveServer, opened: Opener) -> None:
    watched = opened(server)
    page = ready(watched)
    with page.expect_request("**/generate/stream") as asked:
        write_long(page)
    expect(page.locator("#state")).to_have_text("Writing: 1")
    with page.expect_request("**/api/extra/abort") as aborted:
        page.get_by_role("button", name="Abort").first.click()
    name = json.loads(asked.value.post_data or "")["genkey"]
    assert json.loads(aborted.value.post_data or "") == {"genkey": name}
    assert len(name) >= 16, "nobody else can guess it"
    server.wait_until_idle()
    assert finish(page) != "", "what came before stays"
    expect(page.locator("#state")).to_have_text("Ready")
    expect(page.locator("#error")).to_be_hidden()
    assert watched.faults == []


def test_abort_works_without_an_answer(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    page.route("**/api/extra/abort", lambda route: route.abort())
    write_long(page)
    page.get_by_role("button", name="Abort").first.click()
    finish(page)
    server.wait_until_idle()


def test_leaving_the_page_ends_it(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    write_long(page)
    page.goto("about:blank")
    server.wait_until_idle()


def test_an_error_of_the_server_is_one_line(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    body = '{"detail": {"msg": "Server is <i>busy</i>;\\nplease try again later.", "type": "busy"}}'
    page.route("**/generate/stream", lambda route: route.fulfill(status=503, body=body))
    write(page)
    expect(page.get_by_role("alert")).to_have_text("Server is <i>busy</i>; please try again later.")
    page.unroute("**/generate/stream")
    page.route("**/generate/stream", lambda route: route.fulfill(status=502, body="<html>proxy</html>"))
    write(page)
    expect(page.get_by_role("alert")).to_have_text("The server answered 502 Bad Gateway")
    page.unroute("**/generate/stream")
    page.route("**/generate/stream", lambda route: route.abort())
    write(page)
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")
    page.unroute("**/generate/stream")
    set_samplers(page, max_length=2)
    write(page)
    expect(page.locator("#error")).to_be_hidden()
    finish(page)


def test_a_failing_engine_is_told(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    events = 'event: message\ndata: {"token": "so far", "finish_reason": null}\n\n'
    events += 'event: message\ndata: {"token": "", "finish_reason": "error"}\n\n'
    page.route(
        "**/generate/stream", lambda route: route.fulfill(body=events, content_type="text/event-stream")
    )
    write(page)
    expect(page.get_by_role("alert")).to_contain_text("The engine has failed")
    expect(page.locator("#reply")).to_have_text("so far")


def test_a_broken_stream_is_told(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    events = 'data: {"token": "so far"}\n\ndata: {"tok\n\n'
    page.route("**/generate/stream", lambda route: route.fulfill(body=events))
    write(page)
    expect(page.get_by_role("alert")).to_contain_text("The reply broke off: ")
    expect(page.locator("#reply")).to_have_text("so far")
    expect(page.get_by_role("button", name="Continue")).to_be_enabled()


def test_the_text_is_never_markup(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    events = 'data: {"token": "<img src=x onerror=alert(1)><b>&amp;", "finish_reason": "stop"}\n\n'
    page.route(
        "**/generate/stream", lambda route: route.fulfill(body=events, content_type="text/event-stream")
    )
    write(page)
    expect(page.locator("#reply")).to_have_text("<img src=x onerror=alert(1)><b>&amp;")
    assert page.locator("#reply *").count() == 0


def test_a_wrong_key(locked_server: LiveServer, opened: Opener) -> None:
    watched = opened(locked_server)
    page = ready(watched)
    expect(page.locator("#model")).to_have_text("protected-model")
    key = page.get_by_label("This server asks for a key")
    key.fill("wrong")
    page.get_by_role("button", name="Use key").click()
    write(page)
    expect(page.get_by_role("alert")).to_have_text("Authentication key is missing or invalid.")
    expect(key).to_be_focused()
    assert locked_server.service.status().open == 0


def test_the_right_key(locked_server: LiveServer, opened: Opener) -> None:
    watched = opened(locked_server)
    page = ready(watched)
    page.get_by_label("This server asks for a key").fill(f"  {KEY} ")
    page.get_by_role("button", name="Use key").click()
    expect(page.locator("#model")).to_have_text("babbler")
    set_samplers(page, max_length=5, temperature=0)
    write(page)
    assert finish(page) != ""
    expect(page.locator("#connect")).to_contain_text("Authorization: Bearer KEY")
    assert watched.faults == []
    assert KEY not in (page.evaluate("JSON.stringify(localStorage)") + page.content())
    page.reload()
    expect(page.locator("#model")).to_have_text("babbler")
    expect(page.locator("#key")).to_have_value(KEY)
    locked_server.wait_until_idle()


def test_theta_off_and_on(server: LiveServer, opened: Opener) -> None:
    watched = opened(server)
    page = ready(watched)
    set_samplers(page, max_length=40, temperature=0)
    page.get_by_label("Prompt", exact=True).fill("hello world and the")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#compare-note")).to_contain_text("they part after")
    replies = {}
    for enabled in (True, False, True):  # and back to what it was
        server.worker.set_theta(enabled=enabled)
        asked = {"prompt": "hello world and the", "max_length": 40, "temperature": 0}
        replies[enabled] = server.post("/api/v1/generate", asked).json["results"][0]["text"]
    assert page.locator("#reply-off").text_content() == replies[False]
    assert page.locator("#reply-on").text_content() == replies[True]
    assert replies[True] != replies[False]
    assert watched.faults == []


def theta_now(server: LiveServer) -> dict[str, object]:
    state: dict[str, object] = server.get("/api/nkat/status").json["theta"]
    return state


def test_an_aborted_comparison_puts_theta_back(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    write_long(page, "Compare", "#rate-off")
    assert theta_now(server)["enabled"] is False
    page.get_by_role("button", name="Abort").last.click()
    expect(page.get_by_role("button", name="Compare")).to_be_enabled()
    assert theta_now(server)["enabled"] is True
    expect(page.locator("#reply-on")).to_be_empty()


def test_leaving_a_comparison_puts_theta_back(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    write_long(page, "Compare", "#rate-off")
    page.goto("about:blank")
    wait_for(lambda: theta_now(server)["enabled"])


def test_the_switch_of_theta(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    switch = page.get_by_role("switch", name="Theta counts")
    expect(switch).to_be_checked()
    switch.uncheck()
    wait_for(lambda: theta_now(server) == {"enabled": False, "gamma": 0.97, "rank": 4})
    expect(page.locator("#facts")).to_contain_text("off (rank 4, gamma 0.97)")
    gamma = page.get_by_label("Gamma")
    gamma.fill("0.5")
    wait_for(lambda: theta_now(server)["gamma"] == 0.5)
    gamma.fill("0.97")
    switch.check()
    wait_for(lambda: theta_now(server) == {"enabled": True, "gamma": 0.97, "rank": 4})


def test_it_asks_only_while_somebody_looks(server: LiveServer, opened: Opener) -> None:
    watched = opened(server)
    watched.page.clock.install()
    page = ready(watched)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(11_000)
    expect(page.locator("#state")).to_have_text("Ready")
    assert asked
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    asked.clear()
    page.clock.run_for(60_000)
    assert asked == []
    page.evaluate("delete document.hidden")
    with page.expect_request("**/api/nkat/status"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


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
    check_layout_of_docs = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert check_layout_of_docs <= 0


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
