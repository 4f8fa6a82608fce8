"""The reports: their figures against those that the parts give, and what is null when."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.bench_report import BenchPlan, run_bench, run_compare
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError, RequestError
from engine.perplexity import compare_perplexity, measure_perplexity
from engine.text import Text
from engine.theta import Theta
from engine.theta.score import tpe, tpe_class
from tests.engine.models.numpy_llama import NumpyLlama
from tests.support.stars import write_star_model

TEXT = Text("text.txt", "The hello world and the world is to hello of a thing. " * 8)
PLAN = BenchPlan(seq_len=20, new_tokens=4, iterations=2, text=TEXT, windows=3, context=16)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> tuple[Path, Theta]:
    return write_star_model(tiny_model.with_name("report.nkat"), tiny_model)


def load(path: Path, **others: Any) -> Engine:
    return Engine.load(EngineConfig(path, context_length=64, device="cpu", threads=1, **others))


def silent(name: str, done: int, total: int) -> None:
    """Nobody looks at the progress."""


def test_both_perplexities_and_their_difference(tiny_model: Path, model: tuple[Path, Theta]) -> None:
    engine = load(model[0])
    *_, pair = compare_perplexity(engine, TEXT.content, context=16, windows=3)
    assert engine.star is not None
    assert engine.star.enabled
    *_, nkat = measure_perplexity(engine, TEXT.content, context=16, windows=3)
    *_, baseline = measure_perplexity(load(tiny_model), TEXT.content, context=16, windows=3)
    assert pair.nkat == nkat
    assert pair.baseline == baseline
    assert pair.change == pytest.approx(nkat.perplexity / baseline.perplexity - 1, rel=1e-9)


def test_the_error_of_the_change_is_that_of_the_paired_differences(
    tiny_model: Path, model: tuple[Path, Theta]
) -> None:
    oracle, plain = NumpyLlama(tiny_model), NumpyLlama(tiny_model)
    for name, one in model[1].factors.items():
        oracle.weights[name] += 0.5 * model[1].gamma * one.matrix().astype(np.float64)
    engine = load(model[0], kernels="reference")
    ids = engine.tokenizer.encode(TEXT.content)[:32]
    *_, pair = compare_perplexity(engine, TEXT.content, context=32, windows=1)
    differences = plain.log_likelihoods(ids, 17) - oracle.log_likelihoods(ids, 17)
    ratio = math.exp(differences.mean())
    expected = ratio * differences.std(ddof=1) / math.sqrt(len(differences))
    assert pair.change == pytest.approx(ratio - 1, rel=1e-3)
    assert pair.change_error == pytest.approx(expected, rel=1e-2)


def test_no_difference_has_no_error(model: tuple[Path, Theta]) -> None:
    engine = load(model[0])
    engine.set_theta(gamma=0.0)
    *_, pair = compare_perplexity(engine, TEXT.content, context=16, windows=3)
    assert (pair.change, pair.change_error) == (0, 0)


def test_compare(model: tuple[Path, Theta]) -> None:
    engine, done = load(model[0]), set()
    report = run_compare(engine, 0.5, PLAN, lambda name, at, total: done.add((name, at, total)))
    *_, pair = compare_perplexity(engine, TEXT.content, context=16, windows=3)
    assert (report.nkat_perplexity, report.baseline_perplexity) == (
        pair.nkat.perplexity,
        pair.baseline.perplexity,
    )
    assert report.estimated_perplexity_improvement == pytest.approx(100 * pair.change)
    assert report.overhead_percentage == 100 * report.lambda_theta
    assert report.overhead_quartiles[0] <= report.overhead_percentage <= report.overhead_quartiles[1]
    assert report.nkat_tpe == tpe(pair.nkat.perplexity, report.lambda_theta)
    assert report.baseline_tpe == 1 / pair.baseline.perplexity
    assert report.nkat_tpe_class == tpe_class(report.nkat_tpe)
    assert (report.rank, report.gamma, report.load_seconds, report.windows) == (4, 0.97, 0.5, 3)
    assert min(report.nkat_tokens_per_second, report.baseline_tokens_per_second, report.memory_bytes) > 0
    # 7 matrices in each of 2 blocks: 64 wide, 2 KV heads of 16, a network of 128
    inputs_and_outputs = 2 * ((64 + 64) * 2 + (64 + 32) * 2 + (64 + 128) * 3)
    assert report.theta_bytes == 4 * 4 * inputs_and_outputs
    assert report.prefill_tokens_per_second > 0
    assert report.prefill_overhead_percentage > -100
    assert report.threads == 1
    assert engine.star is not None
    assert engine.star.enabled
    assert {("decoding", 2, 2), ("prompts", 2, 2), ("perplexity", 3, 3)} <= done
    assert json.loads(json.dumps(asdict(report), allow_nan=False))


def test_bench_with_theta(model: tuple[Path, Theta]) -> None:
    report = run_bench(load(model[0], kernels="reference"), 0.5, PLAN, silent)
    *_, found = measure_perplexity(load(model[0], kernels="reference"), TEXT.content, context=16, windows=3)
    assert report.theta_enabled
    assert (report.rank, report.gamma, report.device, report.kernels) == (4, 0.97, "cpu", "reference")
    assert report.overhead_percentage is not None
    assert report.avg_latency_ms == pytest.approx(1000 / report.tokens_per_second)
    assert (report.perplexity, report.perplexity_error) == (found.perplexity, found.error)
    assert report.tpe == pytest.approx(tpe(found.perplexity, report.overhead_percentage / 100))


@pytest.mark.parametrize("how", ["plain file", "left out", "switched off"])
def test_bench_without_theta(tiny_model: Path, model: tuple[Path, Theta], how: str) -> None:
    engine = load(tiny_model if how == "plain file" else model[0], theta=how != "left out")
    if how == "switched off":
        engine.set_theta(enabled=False)
    report = run_bench(engine, 0.5, PLAN, silent)
    assert not report.theta_enabled
    assert (report.rank, report.gamma, report.overhead_percentage) == (None, None, None)
    assert report.perplexity is not None
    assert report.tpe == 1 / report.perplexity


def test_no_text_no_perplexity(model: tuple[Path, Theta]) -> None:
    plan = replace(PLAN, text=None)
    one, both = run_bench(load(model[0]), 0, plan, silent), run_compare(load(model[0]), 0, plan, silent)
    assert (one.text, one.windows, one.perplexity, one.perplexity_error, one.tpe) == (None,) * 5
    assert (both.nkat_perplexity, both.baseline_tpe, both.estimated_perplexity_improvement) == (None,) * 3


@pytest.mark.parametrize("run", [run_bench, run_compare])
def test_a_text_that_is_too_short_is_told_first(model: tuple[Path, Theta], run: object) -> None:
    assert callable(run)
    done: list[str] = []
    with pytest.raises(RequestError, match="one window needs 16"):
        run(load(model[0]), 0, replace(PLAN, text=Text("t", "hi")), lambda name, *_: done.append(name))
    assert done == []


def test_there_must_be_something_to_compare(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="has no theta"):
        run_compare(load(tiny_model), 0, PLAN, silent)


@pytest.mark.parametrize("plan", [PLAN, BenchPlan(1, 1, 1), BenchPlan(7, 5, 1), BenchPlan(text=TEXT)])
def test_the_plan_knows_the_context_that_it_needs(model: tuple[Path, Theta], plan: BenchPlan) -> None:
    least = plan.context_length
    engine = Engine.load(EngineConfig(model[0], context_length=least, device="cpu", threads=1))
    run_bench(engine, 0, replace(plan, iterations=1, text=None), silent)
