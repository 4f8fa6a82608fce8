"""The page with the prompt box, as a user sees it."""

import json
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import KEY, Opener
from tests.browser.prompt_page import finish, ready, set_samplers, write, write_long
from tests.server.live import LiveServer

WATCH_REPLY = """() => {
  globalThis.lengths = new Set();
  const reply = document.getElementById("reply");
  new MutationObserver(() => lengths.add(reply.textContent.length))
    .observe(reply, { characterData: true, childList: true, subtree: true });
}"""
"""Notes each length that the reply has on its way."""


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
