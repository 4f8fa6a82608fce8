"""Bodies with too many values are known before they are parsed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.wire import json_size
from server.wire.json_size import VALUES, has_too_many_values

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=60,
)


def separators(value: Any) -> int:
    """Commas, brackets and braces of a value's text, those in strings left out."""
    match value:
        case list():
            return 1 + max(0, len(value) - 1) + sum(map(separators, value))
        case dict():
            return 1 + max(0, len(value) - 1) + sum(map(separators, value.values()))
    return 0


@given(JSON)
def test_what_stands_in_strings_does_not_count(value: Any) -> None:
    for ascii_only in (True, False):
        raw = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "replace")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_size, "VALUES", 20)
            assert has_too_many_values(raw) == (separators(value) > 20)


@pytest.mark.parametrize(
    ("raw", "many"),
    [
        (b"[" + b"[]," * 10_000_000 + b"[]]", True),
        (b'["a"' + b',"a"' * 7_000_000 + b"]", True),
        (b'{"a":1' + b',"a":1' * 5_000_000 + b"}", True),
        (b"[" * 30_000_000, True),
        (b'"' * 30_000_000 + b"," * VALUES * 2, True),
        (b'"' + b'\\"' * 15_000_000 + b"," * VALUES * 2, False),
        (b'{"prompt": "' + b"So, [he] said, {that}. " * 1_000_000 + b'"}', False),
        (b"[" + b"1," * (VALUES - 2) + b"1]", False),
        (b"[" + b"1," * VALUES + b"1]", True),
        (b'"\\', False),
    ],
)
def test_large_texts(raw: bytes, many: bool) -> None:
    assert has_too_many_values(raw) == many
