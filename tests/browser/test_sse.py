"""The parser of server-sent events, compared with a whole stream cut in every possible way."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from tests.server.live import LiveServer

PARSE = """async (pieces) => {
  const { EventParser } = await import("./nkat/sse.js");
  const parser = new EventParser();
  return pieces.flatMap((piece) => parser.push(piece));
}"""


@pytest.fixture(scope="module")
def blank(browser: Browser, open_server: LiveServer) -> Any:
    page = browser.new_page()
    page.goto(f"{open_server.url}/docs")
    yield page
    page.close()


def expected(text: str) -> list[str]:
    """The data of all complete events, by the words of the standard: line by line over the whole text."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    events: list[str] = []
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        if line == "" and data:
            events.append("\n".join(data))
            data = []
        elif name == "data":
            data.append(value.removeprefix(" "))
    return events


LINES = st.sampled_from(
    ["data: one", "data:two", "data", "data:  x", "event: message", ": ping", "id: 7", "database: no", "", ""]
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(LINES, ENDS), max_size=14), st.lists(st.integers(0, 120), max_size=8))
def test_pieces_do_not_matter(blank: Page, lines: list[tuple[str, str]], cuts: list[int]) -> None:
    # A CR at the very end may be half a line end, so the stream goes on with one more line.
    text = "".join(line + end for line, end in lines) + "data: rest"
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    assert blank.evaluate(PARSE, pieces) == expected(text)
