"""Draws on the device, against the sampler of the processor with the same random numbers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.kernels import Drawing, Draws
from engine.kernels.cuda.sampling import MOST_CANDIDATES, sample
from engine.native.shortlist import Tail
from engine.sampling.candidates import BOUND, Candidates
from engine.sampling.chain import compile_chain
from engine.sampling.host_logits import HostLogits
from engine.types import SamplingParams

pytestmark = pytest.mark.triton

Row = npt.NDArray[np.float32]
PLAIN = Tail()
MOST = 40


def drawn(
    rows: Sequence[Row], cuts: Sequence[int], tails: Sequence[Tail], us: Sequence[float], device: torch.device
) -> list[int]:
    draws = Draws.of([Drawing(*each) for each in zip(cuts, tails, us, strict=True)], device)
    assert draws.most == max(cuts)
    logits = torch.from_numpy(np.stack(rows)).to(device)
    before = logits.clone()
    tokens = sample(logits, Draws(draws.table, MOST))
    assert torch.equal(logits.nan_to_num(), before.nan_to_num()), "the model's logits were changed"
    assert tokens.dtype == torch.int64
    return tokens.tolist()


def step_by_step(row: Row, cut: int, tail: Tail, u: float) -> int | None:
    """The token by the sampler's own steps; None where rounding alone decides."""
    best = HostLogits(row.copy(), np.empty_like(row)).best(cut)()
    if best is None:
        return -1
    chain = compile_chain(
        SamplingParams(
            top_p=tail.top_p,
            min_p=float(np.exp(-np.float64(tail.distance))),
            temperature=tail.temperature,
        )
    )
    narrowed: Candidates = chain.narrow(best, [])
    if tail.top_p < 1 and abs(best.probabilities().cumsum() - tail.top_p).min() < 1e-6:
        return None
    cumulative = narrowed.probabilities().cumsum()
    if abs(cumulative - u).min() < 1e-6:
        return None
    return int(narrowed.ids[min(int(cumulative.searchsorted(u)), len(cumulative) - 1)])


logits = st.one_of(
    st.floats(-20, 20, width=32),
    st.sampled_from([0.0, -0.0, 1.5, -np.inf, np.nan, np.inf, 3e38, -1e30]),
)
tails = st.builds(
    Tail,
    st.sampled_from([0.0, 0.3, 0.9, 0.999, 1.0]),
    st.sampled_from([0.0, 0.7, 3.0, np.inf]),
    st.sampled_from([0.2, 0.7, 1.0, 3.0]),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.integers(1, 60))
def test_the_token_of_the_processor(device: torch.device, data: st.DataObject, vocab: int) -> None:
    rows, cuts, given_tails, us = [], [], [], []
    for _ in range(3):
        rows.append(np.array(data.draw(st.lists(logits, min_size=vocab, max_size=vocab)), np.float32))
        cuts.append(data.draw(st.integers(1, MOST)))
        given_tails.append(data.draw(tails))
        us.append(data.draw(st.floats(0, 1, exclude_max=True)))
    found = drawn(rows, cuts, given_tails, us, device)
    expected = [
        step_by_step(*each) if -np.inf < each[0].max() <= BOUND else -1
        for each in zip(rows, cuts, given_tails, us, strict=True)
    ]
    assert found == [
        token if by_steps is None else by_steps for token, by_steps in zip(found, expected, strict=True)
    ]


def test_the_token_of_the_compiled_library(device: torch.device) -> None:
    rng = np.random.default_rng(1)
    count, vocab = 24, 3000
    rows = list((3 * rng.normal(size=(count, vocab))).astype(np.float32))
    cuts = rng.integers(1, MOST + 1, count).tolist()
    given_tails = [Tail(p, d, t) for p, d, t in zip(
        rng.uniform(0.5, 1.05, count), rng.uniform(0.5, 5, count), rng.uniform(0.3, 2, count), strict=True
    )]  # fmt: skip
    us = rng.random(count).tolist()
    scratch = np.empty(vocab, np.float32)
    expected = []
    for row, cut, tail, u in zip(rows, cuts, given_tails, us, strict=True):
        found = HostLogits(row.copy(), scratch).draw(cut, tail, u)
        if found is None:
            pytest.skip("the native library is not built")
        expected.append(int(found[0].ids[found[1]]))
    assert len(set(expected)) > 10
    assert drawn(rows, cuts, given_tails, us, device) == expected


def test_equal_logits_by_rising_id(device: torch.device) -> None:
    row = np.full(50, -1, np.float32)
    row[[9, 3, 30]] = 2.0
    us = [0.1, 0.4, 0.9]
    assert drawn([row] * 3, [3] * 3, [PLAIN] * 3, us, device) == [3, 9, 30]
    assert drawn([row] * 3, [2] * 3, [PLAIN] * 3, us, device) == [3, 3, 9]


def test_a_cut_of_one_is_greedy(device: torch.device) -> None:
    row = np.array([0.0, 5.0, 4.9, -3.0], np.float32)
    assert drawn([row], [1], [Tail(temperature=1e-6)], [0.999], device) == [1]
    assert drawn([row], [1], [PLAIN], [0.999], device) == [1]


def test_of_nothing_nothing_is_drawn(device: torch.device) -> None:
    nothing, something = np.full(5, -np.inf, np.float32), np.zeros(5, np.float32)
    assert drawn([nothing, something], [4, 4], [Tail(0.9, 1.0, 0.5), PLAIN], [0.5, 0.0], device) == [-1, 0]


@pytest.mark.parametrize("most", [0, MOST_CANDIDATES + 1])
def test_too_many_candidates_are_refused(most: int, device: torch.device) -> None:
    table = torch.ones(5, 1, dtype=torch.float64, device=device)
    with pytest.raises(ValueError, match="candidates"):
        sample(torch.zeros(1, 4, device=device), Draws(table, most))
