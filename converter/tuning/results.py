"""What a search leaves behind, as JSON."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from converter.atomic import replacing
from converter.tuning.bench import Setting
from converter.tuning.search import finished, setting_of
from engine.theta.score import tpe, tpe_class

_PARAMETERS = "rank", "gamma", "layers"


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial. `perplexity` and `tpe` are None for one that was pruned."""

    number: int
    rank: int
    gamma: float
    layers: str
    state: str
    overhead: float
    perplexity: float | None
    tpe: float | None
    seconds: float

    @classmethod
    def of(cls, trial: FrozenTrial, overhead: float) -> "Trial":
        """A trial of the study that came to an end, scored with the overhead that is known by now."""
        duration = trial.duration
        perplexity = trial.user_attrs.get("perplexity")
        return cls(
            number=trial.number,
            rank=trial.params["rank"],
            gamma=trial.params["gamma"],
            layers=trial.params["layers"],
            state=trial.state.name.lower(),
            overhead=overhead,
            perplexity=perplexity,
            tpe=None if perplexity is None else tpe(perplexity, overhead),
            seconds=0.0 if duration is None else duration.total_seconds(),
        )


@dataclass(frozen=True, slots=True)
class Results:
    """All trials of a search, the best of them, and the baseline on the same windows."""

    trials: tuple[Trial, ...]
    best: Trial
    baseline_perplexity: float
    importances: dict[str, float]
    """Share of each parameter in the differences between trials; empty where too few tell."""

    @classmethod
    def of(
        cls, study: optuna.Study, overhead: Callable[[Setting], float], baseline_perplexity: float
    ) -> "Results":
        """Of a study with at least one complete trial.

        All are scored anew with `overhead` as it is known at the end, so that no trial wins for having been
        timed in a lucky moment.
        """
        trials = tuple(Trial.of(trial, overhead(setting_of(trial))) for trial in finished(study))
        best = max(trials, key=lambda trial: trial.tpe or 0.0)
        return cls(trials, best, baseline_perplexity, _importances(study))

    @property
    def baseline_tpe(self) -> float:
        """The score to beat."""
        return tpe(self.baseline_perplexity, 0.0)

    @property
    def pareto_front(self) -> list[Trial]:
        """Complete trials that no other beats in both perplexity and overhead, by overhead."""
        complete = [trial for trial in self.trials if trial.perplexity is not None]
        front: list[Trial] = []
        for trial in sorted(complete, key=lambda one: (one.overhead, one.perplexity)):
            if not front or trial.perplexity < front[-1].perplexity:  # type: ignore[operator]
                front.append(trial)
        return front

    def summary(self) -> dict[str, Any]:
        """The outcome in a few figures."""
        best = self.best
        assert best.tpe is not None, "the best trial is complete"
        return {
            "rank": best.rank,
            "gamma": best.gamma,
            "layers": best.layers,
            "perplexity": best.perplexity,
            "baseline_perplexity": self.baseline_perplexity,
            "overhead_percentage": 100 * best.overhead,
            "tpe": best.tpe,
            "baseline_tpe": self.baseline_tpe,
            "tpe_class": tpe_class(best.tpe),
            "trials": len(self.trials),
            "pruned": sum(trial.tpe is None for trial in self.trials),
        }


def write_json(path: Path, value: Any) -> None:
    """Write JSON as a whole or not at all. Raises `ConfigError`."""
    raw = (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    with replacing(path, len(raw)) as file:
        file.write(raw)


def _importances(study: optuna.Study) -> dict[str, float]:
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = [name for name in _PARAMETERS if len({trial.params[name] for trial in complete}) > 1]
    with warnings.catch_warnings():
        # Equal shares are its way to say that the trials do not tell.
        warnings.filterwarnings("error", ".*importances will be equal", UserWarning)
        try:
            return optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied)
        except (ValueError, RuntimeError, UserWarning):  # too few complete trials, or all of them alike
            return {}
