"""The command as users type it: flags, figures, warnings, and one line for what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from converter import factors
from converter.cli import convert, several_values
from converter.conversion import _Run
from engine.gguf import open_gguf
from engine.theta import Theta, open_theta
from engine.tokenizer import Tokenizer
from tests.converter.jobs import Bench, trainable
from tests.support.gguf_files import write_llama


def run(*arguments: str) -> Result:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(convert)
    return CliRunner().invoke(app, several_values(list(arguments)))


def theta_of(path: Path, base: Path | None = None) -> Theta:
    with open_gguf(path if base is None else base) as file:
        theta = open_theta(file, None if base is None else path)
    assert theta is not None
    return theta


@pytest.mark.parametrize(
    ("typed", "spelled"),
    [
        ([], []),
        (["--calibration", "a"], ["--calibration", "a"]),
        (
            ["--calibration", "a", "b", "c"],
            ["--calibration", "a", "--calibration", "b", "--calibration", "c"],
        ),
        (["--calibration", "a", "--calibration", "b"], ["--calibration", "a", "--calibration", "b"]),
        (
            ["--selective-layers", "x", "y", "--json", "--calibration", "a"],
            ["--selective-layers", "x", "--selective-layers", "y", "--json", "--calibration", "a"],
        ),
        (["--seed", "1", "stray"], ["--seed", "1", "stray"]),
        (["--calibration=a", "stray"], ["--calibration=a", "stray"]),
        (["--calibration"], ["--calibration"]),
    ],
)
def test_several_values_behind_one_flag(typed: list[str], spelled: list[str]) -> None:
    assert several_values(typed) == spelled


def test_a_conversion_prints_what_it_measured_and_wrote(bench: Bench, tmp_path: Path) -> None:
    output = tmp_path / "out.nkat"
    result = run(*bench.arguments(output))
    assert result.exit_code == 0
    theta = theta_of(output)
    assert f"(train, rank 4, gamma 0.97, 14 tensors): {output}" in result.stdout
    for key in ("ppl_before", "ppl_after"):
        assert f"{theta.notes[f'nkat.report.{key}']:.3f}" in result.stdout
    assert "text.txt, held out" in result.stdout
    assert "pydoc_data.topics" in result.stdout


def test_json_is_all_of_stdout(bench: Bench, tmp_path: Path) -> None:
    output, lora = tmp_path / "out.nkat", tmp_path / "lora.gguf"
    result = run(*bench.arguments(output, "--json", "--export-lora", str(lora)))
    assert result.exit_code == 0
    values = json.loads(result.stdout)
    theta = theta_of(output)
    assert (values["output"], values["export_lora"]) == (str(output), str(lora))
    assert (values["method"], values["rank"], values["gamma"], values["tensors"]) == ("train", 4, 0.97, 14)
    assert values["base_sha256"] == theta.base_sha256
    first, second = values["reports"]
    assert {f"nkat.report.{key}": value for key, value in first.items()}.items() <= theta.notes.items()
    assert {f"nkat.report.second.{key}" for key in second} <= theta.notes.keys()
    assert values["trials"] == []
    assert values["warnings"] == [
        line.removeprefix("nkat: warning: ")
        for line in result.stderr.splitlines()
        if line.startswith("nkat: warning: ")
    ]


def test_outputs_have_names_of_their_own(bench: Bench, tmp_path: Path) -> None:
    model = write_llama(tmp_path / "tiny.gguf", n_layers=1)
    arguments = ["--input", str(model), "--method", "svd", "--no-eval", "--device", "cpu"]
    assert run(*arguments).exit_code == 0
    assert run(*arguments, "--theta-only", "--theta-rank", "2").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.gguf", "tiny.nkat", "tiny.theta_rank2.bin"}
    assert theta_of(tmp_path / "tiny.theta_rank2.bin", model).rank == 2


def test_selected_layers_by_several_names(bench: Bench, tmp_path: Path) -> None:
    output = tmp_path / "out.nkat"
    layers = ("--selective-layers", "layers.0.attention.wq.weight", "blk.1.ffn_*")
    assert run(*bench.arguments(output, "--no-eval", "--method", "svd", *layers)).exit_code == 0
    names = ["blk.0.attn_q.weight", *(f"blk.1.ffn_{part}.weight" for part in ("down", "gate", "up"))]
    assert sorted(theta_of(output).factors) == names


def warnings(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("nkat: warning:")]


def test_what_was_not_measured_is_said(bench: Bench, tmp_path: Path) -> None:
    result = run(*bench.arguments(tmp_path / "out.nkat", "--no-eval"))
    assert result.exit_code == 0
    assert warnings(result) == [
        "nkat: warning: the result was not measured: nobody knows yet whether it helps"
    ]
    assert not any(key.startswith("nkat.report.") for key in theta_of(tmp_path / "out.nkat").notes)


def test_a_text_too_short_to_judge_by_is_said(bench: Bench, tmp_path: Path) -> None:
    result = run(*bench.arguments(tmp_path / "out.nkat", "--ctx", "256"))
    assert result.exit_code == 0
    assert any("too short to hold any of it back" in line for line in warnings(result))


def test_what_makes_no_difference_is_said(bench: Bench, tmp_path: Path) -> None:
    result = run(*bench.arguments(tmp_path / "out.nkat", "--learning-rate", "1e-9"))
    assert result.exit_code == 0
    assert any("text.txt, held out this theta makes no difference" in line for line in warnings(result))
    assert "no difference" in result.stdout


def likely_text(model: Path, windows: int) -> str:
    """What the model itself would write with a few letters that its vocabulary never joins."""
    with open_gguf(model) as file:
        tokenizer = Tokenizer.from_metadata(file.metadata)
    letters = torch.tensor([tokenizer.encode(letter)[0] for letter in "ABCDFGJKMQ0123456789"])
    logits = trainable(model).logits
    text = ""
    for _ in range(windows):
        ids = letters[:1]
        while len(ids) < 32:
            ids = torch.cat((ids, letters[logits(ids)[-1, letters].argmax()][None]))
        text += tokenizer.decode(ids.tolist())
    return text


def test_what_harms_is_said(bench: Bench, tmp_path: Path) -> None:
    """Nothing is better at what the model says than the model."""
    own = tmp_path / "own.txt"
    own.write_text(likely_text(bench.base, 4))
    flags = ("--learning-rate", "0.3", "--steps", "12", "--eval-text", str(own))
    result = run(*bench.arguments(tmp_path / "out.nkat", *flags))
    assert result.exit_code == 0
    assert "nkat: warning: on own.txt the model is worse with this theta than without it" in warnings(result)
    assert theta_of(tmp_path / "out.nkat").notes["nkat.report.verdict"] == "worse"


def test_the_guides_method_says_what_it_is(bench: Bench, tmp_path: Path) -> None:
    result = run(*bench.arguments(tmp_path / "out.nkat", "--method", "svd", "--no-eval"))
    assert any("svd is kept for the guide's sake" in line for line in warnings(result))


Arguments = Callable[[Bench, Path], list[str]]

REFUSED: dict[str, tuple[Arguments, str]] = {
    "rank 0": (lambda b, f: ["--theta-rank", "0"], "theta cannot have rank 0"),
    "rank 3": (lambda b, f: ["--theta-rank", "3"], "theta cannot have rank 3"),
    "gamma 2": (lambda b, f: ["--theta-gamma", "2"], "gamma is 2; it must lie between 0 and 1"),
    "gamma nan": (lambda b, f: ["--theta-gamma", "nan"], "gamma is nan"),
    "a learning rate of nan": (lambda b, f: ["--learning-rate", "nan"], "the learning rate must lie"),
    "an unknown layer": (lambda b, f: ["--selective-layers", "blk.0.attn_z"], "did you mean blk.0.attn_"),
    "a method": (lambda b, f: ["--method", "magic"], "'magic' is none of svd, residual, train"),
    "no reference": (lambda b, f: ["--method", "residual"], "the method residual needs --reference"),
    "a missing reference": (lambda b, f: ["--reference", str(f / "none.gguf")], "none.gguf"),
    "a missing model": (lambda b, f: ["--input", str(f / "none.gguf")], "none.gguf"),
    "a text as a model": (lambda b, f: ["--input", str(b.text)], "text.txt"),
    "a missing text": (lambda b, f: ["--calibration", str(f / "none.txt")], "cannot read"),
    "the input as output": (lambda b, f: ["--output", str(b.base)], "is the input itself"),
    "a missing folder": (lambda b, f: ["--output", str(f / "no" / "out.nkat")], "there is no folder"),
    "too short a text": (lambda b, f: ["--ctx", "4096"], "at least 4096 are needed"),
    "nothing to resume": (lambda b, f: ["--resume"], "nothing can be resumed"),
    "a huge seed": (lambda b, f: ["--seed", "99999999999999999999"], "the seed must lie between"),
    "a device": (lambda b, f: ["--device", "abacus"], "unknown device 'abacus'"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_wrong_is_one_line(bench: Bench, tmp_path: Path, why: str) -> None:
    arguments, message = REFUSED[why]
    result = run(*bench.arguments(tmp_path / "out.nkat", "--no-eval", *arguments(bench, tmp_path)))
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("nkat: ")
    assert message in lines[0]
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_says_what_is_left(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.nkat"
    write = _Run._write

    def interrupted(self: _Run, theta: Theta) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_Run, "_write", interrupted)
    result = run(*bench.arguments(output, "--no-eval"))
    assert result.exit_code == 130
    assert f"nkat: interrupted; say --resume to go on from {output}.checkpoint" in result.stderr
    assert "Traceback" not in result.stderr
    monkeypatch.setattr(_Run, "_write", write)
    assert run(*bench.arguments(output, "--no-eval")).exit_code == 2
    assert run(*bench.arguments(output, "--no-eval", "--resume")).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.nkat"]


def test_an_interrupt_at_once_leaves_nothing(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(factors, "Trainer", interrupted)
    result = run(*bench.arguments(tmp_path / "out.nkat", "--no-eval"))
    assert result.exit_code == 130
    assert "nkat: interrupted; nothing is left" in result.stderr
    assert list(tmp_path.iterdir()) == []
