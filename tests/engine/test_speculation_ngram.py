"""Where an n-gram look-up finds its drafts, and how long they may be."""

import random
from collections.abc import Sequence as Tokens

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sequence import Sequence
from engine.speculation.draft_length import DraftLength
from engine.speculation.ngram_drafter import NgramDrafter
from engine.speculation.ngram_index import LONGEST, SHORTEST, NgramIndex
from engine.types import GenerationRequest, TokenPrompt
from tests.support.work import lines_run

texts = st.lists(st.integers(0, 3), max_size=60)


def index_of(tokens: Tokens[int]) -> NgramIndex:
    index = NgramIndex()
    index.extend(tokens)
    return index


def expected(tokens: Tokens[int], count: int) -> list[int]:
    """The definition, word for word."""
    best, place = 0, -1
    for end in range(len(tokens) - 1):
        length = 0
        while length < min(LONGEST, end + 1) and tokens[end - length] == tokens[len(tokens) - 1 - length]:
            length += 1
        if length >= best:
            best, place = length, end
    if best < SHORTEST:
        return []
    grown = list(tokens)
    for _ in range(count):
        place += 1
        grown.append(grown[place])
    return grown[len(tokens) :]


@given(texts, st.integers(1, 12))
def test_the_longest_agreement_counts_and_of_several_the_latest(tokens: list[int], count: int) -> None:
    assert index_of(tokens).continuation(count) == expected(tokens, count)


@pytest.mark.parametrize(
    ("tokens", "draft"),
    [
        ([], []),
        ([1], []),
        ([1, 1], []),
        ([1, 2, 3, 4, 2], []),
        ([1, 2, 3, 4, 1, 2], [3, 4, 1, 2]),
        ([1, 2, 9, 1, 2, 8, 1, 2], [8, 1, 2, 8]),
        ([7, 1, 2, 9, 6, 1, 2, 8, 7, 1, 2], [9, 6, 1, 2]),
        ([5, 1, 1, 1], [1, 1, 1, 1]),
    ],
)
def test_what_follows(tokens: list[int], draft: list[int]) -> None:
    assert index_of(tokens).continuation(4) == draft


@given(st.lists(st.tuples(st.integers(0, 50), texts), max_size=8))
def test_an_index_that_grows_and_goes_back_is_a_new_one(changes: list[tuple[int, list[int]]]) -> None:
    index, tokens = NgramIndex(), list[int]()
    for size, more in changes:
        index.truncate(size)
        tokens = tokens[:size] + more
        index.extend(more)
        assert (len(index), index.tokens) == (len(tokens), tokens)
        assert index.continuation(5) == index_of(tokens).continuation(5)


def test_a_long_text_is_not_searched_from_end_to_end() -> None:
    rng = random.Random(1)
    index = index_of([min(rng.randrange(1, 400), rng.randrange(1, 400)) for _ in range(4096)])

    def go_on() -> None:
        index.extend([rng.randrange(1, 20)])
        index.continuation(8)

    assert max(lines_run(go_on) for _ in range(200)) < 400


def sequence(name: str, tokens: Tokens[int]) -> Sequence:
    return Sequence.from_request(GenerationRequest(name, TokenPrompt(tuple(tokens)), 8))


def test_a_drafter_follows_each_sequence_for_itself() -> None:
    drafter = NgramDrafter()
    one, other = sequence("one", [1, 2, 3, 1, 2]), sequence("other", [4, 5, 6, 4, 5])
    assert drafter.draft([(one, 2), (other, 3)]) == [[3, 1], [6, 4, 5]]
    one.tokens += [3, 8, 1, 2]
    assert drafter.draft([(one, 3)]) == [[3, 8, 1]]
    one.take_back(4)
    drafter.take_back(one)
    one.tokens += [9, 1, 2]
    # of the places with [1, 2] the latest is the one in front of the 9
    assert drafter.draft([(one, 3)]) == [[9, 1, 2]]
    drafter.check_integrity({"one": one, "other": other})
    drafter.forget(one)
    drafter.forget(one)
    drafter.check_integrity({"other": other})
    with pytest.raises(AssertionError, match="left behind"):
        drafter.check_integrity({})
    other.tokens[2] = 9
    with pytest.raises(AssertionError, match="other tokens"):
        drafter.check_integrity({"other": other})


def test_drafts_grow_while_they_are_right_and_shrink_when_not() -> None:
    length = DraftLength(16, 0.25)
    assert length.next() == 4
    found = []
    for accepted in (4, 8, 16, 16, 5, 3):
        length.learn(length.next(), accepted)
        found.append(length.next())
    assert found == [8, 16, 16, 16, 6, 4]


def test_a_limit_below_the_first_length() -> None:
    length = DraftLength(2, 0.25)
    length.learn(length.next(), 2)
    assert length.next() == 2


def test_drafts_stop_when_they_are_wrong_and_are_tried_again() -> None:
    length = DraftLength(8, 0.25)
    drafts = []
    for _ in range(600):
        count = length.next()
        drafts.append(count)
        if count:
            length.learn(count, 0)
    # a few to learn it, then one token now and then, ever more rarely
    first_pause = drafts.index(0)
    assert first_pause <= 5
    assert max(drafts[first_pause:]) == 1
    assert sum(drafts[first_pause:]) <= 6
    pauses = [gap for gap in "".join(map(str, drafts[first_pause:])).split("1") if gap]
    assert [len(gap) for gap in pauses[:4]] == [16, 32, 64, 128]


def test_one_right_guess_after_a_pause_brings_drafts_back() -> None:
    length = DraftLength(8, 0.25)
    while count := length.next():
        length.learn(count, 0)
    while not (count := length.next()):
        pass
    length.learn(count, 1)
    found = []
    for _ in range(3):
        found.append(length.next())
        length.learn(found[-1], found[-1])
    assert found == [2, 4, 8]


@pytest.mark.parametrize(("worth", "stops"), [(0.45, False), (0.55, True)])
def test_a_half_that_is_right_is_worth_it_or_not(worth: float, stops: bool) -> None:
    length = DraftLength(2, worth)
    drafts = []
    for _ in range(100):
        drafts.append(length.next())
        if drafts[-1]:
            length.learn(2, 1)
    assert (0 in drafts) == stops


@given(st.integers(1, 64), st.lists(st.integers(0, 64), max_size=80))
def test_lengths_keep_their_limits(most: int, fates: list[int]) -> None:
    length = DraftLength(most, 0.25)
    for fate in fates:
        count = length.next()
        assert 0 <= count <= most
        if count:
            length.learn(count, min(count, fate))
