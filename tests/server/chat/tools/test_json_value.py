import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.tools.json_value import JsonValue

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\{}[],: é'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(value=VALUES, ascii_only=st.booleans(), rest=st.sampled_from([",", " }", "]", "\n{}"]))
def test_the_end_is_where_the_standard_parser_ends(value: object, ascii_only: bool, rest: str) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    whole = JsonValue()
    assert whole.push(text + rest) == len(text)
    assert whole.done
    single = JsonValue()
    read = 0
    for char in text + rest:
        if single.done or single.push(char) == 0:
            break
        read += 1
    assert read == len(text)
    assert single.done


@pytest.mark.parametrize("text", ["12", "tru", '"a\\"', '{"a": [1, {}', "["])
def test_an_unfinished_value_goes_on(text: str) -> None:
    value = JsonValue()
    assert value.push(text) == len(text)
    assert not value.done
