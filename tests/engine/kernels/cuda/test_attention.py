"""Attention over the paged cache, for a few rows and for many, against double precision."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.kernels.cuda.attention import MAX_SPLITS, Scoring, context_splits, decode_attention
from engine.kernels.cuda.prefill import prefill_attention
from engine.kv_cache import CacheFormat
from tests.engine.kernels.cuda.paged import Array, Paged, as_rope_gives, oracle, paged, random

pytestmark = pytest.mark.triton

TOLERANCE = 4e-3
"""Of values around 1: weights and what is read of the cache are rounded to half precision."""
HEAD_DIMS = (64, 80, 96, 128, 256)

examples = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
groups = st.sampled_from([(1, 1), (3, 2), (4, 1), (7, 1)])
"""Query heads of a KV head, and KV heads."""
scorings = st.builds(
    Scoring,
    st.sampled_from([0.1, 0.3]),
    window=st.sampled_from([None, None, 1, 5, 40]),
    softcap=st.sampled_from([None, None, 0.5, 30.0]),
)
pages = st.sampled_from([1, 16, 32])
formats = st.sampled_from(CacheFormat)


def sequences(rows: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[int, int]]]:
    """(rows, length): contexts go on in front of the rows, or not, and dummies have no length."""
    usual = st.tuples(rows, st.sampled_from([0, 1, 15, 16, 63, 64, 100]))
    dummy = st.just((1, 0))
    return st.lists(usual.map(lambda it: (it[0], it[0] + it[1])) | dummy, min_size=1, max_size=2)


def decoded(queries: torch.Tensor, it: Paged, scoring: Scoring, processors: int = 1) -> Array:
    given = as_rope_gives(queries, it.layer.format)
    found = decode_attention(given, it.layer, it.pages, scoring, processors)
    assert found.dtype == torch.float32
    return found.cpu().double().numpy()


def prefilled(queries: torch.Tensor, it: Paged, scoring: Scoring) -> Array:
    found = prefill_attention(as_rope_gives(queries, it.layer.format), it.layer, it.pages, scoring)
    assert found.dtype == torch.float32
    return found.cpu().double().numpy()


@pytest.mark.parametrize("format", CacheFormat)
@pytest.mark.parametrize("dim", HEAD_DIMS)
def test_head_sizes(format: CacheFormat, dim: int, device: torch.device) -> None:
    it = paged([(2, 70)], format=format, kv_heads=1, key_dim=dim, value_dim=dim, page=16, device=device)
    queries = random(9, it.rows, 2, dim).to(device)
    scoring = Scoring(dim**-0.5)
    expected = oracle(queries, it, scoring)
    np.testing.assert_allclose(decoded(queries, it, scoring), expected, atol=TOLERANCE)
    np.testing.assert_allclose(prefilled(queries, it, scoring), expected, atol=TOLERANCE)


@examples
@given(
    sequences(st.sampled_from([1, 1, 2, 5, 8])),
    groups,
    pages,
    formats,
    scorings,
    st.sampled_from([1, 6]),
    st.integers(0, 99),
)
def test_decode(
    device: torch.device,
    sequences: list[tuple[int, int]],
    heads: tuple[int, int],
    page: int,
    format: CacheFormat,
    scoring: Scoring,
    processors: int,
    seed: int,
) -> None:
    group, kv_heads = heads
    it = paged(
        sequences,
        format=format,
        kv_heads=kv_heads,
        key_dim=32,
        value_dim=48,
        page=page,
        device=device,
        seed=seed,
    )
    queries = random(seed, it.rows, group * kv_heads, 32).to(device)
    found = decoded(queries, it, scoring, processors)
    np.testing.assert_allclose(found, oracle(queries, it, scoring), atol=TOLERANCE)


@examples
@given(sequences(st.sampled_from([1, 2, 17, 40, 140])), groups, pages, formats, scorings, st.integers(0, 99))
def test_prefill(
    device: torch.device,
    sequences: list[tuple[int, int]],
    heads: tuple[int, int],
    page: int,
    format: CacheFormat,
    scoring: Scoring,
    seed: int,
) -> None:
    group, kv_heads = heads
    it = paged(
        sequences,
        format=format,
        kv_heads=kv_heads,
        key_dim=32,
        value_dim=48,
        page=page,
        device=device,
        seed=seed,
    )
    queries = random(seed, it.rows, group * kv_heads, 32).to(device)
    found = prefilled(queries, it, scoring)
    np.testing.assert_allclose(found, oracle(queries, it, scoring), atol=TOLERANCE)


def test_rows_of_no_sequence_are_zeros(device: torch.device) -> None:
    it = paged(
        [(1, 20)], format=CacheFormat.F16, kv_heads=1, key_dim=32, value_dim=32, page=16, device=device
    )
    queries = random(1, 3, 2, 32).half().to(device)
    found = decode_attention(queries, it.layer, it.pages, Scoring(0.2), processors=8)
    assert found[0].abs().min() > 0
    assert not found[1:].any()


def test_large_scores_do_not_overflow(device: torch.device) -> None:
    it = paged(
        [(2, 80)], format=CacheFormat.F16, kv_heads=1, key_dim=32, value_dim=32, page=16, device=device
    )
    queries = 1000 * random(1, 2, 2, 32).to(device)
    scoring = Scoring(1.0)
    expected = oracle(queries.half(), it, scoring)
    np.testing.assert_allclose(decoded(queries, it, scoring), expected, atol=TOLERANCE)
    np.testing.assert_allclose(prefilled(queries, it, scoring), expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("programs", "processors", "splits"),
    [(8, 132, 32), (32, 132, 8), (64, 132, 4), (512, 132, 1), (1, 132, MAX_SPLITS), (8, 1, 1)],
)
def test_splits_fill_the_card_and_no_more(programs: int, processors: int, splits: int) -> None:
    assert context_splits(programs, processors) == splits
