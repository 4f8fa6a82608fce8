"""Rows on the processor and on a device: the same answers, from the definitions."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.native.shortlist import Tail
from engine.sampling.bitmask import unpack
from engine.sampling.candidates import BOUND, Candidates
from engine.sampling.device_logits import DeviceLogits
from engine.sampling.row import NotFiniteError
from engine.sampling.vocabulary_logits import VocabularyLogits
from tests.engine.sampling.rows import host

Make = Callable[[list[float]], VocabularyLogits]


def device(values: list[float]) -> DeviceLogits:
    return DeviceLogits.of(torch.tensor(values))


both = pytest.mark.parametrize("make", [host, device])
rows = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=80)
few_values = st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, -math.inf]), min_size=1, max_size=80).filter(
    lambda values: max(values) > -math.inf
)


def ranked(values: list[float]) -> list[int]:
    possible = [i for i, value in enumerate(values) if value > -math.inf]
    return sorted(possible, key=lambda i: (-values[i], i))


def listed(candidates: Candidates | None) -> tuple[list[int], list[float]]:
    return ([], []) if candidates is None else (candidates.ids.tolist(), candidates.logits.tolist())


@both
@settings(max_examples=150, deadline=None)
@given(rows, st.integers(1, 100))
def test_best_are_the_largest(make: Make, values: list[float], count: int) -> None:
    expected = ranked(values)[:count]
    ids, logits = listed(make(values).best(count)())
    assert logits == [values[i] for i in expected]
    if len(set(values)) == len(values):
        assert ids == expected


@settings(max_examples=150, deadline=None)
@given(few_values, st.integers(1, 100))
def test_of_equal_ones_the_first_are_best(values: list[float], count: int) -> None:
    assert listed(host(values).best(count)())[0] == ranked(values)[:count]


@both
@settings(max_examples=100, deadline=None)
@given(rows, st.integers(1, 100), st.floats(0, 30, width=32))
def test_best_within_a_distance(make: Make, values: list[float], count: int, within: float) -> None:
    largest = max(values)
    least = float(np.float32(largest) - np.float32(within))
    expected = [values[i] for i in ranked(values)[:count] if values[i] >= least]
    assert listed(make(values).best(count, within)())[1] == expected


@both
@pytest.mark.parametrize("count", [2, 3])
def test_exactly_at_the_distance(make: Make, count: int) -> None:
    within = np.float32(1.3)
    least = np.float32(3) - within
    below = np.nextafter(least, np.float32(-9))
    found = make([float(least), 3.0, float(below), -1.0]).best(count, float(within))()
    assert listed(found)[0] == [1, 0]


@pytest.mark.parametrize("count", [2, 100, 3000])
@pytest.mark.parametrize("size", [999, 1024, 50_021])
def test_best_of_many(count: int, size: int) -> None:
    # falling, rising and shuffled: the groups that are looked at first must not favour one
    noise = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    for values in (noise, np.sort(noise), np.sort(noise)[::-1].copy(), np.repeat(noise[: size // 9], 10)):
        found = host(values).best(count)()
        assert found is not None
        expected = np.argsort(-values, kind="stable")[:count]
        assert found.ids.tolist() == expected.tolist()
        assert found.logits.tolist() == values[expected].tolist()


@both
def test_a_copy_changes_alone(make: Make) -> None:
    original = make([1.0, 2.0, 3.0])
    copy = original.copy()
    copy.add(np.array([0]), np.array([5.0], np.float32))
    copy.exclude(np.array([2]))
    assert copy.take(np.arange(3)).tolist() == [6.0, 2.0, -math.inf]
    assert original.take(np.arange(3)).tolist() == [1.0, 2.0, 3.0]
    assert (original.vocab_size, copy.vocab_size) == (3, 3)


@both
def test_penalties_divide_what_is_positive(make: Make) -> None:
    logits = make([2.0, -2.0, 0.0, 4.0, -math.inf])
    ids = np.array([0, 1, 2, 4])
    logits.penalise(ids, np.full(4, 2.0, np.float32), np.array([0.5, 0, 1, 1], np.float32))
    assert logits.take(np.arange(5)).tolist() == [0.5, -4.0, -1.0, 4.0, -math.inf]


@both
def test_a_mask_leaves_what_it_allows(make: Make) -> None:
    values = [float(i) for i in range(70)]
    allowed = np.array([1 << 31 | 1 << 3, 1 << 1, 1 << 5], np.uint32)
    logits = make(values)
    logits.restrict(allowed)
    assert listed(logits.best(70)())[0] == [69, 33, 31, 3]
    short = make(values)
    short.restrict(allowed[:1])
    assert listed(short.best(70)())[0] == [31, 3]


@given(st.sets(st.integers(0, 99)), st.integers(1, 100))
def test_a_mask_is_its_bits(tokens: set[int], size: int) -> None:
    words = np.array([sum(1 << t % 32 for t in tokens if t // 32 == word) for word in range(4)], np.uint32)
    assert np.flatnonzero(unpack(words, size)).tolist() == sorted(t for t in tokens if t < size)


@both
@given(rows)
def test_log_total_is_that_of_the_softmax(make: Make, values: list[float]) -> None:
    expected = max(values) + math.log(sum(math.exp(value - max(values)) for value in values))
    assert make(values).log_total() == pytest.approx(expected, abs=1e-5)


DAMAGED = (
    [math.nan, 1.0, 2.0],
    [1.0, 2.0, math.nan],
    [1.0] * 40 + [math.nan] + [2.0] * 40,
    [1.0, math.inf, 2.0],
    [1.0, 3e38, 2.0],
    [-math.inf] * 9,
)
USES: dict[str, Callable[[VocabularyLogits], object]] = {
    "the best": lambda logits: logits.best(1)(),
    "some": lambda logits: logits.best(4)(),
    "many": lambda logits: logits.best(600)(),
    "near ones": lambda logits: logits.best(4, within=1.0)(),
    "one": lambda logits: logits.take(np.array([1])),
    "total": lambda logits: logits.log_total(),
    "a copy's": lambda logits: logits.copy().best(4)(),
}


@both
@pytest.mark.parametrize("values", DAMAGED, ids=range(len(DAMAGED)))
@pytest.mark.parametrize("use", USES)
def test_nothing_comes_of_damaged_values(make: Make, values: list[float], use: str) -> None:
    with pytest.raises(NotFiniteError):
        USES[use](make(values))


@pytest.mark.parametrize("values", DAMAGED, ids=range(len(DAMAGED)))
def test_nothing_is_drawn_at_once_from_damaged_values(values: list[float]) -> None:
    assert host(values).draw(4, Tail(), 0.5) is None


@both
def test_what_the_model_excludes_is_no_damage(make: Make) -> None:
    ids, logits = listed(make([-math.inf, 1.0, -math.inf, -BOUND]).best(4)())
    assert ids == [1, 3]
    assert logits == pytest.approx([1.0, -BOUND])


@both
def test_nothing_is_left_of_nothing(make: Make) -> None:
    logits = make([0.0] * 9).copy()
    logits.exclude(np.arange(9))
    assert logits.best(1)() is None
    assert logits.best(4)() is None
    assert logits.best(4, within=1.0)() is None
