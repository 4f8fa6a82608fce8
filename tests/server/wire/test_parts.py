"""Parts of a content: text, media, and what is neither."""

from typing import Any

import pytest

from engine.errors import RequestError
from server.wire.parts import MEDIA, text_of_part


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text", "summary_text"])
def test_text(kind: str) -> None:
    assert text_of_part({"type": kind, "text": "x"}, "p") == "x"
    with pytest.raises(RequestError, match=r"p\.text: must be text"):
        text_of_part({"type": kind}, "p")


def test_a_refusal_is_text() -> None:
    assert text_of_part({"type": "refusal", "refusal": "No."}, "p") == "No."


@pytest.mark.parametrize("kind", sorted(MEDIA))
def test_media_are_refused(kind: str) -> None:
    with pytest.raises(RequestError, match=f"p: no model that sees or hears is loaded, so {kind} is refused"):
        text_of_part({"type": kind, "text": "x"}, "p")


@pytest.mark.parametrize("part", [{"type": "smell", "text": "x"}, {"type": 7}, {}])
def test_others_are_not_known(part: dict[str, Any]) -> None:
    assert text_of_part(part, "p") is None


@pytest.mark.parametrize("part", ["x", None, 7, []])
def test_what_is_no_part(part: Any) -> None:
    with pytest.raises(RequestError, match="p: must be an object"):
        text_of_part(part, "p")
