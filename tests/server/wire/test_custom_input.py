"""The input of a custom tool, read from JSON that comes in pieces."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.wire.custom_input import CustomInput
from tests.server.chat.cuttings import cuttings

TEXTS = st.text(st.sampled_from('a"\\\n\t/u{}ü\u2028😀'), max_size=12)


WRITTEN = st.builds(lambda text, ascii: json.dumps({"input": text}, ensure_ascii=ascii), TEXTS, st.booleans())


@given(cuttings(WRITTEN))
def test_any_cutting_gives_the_same_text(pieces: list[str]) -> None:
    text = json.loads("".join(pieces))["input"]
    made = CustomInput()
    assert "".join(made.push(piece) for piece in pieces) == text
    assert made.text == text


def test_text_is_given_as_soon_as_it_is_whole() -> None:
    made = CustomInput()
    given = [made.push(piece) for piece in ('{ "in', 'put" : "a', "\\", "n", "\\ud83d", "\\ude00", 'b"}')]
    assert given == ["", "a", "", "\n", "", "😀", "b"]


@pytest.mark.parametrize("arguments", ["", "7", "{}", '{"other": "x"}', '{"input": 7}'])
def test_what_is_no_input_is_none(arguments: str) -> None:
    assert CustomInput().push(arguments) == ""
