import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.suffix_matches import SuffixMatches, suffix_lengths
from tests.support.work import lines_run

contexts = st.lists(st.integers(0, 2), min_size=1, max_size=40)


def one_by_one(tokens: list[int]) -> list[int]:
    lengths = []
    for j in range(len(tokens)):
        k = 0
        while k <= j and tokens[j - k] == tokens[-1 - k]:
            k += 1
        lengths.append(k)
    return lengths


@given(contexts)
def test_lengths_are_the_definition(tokens: list[int]) -> None:
    assert suffix_lengths(np.array(tokens, np.int32)).tolist() == one_by_one(tokens)


def test_nothing_has_no_lengths() -> None:
    assert suffix_lengths(np.empty(0, np.int32)).tolist() == []
    window, lengths = SuffixMatches(5).update([])
    assert (window.tolist(), lengths.tolist()) == ([], [])


@settings(max_examples=200, deadline=None)
@given(
    contexts,
    st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 2), max_size=40)), max_size=12),
    st.integers(-1, 12),
)
def test_a_context_may_grow_and_go_back(
    tokens: list[int], changes: list[tuple[int, list[int]]], window: int
) -> None:
    matches = SuffixMatches(window)
    for back, more in [(0, []), *changes]:
        tokens = tokens[: len(tokens) - back] + more or [0]
        looked_at = tokens if window <= 0 else tokens[-window:]
        found, lengths = matches.update(tokens)
        assert found.tolist() == looked_at
        assert lengths.tolist() == one_by_one(looked_at)


@pytest.mark.parametrize("window", [0, 7, 100])
def test_token_by_token_for_long(window: int) -> None:
    rng = random.Random(window)
    matches, tokens = SuffixMatches(window), [0]
    for _ in range(400):
        tokens.append(rng.randrange(3))
        found, lengths = matches.update(tokens)
        looked_at = tokens if window <= 0 else tokens[-window:]
        assert found.tolist() == looked_at
        assert lengths.tolist() == one_by_one(looked_at)


def test_a_change_far_back_is_noticed() -> None:
    matches = SuffixMatches(0)
    matches.update([1, 2, 1, 2])
    _, lengths = matches.update([5, 2, 1, 2, 1])
    assert lengths.tolist() == one_by_one([5, 2, 1, 2, 1])


def test_one_more_token_of_a_long_monotonous_context_is_cheap() -> None:
    # each length depends on all before it: looked for place by place this would be 5 * 10^8 comparisons,
    # and a visit of each place 32,768 of them
    tokens = [1] * 32_768
    matches = SuffixMatches(0)
    matches.update(tokens)
    for _ in range(20):
        tokens.append(1)
        assert lines_run(lambda: matches.update(tokens)) < 200
    _, lengths = matches.update(tokens)
    assert lengths.tolist() == list(range(1, len(tokens) + 1))
