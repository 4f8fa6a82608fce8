"""What a search leaves: scored with the overhead known at its end."""

import json
import random
from dataclasses import asdict
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from converter.tuning.bench import Setting
from converter.tuning.results import Results, Trial, write_json
from engine.theta.score import tpe, tpe_class


def study_of(*trials: tuple[int, float, float | None]) -> optuna.Study:
    """Rank, gamma and perplexity of each; None for a pruned one."""
    study = optuna.create_study(direction="maximize")
    space = {
        "rank": optuna.distributions.CategoricalDistribution((2, 4, 6, 8)),
        "gamma": optuna.distributions.FloatDistribution(0.9, 0.99),
        "layers": optuna.distributions.CategoricalDistribution(("all", "attention")),
    }
    for rank, gamma, perplexity in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.PRUNED if perplexity is None else TrialState.COMPLETE,
                value=None if perplexity is None else tpe(perplexity, 0.0),
                params={"rank": rank, "gamma": gamma, "layers": "all"},
                distributions=space,
                user_attrs={} if perplexity is None else {"perplexity": perplexity},
            )
        )
    return study


def by_rank(setting: Setting) -> float:
    """An overhead as a bench knows it."""
    return {2: 0.02, 4: 0.05, 6: 0.30, 8: 0.50}[setting.rank]


def test_trials_are_scored_anew() -> None:
    """Rank 8 had the best score when it was timed, as if it cost nothing."""
    results = Results.of(study_of((4, 0.95, 10.0), (8, 0.97, 9.9), (2, 0.9, 12.0)), by_rank, 15.0)
    assert results.best.rank == 4
    for trial in results.trials:
        assert trial.perplexity is not None
        assert trial.overhead == by_rank(Setting(trial.rank, trial.gamma))
        assert trial.tpe == tpe(trial.perplexity, trial.overhead)
    assert results.baseline_tpe == pytest.approx(1 / 15)
    summary = results.summary()
    assert (summary["rank"], summary["gamma"], summary["overhead_percentage"]) == (4, 0.95, 5.0)
    assert summary["tpe_class"] == tpe_class(summary["tpe"])
    assert (summary["trials"], summary["pruned"]) == (3, 0)


def test_pruned_and_failed_trials() -> None:
    study = study_of((4, 0.95, 10.0), (8, 0.97, None))
    failed = study.ask()
    study.tell(failed, state=TrialState.FAIL)
    study.ask()  # running when its process was killed
    results = Results.of(study, by_rank, 15.0)
    assert [(trial.rank, trial.state) for trial in results.trials] == [(4, "complete"), (8, "pruned")]
    assert (results.trials[1].perplexity, results.trials[1].tpe) == (None, None)
    assert results.trials[1].overhead == 0.5
    assert results.summary()["pruned"] == 1


def test_the_pareto_front() -> None:
    trials = study_of((2, 0.9, 12.0), (2, 0.95, 11.0), (4, 0.95, 11.5), (6, 0.9, 10.0), (8, 0.9, None))
    front = Results.of(trials, by_rank, 15.0).pareto_front
    assert [(trial.rank, trial.perplexity) for trial in front] == [(2, 11.0), (6, 10.0)]


def test_importances_tell_which_parameter_counts() -> None:
    rng = random.Random(0)
    trials = [
        (rank, rng.uniform(0.9, 0.99), 20.0 - rank + rng.uniform(0, 1))
        for rank in (2, 4, 6, 8)
        for _ in range(20)
    ]
    importances = Results.of(study_of(*trials), by_rank, 15.0).importances
    assert importances.keys() == {"rank", "gamma"}
    assert importances["rank"] > 0.6
    assert sum(importances.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "trials", [[(4, 0.95, 10.0)], [(4, 0.95, 10.0)] * 3, [(4, 0.95, 10.0), (8, 0.97, None)]]
)
def test_too_few_trials_tell_nothing(trials: list[tuple[int, float, float | None]]) -> None:
    assert Results.of(study_of(*trials), by_rank, 15.0).importances == {}


def test_json_is_written_whole(tmp_path: Path) -> None:
    trial = Trial(0, 4, 0.95, "all", "complete", 0.1, 10.0, 0.09, 1.5)
    write_json(tmp_path / "x.json", [asdict(trial)])
    assert json.loads((tmp_path / "x.json").read_text()) == [asdict(trial)]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", [float("nan")])
    assert json.loads((tmp_path / "x.json").read_text()) == [asdict(trial)]
