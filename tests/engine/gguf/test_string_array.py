"""Arrays of strings: what a list of the same strings would do, found with the library and without."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ModelFileError
from engine.gguf import StringArray, cursor, open_gguf
from engine.native import open_library
from engine.native.strings import find_strings
from tests.support.gguf_files import write_gguf

TEXTS = st.lists(
    st.one_of(st.text(max_size=4), st.sampled_from(["a b", " a", "\0", "é ü", "<x>", ""])), max_size=9
)


def laid_out(strings: list[bytes]) -> bytes:
    return b"".join(struct.pack("<Q", len(string)) + string for string in strings)


def array_of(strings: list[bytes]) -> StringArray:
    data = laid_out(strings)
    ends = np.cumsum([8 + len(string) for string in strings], dtype=np.int64)
    return StringArray(data, ends - np.array([*map(len, strings)], np.int64), ends)


@given(TEXTS)
def test_it_is_the_list_of_its_strings(texts: list[str]) -> None:
    array = array_of([text.encode() for text in texts])
    assert list(array) == texts
    assert array == texts
    assert texts == array
    assert array != [*texts, "more"]
    assert len(array) == len(texts)
    assert [array[i] for i in range(len(array))] == texts
    assert array[1:3] == texts[1:3]
    assert array.sizes.tolist() == [len(text.encode()) for text in texts]


@given(st.lists(st.binary(max_size=4), max_size=9))
def test_what_is_no_utf8_is_replaced(strings: list[bytes]) -> None:
    assert list(array_of(strings)) == [string.decode(errors="replace") for string in strings]


@pytest.mark.skipif(open_library() is None, reason="the native library is not built")
class TestMerging:
    """Tokens of merges, against Python's own way to find them."""

    TOKENS = ("a", "b", " ", " a", "ab", "é", "", "abcdefghij", "\0", "a b", "abcdefgh")

    @given(st.permutations(TOKENS), st.lists(st.tuples(*[st.sampled_from(TOKENS)] * 2), max_size=30))
    def test_they_are_those_left_and_right_of_the_space(
        self, tokens: list[str], pairs: list[tuple[str, str]]
    ) -> None:
        lines = [f"{left} {right}" for left, right in pairs]
        places = {token: place for place, token in enumerate(tokens)}
        cut = [(line[:at], line[at + 1 :]) for line in lines if (at := line.find(" ", 1)) > 0]
        found = array_of([line.encode() for line in lines]).merged_from(
            array_of([token.encode() for token in tokens])
        )
        if len(cut) == len(lines) and all(
            left in places and right in places and right for left, right in cut
        ):
            assert found is not None
            assert [*zip(*(side.tolist() for side in found), strict=True)] == [
                (places[left], places[right]) for left, right in dict.fromkeys(cut)
            ]
        else:
            assert found is None

    @pytest.mark.parametrize("odd", ["ab ", " ab", "ab", "a", "", " ", "a c", "c a"])
    def test_what_joins_no_two_tokens_is_not_guessed(self, odd: str) -> None:
        tokens = array_of([b"a", b"b", b""])
        for lines in ([odd, "a b"], ["a b", odd]):
            assert array_of([line.encode() for line in lines]).merged_from(tokens) is None

    def test_many(self) -> None:
        tokens = [str(number).encode() for number in range(3000)]
        rng = np.random.default_rng(2)
        left, right = rng.integers(0, 3000, (2, 5000))
        lines = array_of([tokens[a] + b" " + tokens[b] for a, b in zip(left, right, strict=True)])
        found = lines.merged_from(array_of(tokens))
        assert found is not None
        pairs = dict.fromkeys(zip(left.tolist(), right.tolist(), strict=True))
        assert [*zip(found[0].tolist(), found[1].tolist(), strict=True)] == [*pairs]


@pytest.mark.skipif(open_library() is None, reason="the native library is not built")
class TestFinding:
    """The compiled way through the header."""

    @given(st.lists(st.binary(max_size=6), max_size=9), st.integers(0, 5), st.binary(max_size=3))
    def test_places_are_those_of_the_strings(self, strings: list[bytes], position: int, rest: bytes) -> None:
        data = bytes(position) + laid_out(strings) + rest
        found = find_strings(data, position, len(strings))
        assert found is not None
        assert [data[position + a : position + b] for a, b in zip(*found, strict=True)] == strings

    @given(st.lists(st.binary(max_size=6), min_size=1, max_size=5), st.data())
    def test_what_is_cut_off_is_not_found(self, strings: list[bytes], data: st.DataObject) -> None:
        whole = laid_out(strings)
        kept = data.draw(st.integers(0, len(whole) - 1))
        assert find_strings(whole[:kept], 0, len(strings)) is None

    @pytest.mark.parametrize("length", [1, 2**31, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1])
    def test_a_length_beyond_the_end_is_not_believed(self, length: int) -> None:
        assert find_strings(struct.pack("<Q", 0) + struct.pack("<Q", length), 0, 2) is None


@pytest.fixture(params=["compiled", "python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setattr(cursor, "find_strings", lambda *_: None)
    elif open_library() is None:
        pytest.skip("the native library is not built")
    return str(request.param)


def test_both_ways_read_a_file_alike(tmp_path: Path, way: str) -> None:
    strings = ["", "a", "é", "b" * 300, ""]
    path = write_gguf(tmp_path / "strings.gguf", {"before": 1, "k": strings, "behind": 7}, {})
    with open_gguf(path) as file:
        found = file.metadata["k"]
        assert file.metadata["behind"] == 7
    assert isinstance(found, StringArray)
    assert found == strings


def test_both_ways_refuse_a_string_that_leaves_the_file(tmp_path: Path, way: str) -> None:
    path = write_gguf(tmp_path / "strings.gguf", {"k": ["first", "last"]}, {})
    whole = path.read_bytes()
    at = whole.index(b"last") - 8
    path.write_bytes(whole[:at] + struct.pack("<Q", 2**63) + whole[at + 8 :])
    with pytest.raises(ModelFileError, match="a string of 'k' is longer than the rest of the file"):
        open_gguf(path)
