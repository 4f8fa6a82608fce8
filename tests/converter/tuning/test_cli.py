"""The command `optimize` as users type it."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from converter.cli import several_values
from converter.tuning import tuner
from converter.tuning.cli import optimize
from converter.tuning.search import search
from tests.converter.jobs import Bench


def run(*arguments: str) -> Result:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(optimize)
    return CliRunner().invoke(app, several_values(list(arguments)))


def arguments(bench: Bench, folder: Path, *more: str) -> list[str]:
    flags = ["--model", str(bench.base), "--output-dir", str(folder), "--calibration", str(bench.text)]
    flags += ["--eval-text", str(bench.text), "--steps", "3", "--ctx", "32", "--eval-windows", "2"]
    return [*flags, "--device", "cpu", "--threads", "1", *more]


def test_a_search(bench: Bench, tmp_path: Path) -> None:
    result = run(*arguments(bench, tmp_path, "--mode", "custom", "--trials", "2", "--target-rank", "4"))
    assert result.exit_code == 0, result.output
    (winner,) = tmp_path.glob("optimal_rank4_gamma0.9?.nkat")
    assert f"wrote {winner}" in result.stdout
    assert "2 trials, the best 5 and the baseline" in result.stdout
    assert "text.txt" in result.stdout
    assert (tmp_path / "theta_rank4.bin").exists()


def test_a_search_that_finds_nothing_better_says_so(bench: Bench, tmp_path: Path) -> None:
    """So little training gains nothing, and theta always costs time."""
    flags = ("--trials", "1", "--target-rank", "8", "--learning-rate", "1e-9")
    result = run(*arguments(bench, tmp_path, *flags))
    assert result.exit_code == 0, result.output
    assert "nkat: warning: no setting has a better TPE than the model without theta" in result.stderr


Arguments = Callable[[Bench, Path], list[str]]

REFUSED: dict[str, tuple[Arguments, str]] = {
    "a mode": (lambda b, f: ["--mode", "wild"], "--mode 'wild' is none of quick, full, custom"),
    "no trials": (lambda b, f: ["--mode", "custom"], "--mode custom needs --trials"),
    "a rank": (lambda b, f: ["--target-rank", "3"], "theta cannot have rank 3"),
    "a missing model": (lambda b, f: ["--model", str(f / "none.gguf")], "none.gguf"),
    "a missing text": (lambda b, f: ["--calibration", str(f / "none.txt")], "cannot read"),
    "a short text": (lambda b, f: ["--ctx", "4096"], "at least 4096 are needed"),
    "a file as a folder": (lambda b, f: ["--output-dir", str(b.text)], "cannot be made a folder"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_wrong_is_one_line(bench: Bench, tmp_path: Path, why: str) -> None:
    flags, message = REFUSED[why]
    result = run(*arguments(bench, tmp_path / "out", *flags(bench, tmp_path)))
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("nkat: ")
    assert message in lines[0]
    assert result.stdout == ""


@pytest.mark.parametrize("package", ["optuna", "matplotlib"])
def test_what_is_not_installed_is_one_line(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == package or name.startswith("converter.tuning."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    result = run(*arguments(bench, tmp_path / "out"))
    assert result.exit_code == 2
    assert result.stderr == f"nkat: {package} is not installed: pip install 'nkat[tuning]'\n"
    assert not (tmp_path / "out").exists()


def test_an_interrupt_says_how_to_go_on(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*parts: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuner, "search", interrupted)
    result = run(*arguments(bench, tmp_path, "--trials", "1"))
    assert result.exit_code == 130
    assert "nkat: interrupted; the same command with --resume goes on" in result.stderr
    monkeypatch.setattr(tuner, "search", search)
    assert run(*arguments(bench, tmp_path, "--trials", "1", "--resume")).exit_code == 0
