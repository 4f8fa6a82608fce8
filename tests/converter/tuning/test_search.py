"""A search ends with its trials, comes back to them, and wastes no time on the hopeless."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from converter.tuning.bench import Setting, TuningBench
from converter.tuning.plan import Layers, Mode
from converter.tuning.search import GAMMAS, finished, open_study, search, setting_of
from engine.errors import ConfigError
from engine.theta.score import tpe
from tests.converter.jobs import Bench
from tests.converter.tuning.searches import WINDOWS, load, plan, random_sidecar, tuning_bench

IDENTITY = {"model": "ab", "mode": "custom", "target rank": None}


def study_in(folder: Path, *, resume: bool = False, **changes: Any) -> optuna.Study:
    return open_study(folder / "study.db", IDENTITY | changes, seed=0, resume=resume)


def ignore(done: int, total: int, note: str) -> None:
    pass


def test_every_trial_is_measured_and_scored(bench: Bench, tmp_path: Path) -> None:
    study, measured = study_in(tmp_path), tuning_bench(tmp_path, bench.base)
    told: list[tuple[int, int, str]] = []
    search(study, plan(bench, tmp_path, 3), measured, lambda *news: told.append(news))
    assert [news[:2] for news in told] == [(1, 3), (2, 3), (3, 3)]
    trials = finished(study)
    assert len(trials) == 3
    for trial in trials:
        setting = setting_of(trial)
        assert setting.rank in (2, 4, 6, 8)
        assert GAMMAS[0] <= setting.gamma <= GAMMAS[1]
        assert setting.layers is Layers.ALL
        assert len(json.loads(trial.user_attrs["ratios"])) == 2
        *_, loss = measured.losses(setting)
        assert trial.user_attrs["perplexity"] == pytest.approx(2.718281828**loss, rel=1e-6)
    best = study.best_trial
    assert told[-1][2] == (
        f"best TPE {best.value:.5f}, rank {best.params['rank']}, gamma {best.params['gamma']:.3f}"
    )


def test_the_space_is_the_plans(bench: Bench, tmp_path: Path) -> None:
    study = study_in(tmp_path)
    wide = plan(bench, tmp_path, 6, mode=Mode.FULL, target_rank=4)
    search(study, wide, tuning_bench(tmp_path, bench.base), ignore)
    assert {setting_of(trial).rank for trial in finished(study)} == {4}
    assert len({setting_of(trial).layers for trial in finished(study)}) > 1


def interrupted_at(at: int) -> Any:
    def progress(done: int, total: int, note: str) -> None:
        if done == at:
            raise KeyboardInterrupt

    return progress


def test_only_the_missing_trials_are_run(bench: Bench, tmp_path: Path) -> None:
    measured = tuning_bench(tmp_path, bench.base)
    with pytest.raises(KeyboardInterrupt):
        search(study_in(tmp_path), plan(bench, tmp_path, 4), measured, interrupted_at(2))
    before = [(trial.number, trial.params) for trial in finished(study_in(tmp_path, resume=True))]
    assert len(before) == 2
    study, fresh, done = study_in(tmp_path, resume=True), tuning_bench(tmp_path, bench.base), []
    search(study, plan(bench, tmp_path, 4), fresh, lambda count, total, note: done.append(count))
    assert done == [3, 4]
    after = [(trial.number, trial.params) for trial in finished(study)]
    assert after[:2] == before
    assert len({params["gamma"] for _, params in after}) == 4  # not the first proposals again
    # what was timed before the interrupt is known
    assert all(fresh.overhead(setting_of(trial)) >= 0 for trial in finished(study))
    search(study, plan(bench, tmp_path, 4), fresh, interrupted_at(5))  # nothing is missing


class Scripted(TuningBench):
    """A bench whose losses are given, by the number of the trial; everything else is measured."""

    def __init__(self, folder: Path, model: Path, losses: list[float | BaseException]) -> None:
        theta = random_sidecar(folder / "theta.bin", model)
        super().__init__(load(model, folder / "theta.bin"), theta, WINDOWS)
        self.script = losses
        self.windows: list[int] = []

    def losses(self, setting: Setting | None) -> Iterator[float]:
        loss = self.script[len(self.windows)]
        self.windows.append(0)
        for _ in WINDOWS:
            if isinstance(loss, BaseException):
                raise loss
            self.windows[-1] += 1
            yield loss


def test_an_interrupt_loses_the_trial_under_way_and_nothing_else(bench: Bench, tmp_path: Path) -> None:
    study = study_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search(
            study,
            plan(bench, tmp_path, 3),
            Scripted(tmp_path, bench.base, [1.0, KeyboardInterrupt()]),
            ignore,
        )
    assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE, TrialState.FAIL]
    again = study_in(tmp_path, resume=True)
    search(again, plan(bench, tmp_path, 3), Scripted(tmp_path, bench.base, [2.0, 3.0]), ignore)
    found = [trial.user_attrs["perplexity"] for trial in finished(again)]
    assert found == pytest.approx([2.718281828, 7.389056099, 20.08553692])


def test_a_setting_that_is_clearly_worse_is_given_up(bench: Bench, tmp_path: Path) -> None:
    study = study_in(tmp_path)
    measured = Scripted(tmp_path, bench.base, [1.0, 1.0, 1.0, 1.0, 6.0, 1.0, 0.9])
    search(study, plan(bench, tmp_path, 7), measured, ignore)
    states = [trial.state for trial in finished(study)]
    assert states[4] is TrialState.PRUNED
    assert measured.windows[4] < len(WINDOWS) == measured.windows[0]
    assert states[:4] + states[6:] == [TrialState.COMPLETE] * 5
    pruned = finished(study)[4]
    assert "perplexity" not in pruned.user_attrs
    assert json.loads(pruned.user_attrs["ratios"])


def test_the_score_weighs_the_overhead(bench: Bench, tmp_path: Path) -> None:
    study, measured = study_in(tmp_path), Scripted(tmp_path, bench.base, [1.0])
    search(study, plan(bench, tmp_path, 1), measured, ignore)
    (trial,) = finished(study)
    assert trial.value == pytest.approx(
        tpe(trial.user_attrs["perplexity"], measured.overhead(setting_of(trial)))
    )


def test_the_seed_decides_the_first_proposals(bench: Bench, tmp_path: Path) -> None:
    proposals = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        study = open_study(tmp_path / f"{name}.db", IDENTITY, seed=seed, resume=False)
        search(study, plan(bench, tmp_path, 2), Scripted(tmp_path, bench.base, [1.0, 2.0]), ignore)
        proposals.append([trial.params for trial in finished(study)])
    assert proposals[0] == proposals[1] != proposals[2]


def test_studies_that_are_not_to_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing can be resumed; start without --resume"):
        study_in(tmp_path, resume=True)
    study_in(tmp_path)
    with pytest.raises(ConfigError, match="holds an earlier search; say --resume"):
        study_in(tmp_path)
    with pytest.raises(ConfigError, match=r"another search \(different: mode, model\)"):
        study_in(tmp_path, resume=True, model="cd", mode="full")
    assert study_in(tmp_path, resume=True).user_attrs["identity"] == IDENTITY
    (tmp_path / "study.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match="cannot be used as a study: ") as caught:
        study_in(tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    folder = tmp_path / "a?b=c#d %41 {e}"
    folder.mkdir()
    study_in(folder)
    assert (folder / "study.db").is_file()
    study_in(folder, resume=True)
