"""A setting is measured as the engine would serve it."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.tuning.bench import Setting, TuningBench
from converter.tuning.plan import Layers
from converter.writer import write_nkat
from engine.config import EngineConfig
from engine.engine import Engine
from engine.gguf import open_gguf
from tests.converter.jobs import SIZES, Bench
from tests.converter.tuning.searches import WINDOWS, load, random_sidecar, tuning_bench
from tests.support.gguf_files import write_llama
from tests.support.stars import block_matrices


def test_factors_are_cuts(bench: Bench, tmp_path: Path) -> None:
    theta = random_sidecar(tmp_path / "theta.bin", bench.base)
    factors = tuning_bench(tmp_path, bench.base).factors(Setting(4, 0.9, Layers.ATTENTION))
    assert factors.keys() == {name for name in theta.factors if "attn" in name}
    for name, one in factors.items():
        assert np.array_equal(one.u, theta.factors[name].u[:, :4])
        assert np.array_equal(one.v, theta.factors[name].v[:, :4])
        assert np.array_equal(one.scale, theta.factors[name].scale[:4])


def test_halves_are_those_of_the_model_not_of_the_alphabet(tmp_path: Path) -> None:
    """A sidecar lists blk.10 in front of blk.2."""
    model = write_llama(tmp_path / "deep.gguf", **SIZES | {"n_layers": 12})
    bench = tuning_bench(tmp_path, model)
    first = bench.factors(Setting(2, 0.9, Layers.FIRST_HALF))
    second = bench.factors(Setting(2, 0.9, Layers.SECOND_HALF))
    in_order = block_matrices(model)
    assert {int(name.split(".")[1]) for name in first} == set(range(6))
    assert {int(name.split(".")[1]) for name in second} == set(range(6, 12))
    assert first.keys() | second.keys() == set(in_order)


def test_the_overhead_is_pooled_over_gamma_and_nothing_else(bench: Bench, tmp_path: Path) -> None:
    measured = tuning_bench(tmp_path, bench.base)
    measured.remember(Setting(4, 0.90), [1.1, 1.3])
    measured.remember(Setting(4, 0.99), [1.2])
    measured.remember(Setting(8, 0.90), [1.5])
    measured.remember(Setting(4, 0.90, Layers.ATTENTION), [1.05])
    assert measured.overhead(Setting(4, 0.95)) == pytest.approx(0.2)
    assert measured.overhead(Setting(8, 0.95)) == pytest.approx(0.5)
    assert measured.overhead(Setting(4, 0.95, Layers.ATTENTION)) == pytest.approx(0.05)


def test_a_reading_below_zero_counts_as_none(bench: Bench, tmp_path: Path) -> None:
    measured = tuning_bench(tmp_path, bench.base)
    measured.remember(Setting(4, 0.90), [0.8, 0.9, 1.4])
    assert measured.overhead(Setting(4, 0.90)) == 0


def test_measuring_times_the_setting_and_remembers(bench: Bench, tmp_path: Path) -> None:
    theta = random_sidecar(tmp_path / "theta.bin", bench.base)
    engine = load(bench.base, tmp_path / "theta.bin")
    measured = TuningBench(engine, theta, WINDOWS)
    setting = Setting(2, 0.93, Layers.FEED_FORWARD)
    ratios = measured.measure(setting)
    star = engine.check_theta()
    assert (star.rank, star.gamma, star.enabled) == (2, 0.93, True)
    assert {name for name, layer in star.layers.items() if len(layer.u)} == set(measured.factors(setting))
    assert len(ratios) == 2
    assert all(0 < ratio < math.inf for ratio in ratios)
    assert measured.overhead(setting) == max(0, float(np.median(ratios)) - 1)
    assert not engine.has_work


@pytest.mark.parametrize("setting", [None, Setting(8, 0.97), Setting(2, 0.9, Layers.ATTENTION)])
def test_losses_are_those_of_a_file_with_that_theta(
    bench: Bench, tmp_path: Path, setting: Setting | None
) -> None:
    theta = random_sidecar(tmp_path / "theta.bin", bench.base)
    engine = load(bench.base, tmp_path / "theta.bin")
    measured = TuningBench(engine, theta, WINDOWS)
    list(measured.losses(Setting(6, 0.5)))  # what was measured before must not count
    found = list(measured.losses(setting))
    path = bench.base
    if setting is not None:
        path = tmp_path / "out.nkat"
        cut = replace(
            theta, factors=measured.factors(setting), rank=setting.rank, gamma=setting.gamma, notes={}
        )
        with open_gguf(bench.base) as base:
            write_nkat(base, cut, path)
    other = Engine.load(EngineConfig(path, context_length=16, device="cpu", threads=1))
    each = [-float(other.log_likelihoods(window.tolist(), 9).double().mean()) for window in WINDOWS]
    assert found == pytest.approx([float(np.mean(each[: count + 1])) for count in range(4)], rel=1e-5)
    assert engine.check_theta().enabled


def test_theta_counts_again_after_losses_that_nobody_waited_for(bench: Bench, tmp_path: Path) -> None:
    theta = random_sidecar(tmp_path / "theta.bin", bench.base)
    engine = load(bench.base, tmp_path / "theta.bin")
    losses = TuningBench(engine, theta, WINDOWS).losses(None)
    next(losses)
    del losses
    assert engine.check_theta().enabled
