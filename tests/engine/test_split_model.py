"""Engines with a model in stages against engines with the same model as a whole.

With the native kernels on both sides of a cut nothing may differ by a bit.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.writer import write_nkat
from engine.batch import Batch
from engine.engine import Engine
from engine.gguf import open_gguf
from engine.theta.names import corrected_tensor
from engine.types import SamplingParams
from tests.converter.thetas import random_factors, random_theta
from tests.engine.driving import request, run
from tests.engine.models.numpy_llama import NumpyLlama
from tests.engine.splitting import Stages, engines, kernels, split_model
from tests.engine.test_lookahead import DrawingKernels
from tests.support.gguf_files import write_llama
from tests.support.kernels import FASTEST_AND_REFERENCE
from tests.support.stars import write_star_model

FASTEST = FASTEST_AND_REFERENCE[0]
DRAWN = SamplingParams(temperature=1.5, seed=7)
PROMPTS = [[Random(seed).randrange(3, 250) for _ in range(60 + 9 * seed)] for seed in range(3)]


def two() -> Stages:
    return [(kernels(FASTEST), 1), (kernels(FASTEST), 2)]


def only_the_output_elsewhere() -> Stages:
    return [(kernels(FASTEST), 3), (kernels(FASTEST), 0)]


def three() -> Stages:
    return [(kernels(FASTEST), 1), (kernels(FASTEST), 1), (kernels(FASTEST), 1)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    return write_llama(folder / "base.gguf", n_layers=3, bias=True, context_length=512)


@pytest.fixture(scope="module")
def star(base: Path) -> Path:
    return write_star_model(base.with_suffix(".nkat"), base)[0]


@pytest.mark.parametrize("stages", [two, only_the_output_elsewhere, three])
def test_replies_are_those_of_the_whole_model(base: Path, stages: Callable[[], Stages]) -> None:
    replies = []
    for engine in engines(base, stages, FASTEST, token_budget=32):
        wanted = [request(str(number), prompt, 20, DRAWN) for number, prompt in enumerate(PROMPTS)]
        first = run(engine, wanted)
        again = run(engine, [request("again", PROMPTS[2], 20, DRAWN)])["again"]
        assert again.usage is not None
        assert again.usage.cached_tokens > 0
        replies.append([reply.tokens for reply in (*first.values(), again)])
    assert replies[0] == replies[1]
    assert len({token for reply in replies[0] for token in reply}) > 4, "the replies must say something"


def test_steps_ahead_on_kernels_that_draw_are_those_of_the_whole_model(base: Path) -> None:
    """The last stage draws, and the first one takes its tokens before the host knows them."""

    def last_draws() -> Stages:
        return [(kernels("reference"), 1), (DrawingKernels(), 2)]

    whole, split = engines(base, last_draws, "reference")
    assert split.kernels.draws
    assert not whole.kernels.draws
    wanted = [request(str(number), prompt, 20, DRAWN) for number, prompt in enumerate(PROMPTS)]
    replies = [[reply.tokens for reply in run(engine, wanted).values()] for engine in (whole, split)]
    assert replies[0] == replies[1]


@settings(max_examples=15, deadline=None)
@given(
    text=st.lists(st.integers(3, 249), min_size=2, max_size=90),
    cut=st.sampled_from([two, only_the_output_elsewhere, three]),
)
def test_likelihoods_and_vectors_are_those_of_the_whole_model(
    base: Path, text: list[int], cut: Callable[[], Stages]
) -> None:
    whole, split = engines(base, cut, FASTEST)
    assert torch.equal(whole.log_likelihoods(text, 1), split.log_likelihoods(text, 1))
    assert whole.embed(text) == split.embed(text)


def test_stages_of_different_kernels(base: Path) -> None:
    """The native kernels in front, the reference behind: close to exact arithmetic, as either of them is."""
    model = split_model(base, [(kernels(FASTEST), 2), (kernels("reference"), 1)])
    assert model.kernels.name == "+".join(FASTEST_AND_REFERENCE)
    assert model.kernels.place == "cpu=2,cpu=1"
    found = model(Batch.of_one(torch.tensor(PROMPTS[0])), None).numpy()
    expected = NumpyLlama(base).logits(PROMPTS[0])
    np.testing.assert_allclose(found, expected, atol=0.03 * float(np.abs(expected).max()))


@pytest.mark.parametrize("tied", [True, False])
def test_one_matrix_is_packed_for_both_ends(tied: bool, tmp_path: Path) -> None:
    """The embedding is read by the first kernels, the output by the last; other kernels refuse it."""
    path = write_llama(tmp_path / "model.gguf", tied=tied, type="F32")
    model = split_model(path, [(kernels("reference"), 1), (kernels(FASTEST), 1)])
    ids = PROMPTS[0][:12]
    found = model(Batch.of_one(torch.tensor(ids)), None).numpy()
    expected = NumpyLlama(path).logits(ids)
    np.testing.assert_allclose(found, expected, atol=5e-3 * float(np.abs(expected).max()))


def test_theta_of_a_matrix_for_both_ends_is_the_outputs(tmp_path: Path) -> None:
    base, embedding = write_llama(tmp_path / "tied.gguf", n_layers=3), "token_embd.weight"
    path = tmp_path / "tied.nkat"
    with open_gguf(base) as file:
        write_nkat(file, random_theta(file, [embedding]), path)
    whole, split = engines(path, only_the_output_elsewhere, FASTEST)
    for engine in (whole, split):
        assert list(engine.check_theta().layers) == [embedding]
    ids = PROMPTS[0]
    found = split.log_likelihoods(ids, 1)
    assert torch.equal(found, whole.log_likelihoods(ids, 1))
    split.set_theta(enabled=False)
    assert not torch.equal(split.log_likelihoods(ids, 1), found)


def test_blocks_one_by_one_are_all_of_them(base: Path) -> None:
    model = split_model(base, two())
    batch = Batch.of_one(torch.tensor(PROMPTS[0]))
    x = model.embed(batch.token_ids)
    for number in range(3):
        x = model.block(number, x, batch, None)
    assert torch.equal(model.logits(x), model(batch, None))


def state(engine: Engine) -> torch.Tensor:
    return engine.log_likelihoods(PROMPTS[0], 1)


def test_theta_is_switched_weakened_and_replaced_in_all_stages(star: Path) -> None:
    found: list[list[torch.Tensor]] = []
    for engine in engines(star, three, FASTEST):
        theta = engine.check_theta()
        shapes = {name: (layer.u.shape[1], layer.v.shape[1]) for name, layer in theta.layers.items()}
        assert {name[:5] for name in shapes} == {"blk.0", "blk.1", "blk.2"}
        seen = [state(engine)]
        engine.set_theta(gamma=0.3)
        seen.append(state(engine))
        engine.set_theta(enabled=False)
        engine.replace_theta({name: random_factors(shape, 2, 5) for name, shape in shapes.items()}, 0.9)
        seen.append(state(engine))
        engine.set_theta(enabled=True)
        seen.append(state(engine))
        found.append(seen)
    whole, split = found
    assert all(torch.equal(one, other) for one, other in zip(whole, split, strict=True))
    assert not any(torch.equal(one, other) for one, other in pairwise(whole))
    assert all(corrected_tensor(name) is None for name in shapes)


def test_a_chat_that_loses_its_middle_goes_on_as_in_the_whole_model(base: Path) -> None:
    rng = Random(4)
    head, gone, tail = ([rng.randrange(3, 250) for _ in range(length)] for length in (48, 64, 240))
    said = []
    for engine in engines(base, two, FASTEST, context_length=512):
        run(engine, [request("long", head + gone + tail, 8)])
        reply = run(engine, [request("short", head + tail, 12, DRAWN)])["short"]
        assert engine.snapshot().prompt_tokens_shifted >= 200
        said.append(reply.tokens)
    assert said[0] == said[1]
