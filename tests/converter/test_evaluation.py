"""The report's figures against the engine's perplexity and numpy."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from converter.evaluation import Mean, Quality, Verdict, evaluate
from converter.windows import cut
from engine.batch import Batch
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError
from engine.perplexity import compare_perplexity
from engine.text import Text
from tests.converter.jobs import SIZES, TEXT, Bench, disturb, random_windows, trainable
from tests.support.gguf_files import write_llama
from tests.support.stars import write_star_model


@pytest.fixture(params=["gpt2", "llama"])
def engine(tmp_path: Path, request: pytest.FixtureRequest) -> Engine:
    base = write_llama(tmp_path / "base.gguf", tokenizer=request.param, **SIZES)
    path, _ = write_star_model(tmp_path / "star.nkat", base)
    return Engine.load(EngineConfig(path, context_length=64, device="cpu", threads=1, kernels="reference"))


def test_perplexities_are_the_engines(engine: Engine) -> None:
    windows = cut(Text("text", TEXT), engine.tokenizer, 32, most=4)
    done: list[int] = []
    found = evaluate(engine.model, "text", windows, done.append)
    *_, expected = compare_perplexity(engine, TEXT, context=32, windows=4)
    assert (found.text, found.windows, found.tokens) == ("text", 4, expected.nkat.tokens)
    assert found.before.value == pytest.approx(expected.baseline.perplexity, rel=1e-5)
    assert found.after.value == pytest.approx(expected.nkat.perplexity, rel=1e-5)
    assert found.before.error == pytest.approx(expected.baseline.error, rel=1e-3)
    assert found.after.error == pytest.approx(expected.nkat.error, rel=1e-3)
    assert found.relative == pytest.approx(expected.change, rel=1e-3)
    assert math.expm1(found.change.value) == pytest.approx(expected.change, rel=1e-3)
    assert abs(expected.change) > 1e-3
    assert done == [1, 2, 3, 4]
    assert engine.check_theta().enabled


def test_the_divergence_is_that_of_numpy(engine: Engine) -> None:
    windows = cut(Text("text", TEXT), engine.tokenizer, 24, most=2)
    odds = []
    for on in (False, True):
        engine.check_theta().enable(on)
        logits = np.concatenate(
            [engine.model(Batch.of_one(window), None)[12:-1].numpy() for window in windows]
        ).astype(np.float64)
        odds.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    each = (odds[0] * np.log(odds[0] / odds[1])).sum(axis=1)
    found = evaluate(engine.model, "text", windows)
    assert found.divergence.value == pytest.approx(each.mean(), rel=1e-3)
    assert found.divergence.error == pytest.approx(each.std(ddof=1) / math.sqrt(len(each)), rel=1e-3)
    assert found.divergence.value > 1e-4


def test_a_mean_and_its_error() -> None:
    samples = np.array([1.0, 2.0, 4.0])
    mean = Mean.of(torch.from_numpy(samples).float())
    assert (mean.value, mean.error) == pytest.approx((7 / 3, samples.std(ddof=1) / math.sqrt(3)))
    assert (mean.exp().value, mean.exp().error) == pytest.approx(
        (math.exp(7 / 3), math.exp(7 / 3) * mean.error)
    )
    assert Mean.of(torch.tensor([3.0])) == Mean(3.0, 0.0)


QUALITY = Quality("text", 1, 7, Mean(20, 1), Mean(18, 1), Mean(-0.1, 0.01), Mean(0.2, 0.01))


@pytest.mark.parametrize(
    ("change", "error", "verdict"),
    [
        (-0.3, 0.1, Verdict.BETTER),
        (0.3, 0.1, Verdict.WORSE),
        (-0.19, 0.1, Verdict.SAME),
        (0.19, 0.1, Verdict.SAME),
        (0.0, 0.0, Verdict.SAME),
    ],
)
def test_a_verdict_takes_two_standard_errors(change: float, error: float, verdict: Verdict) -> None:
    assert replace(QUALITY, change=Mean(change, error)).verdict is verdict


def test_notes_hold_both_perplexities_with_their_errors() -> None:
    notes = QUALITY.notes()
    assert (notes["ppl_before"], notes["ppl_before_error"]) == (20, 1)
    assert (notes["ppl_after"], notes["ppl_after_error"]) == (18, 1)
    assert (notes["kl"], notes["kl_error"], notes["verdict"]) == (0.2, 0.01, "better")
    assert QUALITY.relative == pytest.approx(-0.1)


def test_predictions_that_are_no_numbers_are_no_result(bench: Bench) -> None:
    model = trainable(bench.base)
    disturb(model, 1e30)
    with pytest.raises(ConfigError, match="with theta the model's predictions on text are not finite"):
        evaluate(model.model, "text", random_windows(1, 16))
