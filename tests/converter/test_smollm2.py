"""Theta on a real model: few steps and few windows, enough to tell help from none."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType, quants

from converter.conversion import convert
from converter.evaluation import Verdict
from converter.job import ConversionJob, Method
from converter.writer import NewTensor, write_gguf
from engine.gguf import GGMLType, open_gguf


def q4_0_copy(source: Path, target: Path) -> Path:
    """A lighter version of a Q4_1 file, made from its weights."""
    with open_gguf(source) as file:

        def requantized(name: str) -> NewTensor:
            info = file.tensors[name]
            if info.type is not GGMLType.Q4_1:
                return NewTensor(name, info.type, info.shape, partial(file.data, name))
            packed = quants.quantize(file.dequantize(name), GGMLQuantizationType.Q4_0)
            return NewTensor(name, GGMLType.Q4_0, info.shape, lambda: packed)

        entries = [file.entry(key) for key in file.metadata]
        write_gguf(target, entries, [requantized(name) for name in file.tensors], file.alignment)
    return target


@pytest.fixture
def quick(smollm2: Path, tmp_path: Path) -> ConversionJob:
    return ConversionJob(
        smollm2, tmp_path / "theta.bin", theta_only=True, window=128, eval_windows=4, threads=2
    )


def test_a_few_steps_of_training_help(quick: ConversionJob) -> None:
    conversion = convert(replace(quick, steps=8, learning_rate=4e-3), lambda *_: None)
    assert conversion.reports[0].verdict is Verdict.BETTER


def test_a_reference_gives_back_part_of_what_was_lost(quick: ConversionJob, tmp_path: Path) -> None:
    lighter = q4_0_copy(quick.input, tmp_path / "lighter.gguf")
    job = replace(quick, input=lighter, reference=quick.input, method=Method.RESIDUAL, windows=4)
    conversion = convert(job, lambda *_: None)
    assert [report.verdict for report in conversion.reports] == [Verdict.BETTER] * 2
    assert conversion.theta.method == "residual"


def test_training_goes_on_from_what_the_reference_gave(quick: ConversionJob, tmp_path: Path) -> None:
    """Three small steps: a leap, as from factors that are not balanced, would ruin the model."""
    lighter = q4_0_copy(quick.input, tmp_path / "lighter.gguf")
    job = replace(quick, input=lighter, reference=quick.input, steps=3, windows=4)
    conversion = convert(job, lambda *_: None)
    assert [report.verdict for report in conversion.reports] == [Verdict.BETTER] * 2
