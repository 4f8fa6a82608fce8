"""The search itself: Optuna's TPE sampler, a pruner, and a study that outlives an interrupt."""

import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from converter.tuning.bench import Setting, TuningBench
from converter.tuning.plan import Layers, TuningPlan
from engine.errors import ConfigError
from engine.theta.score import tpe

GAMMAS = 0.90, 0.99
"""The guide's range."""
_IDENTITY = "identity"
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

Progress = Callable[[int, int, str], None]
"""Told how many trials are done, of how many, and the best so far."""


def open_study(path: Path, identity: dict[str, Any], *, seed: int, resume: bool) -> optuna.Study:
    """A new study in an SQLite file, or the one that is there.

    `identity`: all that makes two trials comparable. Raises `ConfigError` for a study that is there and not
    asked for, asked for and not there, damaged, or of another search.
    """
    if path.exists() != resume:
        raise ConfigError(
            f"{path}: holds an earlier search; say --resume to go on with it, or choose another --output-dir"
            if path.exists()
            else f"{path}: is not there, so that nothing can be resumed; start without --resume"
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            storage=_storage(path),
            study_name="nkat",
            load_if_exists=resume,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
        )
    except Exception as error:  # whatever the database driver makes of a file that is none
        raise ConfigError(f"{path}: cannot be used as a study: {str(error).splitlines()[0]}") from None
    # Another start on each return, or the sampler would propose its first random points again.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
    found = study.user_attrs.get(_IDENTITY)
    if found is None:
        study.set_user_attr(_IDENTITY, identity)
    else:
        different = sorted(key for key in identity if found.get(key) != identity[key])
        if different:
            raise ConfigError(
                f"{path}: holds another search (different: {', '.join(different)}); repeat that one's flags, "
                "or choose another --output-dir"
            )
    return study


def _storage(path: Path) -> optuna.storages.RDBStorage:
    """Opened by its path: an address would give `?`, `%` and braces in it another meaning."""
    return optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": lambda: sqlite3.connect(path)})


def search(study: optuna.Study, plan: TuningPlan, bench: TuningBench, progress: Progress) -> None:
    """Run the trials that are still missing. An interrupt loses the trial under way and nothing else."""
    for earlier in finished(study):
        bench.remember(setting_of(earlier), json.loads(earlier.user_attrs["ratios"]))
    for number in range(len(finished(study)), plan.trials):
        trial = study.ask()
        try:
            _run(study, trial, plan, bench)
        except BaseException:
            study.tell(trial, state=TrialState.FAIL)
            raise
        progress(number + 1, plan.trials, _best(study))


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that came to an end, complete or pruned."""
    return study.get_trials(deepcopy=False, states=_FINISHED)


def setting_of(trial: FrozenTrial) -> Setting:
    """What a trial tried."""
    return Setting(trial.params["rank"], trial.params["gamma"], Layers(trial.params["layers"]))


def _run(study: optuna.Study, trial: Trial, plan: TuningPlan, bench: TuningBench) -> None:
    rank = trial.suggest_categorical("rank", plan.ranks)
    gamma = trial.suggest_float("gamma", *GAMMAS)
    layers = Layers(trial.suggest_categorical("layers", [layer.value for layer in plan.layers]))
    setting = Setting(rank, gamma, layers)
    trial.set_user_attr("ratios", json.dumps(bench.measure(setting)))
    overhead = bench.overhead(setting)
    for step, loss in enumerate(bench.losses(setting)):
        perplexity = math.exp(loss)
        trial.report(tpe(perplexity, overhead), step)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    trial.set_user_attr("perplexity", perplexity)
    study.tell(trial, tpe(perplexity, overhead))


def _best(study: optuna.Study) -> str:
    try:
        best = study.best_trial
    except ValueError:  # nothing complete yet
        return ""
    return f"best TPE {best.value:.5f}, rank {best.params['rank']}, gamma {best.params['gamma']:.3f}"
