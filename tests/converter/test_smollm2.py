"""Theta on a real model: few steps and few windows, enough to tell help from none."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.requantize import requantize
from converter.conversion import convert
from converter.evaluation import Verdict
from converter.job import ConversionJob, Method
from engine.gguf import GGMLType
from tests.support.environment import FULL

SOME = () if FULL else ("blk.?.*",)
"""The first ten of thirty blocks: the closed form takes seconds for each."""


@pytest.fixture
def lighter(smollm2: Path, tmp_path: Path) -> Path:
    requantize(smollm2, tmp_path / "lighter.gguf", GGMLType.Q4_0)
    return tmp_path / "lighter.gguf"


@pytest.fixture
def quick(smollm2: Path, tmp_path: Path) -> ConversionJob:
    return ConversionJob(
        smollm2, tmp_path / "theta.bin", theta_only=True, window=128, eval_windows=4, threads=2
    )


def test_a_few_steps_of_training_help(quick: ConversionJob) -> None:
    conversion = convert(replace(quick, steps=8, learning_rate=4e-3), lambda *_: None)
    assert conversion.reports[0].verdict is Verdict.BETTER


def test_a_reference_gives_back_part_of_what_was_lost(quick: ConversionJob, lighter: Path) -> None:
    job = replace(
        quick, input=lighter, reference=quick.input, method=Method.RESIDUAL, windows=4, selective_layers=SOME
    )
    conversion = convert(job, lambda *_: None)
    verdicts = {report.verdict for report in conversion.reports}
    assert Verdict.BETTER in verdicts
    assert verdicts <= ({Verdict.BETTER} if FULL else {Verdict.BETTER, Verdict.SAME})
    assert conversion.theta.method == "residual"


def test_training_goes_on_from_what_the_reference_gave(quick: ConversionJob, lighter: Path) -> None:
    """Three small steps: a leap, as from factors that are not balanced, would ruin the model."""
    job = replace(quick, input=lighter, reference=quick.input, steps=3, windows=4, selective_layers=SOME)
    conversion = convert(job, lambda *_: None)
    assert [report.verdict for report in conversion.reports] == [Verdict.BETTER] * 2
