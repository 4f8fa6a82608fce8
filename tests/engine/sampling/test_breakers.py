"""Breaker sequences against their definition, over all tokens of small vocabularies."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.sampling import breakers
from engine.sampling.breakers import MAX_BREAKERS, MAX_BYTES, MAX_TAIL, BreakerCompiler, Breakers
from engine.tokenizer import Tokenizer
from engine.tokenizer.piece_index import PieceIndex

PIECES = ["a", "b", "ab", "ba", "aab", "\n", ":\n", "x:", "ä", "äb", " ", "bab\n", "<|end|>", "\udcc3"]
"""The last is the first byte of ä alone."""


class Letters:
    """Pieces of which text takes the longest that fits; a character without a piece is lost."""

    vocab_size = len(PIECES)

    def piece(self, token_id: int, *, render_special: bool) -> bytes:
        return PIECES[token_id].encode(errors="surrogateescape")

    def encode(self, text: str, *, add_bos: bool) -> list[int]:
        assert not add_bos
        ids = []
        while text:
            fitting = [i for i, piece in enumerate(PIECES) if text.startswith(piece)]
            best = max(fitting, key=lambda i: len(PIECES[i]), default=None)
            if best is not None:
                ids.append(best)
            text = text[1 if best is None else len(PIECES[best]) :]
        return ids


@pytest.fixture(scope="module")
def compiler() -> BreakerCompiler:
    letters: Any = Letters()
    return BreakerCompiler(letters, PieceIndex(letters))


def sequences(string: str) -> set[tuple[int, ...]]:
    """Every breaker sequence of a string, token by token."""
    found: set[tuple[int, ...]] = set()
    for token, piece in enumerate(PIECES):
        if string in piece:
            found.add((token,))
        for end in range(1, len(string)):
            if piece.endswith(string[:end]) and any(c.isascii() for c in string):
                tail = Letters().encode(string[end:], add_bos=False)[:MAX_TAIL]
                if tail:
                    found.add((token, *tail))
    return found


def spelt(found: Breakers) -> set[tuple[int, ...]]:
    """The sequences that compiled breakers hold."""
    every: set[tuple[int, ...]] = {(token,) for token in np.flatnonzero(found.alone).tolist()}

    def walk(trie: Any, so_far: tuple[int, ...]) -> None:
        for token, below in trie.items():
            if token == -1:
                every.add(so_far)
            else:
                walk(below, (*so_far, token))

    for head, tail in zip(found.head_ids.tolist(), found.head_tails.tolist(), strict=True):
        walk(found.tails[tail], (head,))
    return every


strings = st.lists(st.text(st.sampled_from("ab:\näx"), min_size=1, max_size=6), max_size=4)


@settings(max_examples=200, deadline=None)
@given(given_strings=strings)
@example(given_strings=["ää", "äbä"])
def test_sequences_are_the_definition(compiler: BreakerCompiler, given_strings: list[str]) -> None:
    found = compiler.compile(given_strings)
    expected = set().union(*(sequences(string) for string in given_strings))
    assert spelt(found) == expected
    assert set(np.flatnonzero(found.heads).tolist()) == {s[0] for s in expected if len(s) > 1}
    assert set(np.flatnonzero(found.seconds).tolist()) == {s[1] for s in expected if len(s) > 1}


@settings(max_examples=200, deadline=None)
@example(given_strings=["a", "a:\n"], window=[0, 6, 1])
@example(given_strings=["a:\n", "a:\nb"], window=[0, 6, 1, 10])
@given(given_strings=strings, window=st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=30))
def test_the_limit_is_behind_the_last_sequence(
    compiler: BreakerCompiler, given_strings: list[str], window: list[int]
) -> None:
    every = set().union(*(sequences(string) for string in given_strings))
    expected = len(window)
    for i in range(len(window)):
        place = len(window) - 1 - i
        tails = [len(s) - 1 for s in every if tuple(window[place : place + len(s)]) == s]
        if tails:
            expected = i - max(tails)
            break
    assert compiler.compile(given_strings).limit(np.array(window, np.int32)) == expected


def test_a_breaker_far_back_is_found(compiler: BreakerCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    # ":\n" lies across the border between two of the parts that are looked at
    monkeypatch.setattr(breakers, "_LOOKED_AT", 4)
    found = compiler.compile([":\n"])
    for behind in range(12):
        window = [0, 0, 7, 5] + [0] * behind
        assert found.limit(np.array(window, np.int32)) == behind
    assert found.limit(np.array([0] * 9, np.int32)) == 9


def test_special_tokens_break(compiler: BreakerCompiler) -> None:
    assert spelt(compiler.compile(["<|end|>"])) == {(12,)}


def test_only_so_much_counts(compiler: BreakerCompiler) -> None:
    many = ["q"] * MAX_BREAKERS
    assert not compiler.compile([*many, "a"]).alone.any()
    assert compiler.compile([*many[1:], "a"]).alone.any()
    long = compiler.compile(["b" + "\n" * 100])
    assert max(map(len, spelt(long))) == 1 + MAX_TAIL
    # what lies behind the limit makes no difference, and no character is cut in two
    cut = "x" * (MAX_BYTES - 1)
    assert spelt(compiler.compile([cut + "ä"])) == spelt(compiler.compile([cut]))


def test_odd_strings_are_harmless(compiler: BreakerCompiler) -> None:
    assert spelt(compiler.compile(["", "\ud800", "\x00"])) == set()


def test_the_same_strings_are_compiled_once(compiler: BreakerCompiler) -> None:
    assert compiler.compile(["a", "b"]) is compiler.compile(["a", "", "b", "a"])


def test_a_real_vocabulary(gpt2_tokenizer: Tokenizer) -> None:
    found = BreakerCompiler(gpt2_tokenizer, PieceIndex(gpt2_tokenizer)).compile(["\n", "<|im_start|>"])
    newline = gpt2_tokenizer.encode("\n", add_bos=False)
    start = gpt2_tokenizer.encode("<|im_start|>", add_bos=False)
    assert len(newline) == len(start) == 1
    assert found.alone[newline[0]]
    assert found.alone[start[0]]
    text = gpt2_tokenizer.encode("one\ntwo", add_bos=False)
    behind = len(gpt2_tokenizer.encode("two", add_bos=False))
    assert found.limit(np.array(text, np.int32)) == behind
