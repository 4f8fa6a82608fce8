"""Theta on the page: its switch, and two replies side by side."""

from playwright.sync_api import expect

from tests.browser.conftest import Opener
from tests.browser.prompt_page import ready, set_samplers, write_long
from tests.server.live import LiveServer, wait_for


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


def test_a_comparison_disturbs_nobody(server: LiveServer, opened: Opener) -> None:
    page = ready(opened(server))
    asked = {"prompt": "hello world and the", "max_length": 40, "temperature": 0}
    expected = server.post("/api/v1/generate", asked).json
    write_long(page, "Compare", "#rate-off")
    assert theta_now(server)["enabled"] is True
    assert server.post("/api/v1/generate", asked).json == expected
    page.get_by_role("button", name="Abort").last.click()
    expect(page.get_by_role("button", name="Compare")).to_be_enabled()
    expect(page.locator("#reply-on")).to_be_empty()


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
