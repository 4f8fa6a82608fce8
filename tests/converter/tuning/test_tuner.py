"""From a model file to a folder with the winner and all that tells of the search."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib import image

from converter import factors
from converter.factors import Progress
from converter.tuning.plan import Mode, TuningPlan
from converter.tuning.tuner import HISTORY, PICTURE, STUDY, SUMMARY, tune
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError, NkatError
from engine.gguf import open_gguf
from engine.perplexity import compare_perplexity
from engine.theta import open_theta
from engine.theta.score import tpe
from tests.converter.jobs import SIZES, TEXT, Bench, ignore
from tests.converter.tuning.searches import plan
from tests.support.gguf_files import write_llama


def interrupting(stage: str, at: int) -> Progress:
    def progress(now: str, done: int, total: int, note: str) -> None:
        if (now, done) == (stage, at):
            raise KeyboardInterrupt

    return progress


def interrupted(search: TuningPlan, stage: str, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(search, interrupting(stage, at))


def test_the_folder_tells_all(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "here"
    tuning = tune(plan(bench, folder, 4), ignore)
    best = tuning.results.best
    name = f"optimal_rank{best.rank}_gamma{best.gamma:.2f}"
    assert {path.name for path in folder.iterdir()} == {
        "theta_rank8.bin", STUDY, HISTORY, SUMMARY, PICTURE, f"{name}.nkat", f"{name}.json"
    }  # fmt: skip
    history = json.loads((folder / HISTORY).read_text())
    assert [trial["number"] for trial in history] == [0, 1, 2, 3]
    for trial in history:
        assert trial["tpe"] == pytest.approx(tpe(trial["perplexity"], trial["overhead"]))
    assert max(trial["tpe"] for trial in history) == best.tpe
    summary = json.loads((folder / SUMMARY).read_text())
    assert (summary["mode"], summary["ranks"], summary["layers"]) == ("custom", [2, 4, 6, 8], ["all"])
    assert summary["best"]["tpe"] == best.tpe
    assert summary["pareto_front"]
    winner = json.loads((folder / f"{name}.json").read_text())
    assert (winner["rank"], winner["gamma"], len(winner["reports"])) == (best.rank, best.gamma, 2)
    assert (folder / PICTURE).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert image.imread(folder / PICTURE).shape == (990, 1430, 4)
    assert tuning.model == folder / f"{name}.nkat"


def test_the_winner_does_what_is_said_of_it(bench: Bench, tmp_path: Path) -> None:
    tuning = tune(plan(bench, tmp_path / "out", 2), ignore)
    with open_gguf(tuning.model) as file, open_gguf(bench.base) as base:
        theta = open_theta(file)
        assert all(file.data(name).tobytes() == base.data(name).tobytes() for name in base.tensors)
    assert theta is not None
    best, (report, _) = tuning.results.best, tuning.reports
    assert (theta.rank, theta.gamma) == (best.rank, best.gamma)
    assert theta.notes["nkat.report.ppl_after"] == report.after.value
    engine = Engine.load(EngineConfig(tuning.model, context_length=32, device="cpu", threads=1))
    *_, pair = compare_perplexity(engine, TEXT, context=32, windows=2)
    assert report.text == "text.txt"
    assert report.after.value == pytest.approx(pair.nkat.perplexity, rel=1e-5)
    assert report.before.value == pytest.approx(pair.baseline.perplexity, rel=1e-5)


def test_an_interrupted_search_goes_on(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "_SAVE_SECONDS", 0.0)
    search = plan(bench, tmp_path / "out", 3)
    going_on = replace(search, resume=True)
    interrupted(search, "train", 3)
    assert search.job.checkpoint.exists()
    interrupted(going_on, "search", 2)
    made = search.job.output.read_bytes()
    assert not search.job.checkpoint.exists()
    interrupted(going_on, "evaluate", 1)
    stages: list[tuple[str, int]] = []
    tuning = tune(going_on, lambda stage, done, total, note: stages.append((stage, done)))
    assert not any(stage in ("train", "search") for stage, _ in stages)
    assert [trial.number for trial in tuning.results.trials] == [0, 1, 2]
    assert search.job.output.read_bytes() == made
    # more trials are a longer search of the same kind, and have one winner
    longer = tune(replace(going_on, trials=5), ignore)
    assert len(longer.results.trials) == 5
    assert [path.name for path in sorted(search.folder.glob("optimal*.nkat"))] == [longer.model.name]


def test_theta_that_is_made_is_not_made_again_without_a_word(bench: Bench, tmp_path: Path) -> None:
    search = plan(bench, tmp_path / "out", 2)
    interrupted(search, "search", 1)
    with pytest.raises(ConfigError, match="holds an earlier search; say --resume"):
        tune(search, ignore)
    (search.folder / STUDY).unlink()
    stages: list[str] = []
    tune(search, lambda stage, *_: stages.append(stage))
    assert "train" not in stages
    search.job.output.unlink()
    with pytest.raises(ConfigError, match=r"lacks its theta, theta_rank8\.bin; delete it"):
        tune(replace(search, resume=True), ignore)


@pytest.fixture(scope="module")
def started(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with theta and the first trial of a search."""
    folder = tmp_path_factory.mktemp("started") / "out"
    interrupted(plan(bench, folder), "search", 1)
    return folder


def other_text(folder: Path) -> Path:
    path = folder / "other.txt"
    path.write_text(TEXT.upper())
    return path


Changes = Callable[[Bench, Path], dict[str, Any]]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (lambda bench, folder: {"steps": 4}, "steps"),
        (lambda bench, folder: {"learning_rate": 0.01}, "learning rate"),
        (lambda bench, folder: {"seed": 1}, "seed"),
        (lambda bench, folder: {"window": 16}, "ctx"),
        (lambda bench, folder: {"reference": bench.reference}, "reference"),
        (lambda bench, folder: {"calibration": (other_text(folder),)}, "calibration text"),
        (lambda bench, folder: {"input": write_llama(folder / "x.gguf", seed=1, **SIZES)}, "another model"),
        (lambda bench, folder: {"choosing_windows": 1}, "calibration text"),
        (lambda bench, folder: {"mode": Mode.FULL}, "mode"),
    ],
)
def test_another_search_does_not_go_on_from_it(
    bench: Bench, started: Path, tmp_path: Path, changes: Changes, named: str
) -> None:
    before = {path.name: path.read_bytes() for path in started.iterdir()}
    with pytest.raises(NkatError, match=named) as caught:
        tune(plan(bench, started, resume=True, **changes(bench, tmp_path)), ignore)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in started.iterdir()} == before


def test_a_file_where_the_folder_should_be(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="out: cannot be made a folder: File exists"):
        tune(plan(bench, tmp_path / "out"), ignore)
    with pytest.raises(ConfigError, match="cannot be made a folder"):
        tune(plan(bench, tmp_path / "out" / "deeper"), ignore)
    assert (tmp_path / "out").read_text() == "mine"
