"""The index against a search of one piece after the other."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tokenizer import Tokenizer
from engine.tokenizer.piece_index import PieceIndex, lowered
from tests.engine.tokenizer.vocabularies import byte_pairs, sentence_pieces


@pytest.fixture(scope="module", params=[byte_pairs, sentence_pieces])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.from_metadata(request.param())


@pytest.fixture(scope="module")
def index(tokenizer: Tokenizer) -> PieceIndex:
    return PieceIndex(tokenizer)


class Pieces:
    """A vocabulary that is nothing but its pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.vocab_size = len(pieces)

    def piece(self, token_id: int, *, render_special: bool) -> bytes:
        assert render_special
        return self._pieces[token_id]


def of(pieces: list[bytes]) -> PieceIndex:
    vocabulary: Any = Pieces(pieces)
    return PieceIndex(vocabulary)


def case_blind(piece: bytes) -> bytes:
    return lowered(piece.decode(errors="surrogateescape")).encode(errors="surrogateescape")


def overlaps(index: PieceIndex, string: bytes) -> dict[int, list[int]]:
    return {length: ids.tolist() for length, ids in index.overlapping(string)}


def overlaps_one_by_one(pieces: list[bytes], string: bytes) -> dict[int, list[int]]:
    found = {
        length: [i for i, piece in enumerate(pieces) if piece.endswith(string[:length])]
        for length in range(1, len(string))
    }
    return {length: ids for length, ids in found.items() if ids}


short = st.lists(st.sampled_from(list(b"aAbB\xc3\x84\xa4")), max_size=5).map(bytes)


@settings(max_examples=200, deadline=None)
@given(st.lists(short, min_size=1, max_size=12), short, st.booleans())
def test_search_is_a_search_of_each_piece(pieces: list[bytes], fragment: bytes, ignore_case: bool) -> None:
    index = of(pieces)
    look_at = [case_blind(piece) for piece in pieces] if ignore_case else pieces
    wanted = case_blind(fragment) if ignore_case else fragment
    expected = [i for i, piece in enumerate(look_at) if fragment and wanted in piece]
    found = index.containing(fragment, ignore_case=ignore_case)
    assert found.tolist() == expected
    assert found.dtype == np.int64
    assert overlaps(index, fragment) == overlaps_one_by_one(pieces, fragment)


@pytest.mark.parametrize("fragment", [b"h", b"ll", b"hell", b" w", b"<|im_", b"<tool>", b"\xff", b"zz", b"o"])
def test_real_vocabularies(tokenizer: Tokenizer, index: PieceIndex, fragment: bytes) -> None:
    pieces = [tokenizer.piece(i, render_special=True) for i in range(tokenizer.vocab_size)]
    assert index.containing(fragment).tolist() == [i for i, piece in enumerate(pieces) if fragment in piece]
    assert overlaps(index, fragment) == overlaps_one_by_one(pieces, fragment)
    assert index.vocab_size == len(pieces)


def test_a_hit_across_two_pieces_is_none() -> None:
    index = of([b"ab", b"cd", b"", b"bc", b"abc"])
    assert index.containing(b"bc").tolist() == [3, 4]
    assert index.containing(b"abcd").tolist() == []
    assert index.containing(b"x" * 100).tolist() == []


def test_case_counts_only_when_asked() -> None:
    index = of(["Äpfel".encode(), "äPFEL".encode(), b"apfel", b"\xc3"])
    fragment = "äpfel".encode()
    assert index.containing(fragment).tolist() == []
    assert index.containing(fragment, ignore_case=True).tolist() == [0, 1]
    # half a character: its bytes are not changed by the case of the whole
    assert index.containing(b"\xc3", ignore_case=True).tolist() == [0, 1, 3]


def test_many_threads_get_one_answer() -> None:
    index = of([b"%d" % i for i in range(2000)])
    barrier = threading.Barrier(8)
    found: list[list[int]] = []

    def search() -> None:
        barrier.wait()
        found.append(index.containing(b"99", ignore_case=True).tolist())

    threads = [threading.Thread(target=search) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[i for i in range(2000) if "99" in str(i)]] * 8


@given(st.text())
def test_lowered_keeps_the_number_of_characters(text: str) -> None:
    low = lowered(text)
    assert len(low) == len(text)
    for before, after in zip(text, low, strict=True):
        assert after == before.lower() or (after == before and len(before.lower()) > 1)


def test_lowered_by_example() -> None:
    assert lowered("STRASSE Ärger ß") == "strasse ärger ß"
    assert lowered("İstanbul") == "İstanbul"
    assert lowered("ΟΔΟΣ") == "οδοσ"
