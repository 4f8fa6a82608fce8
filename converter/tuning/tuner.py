"""From a model file to the theta with the best TPE: make once, search, write the winner."""

import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from converter.conversion import calibration_notes, convert
from converter.evaluation import Quality, evaluate, report_notes
from converter.factors import Progress
from converter.material import Material, Sample
from converter.tuning.bench import CONTEXT, Setting, TuningBench
from converter.tuning.picture import write_picture
from converter.tuning.plan import Layers, TuningPlan
from converter.tuning.results import Results, write_json
from converter.tuning.search import open_study, search
from converter.windows import digest
from converter.writer import write_nkat
from engine.architectures import open_model
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError
from engine.gguf import open_gguf
from engine.theta import Theta, base_sha256, open_theta
from engine.theta.names import CALIBRATION_PREFIX, REPORT_PREFIX

STUDY = "study.db"
HISTORY = "optimization_history.json"
SUMMARY = "optuna_study.json"
PICTURE = "optimization_results.png"

_MAKING = {
    "sha256": "calibration text",
    "window_tokens": "ctx",
    "seed": "seed",
    "steps": "steps",
    "learning_rate": "learning rate",
    "reference_sha256": "reference",
}
"""The notes that theta's values depend on, by the names that users know."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What came of a search.

    `reports`: the winner on text that neither made theta nor chose among settings. `model`: the `.nkat` file.
    """

    results: Results
    reports: tuple[Quality, ...]
    model: Path


def tune(plan: TuningPlan, progress: Progress) -> Tuning:
    """Make theta at the highest rank unless the folder has it, search, and write the winner.

    Raises `NkatError` for what is wrong with the plan, its files or its texts. After an interrupt the same
    plan with `resume` goes on: in the making of theta, or with the trials that are missing.
    """
    _make_folder(plan.folder)
    study_path = plan.folder / STUDY
    if not plan.job.output.exists():
        if study_path.exists():
            raise ConfigError(
                f"{study_path}: lacks its theta, {plan.job.output.name}; delete it to start anew"
            )
        job = replace(plan.job, resume=plan.resume and plan.job.checkpoint.exists())
        convert(job, progress, report=False)
    with open_model(plan.job.input).file as base:
        theta = open_theta(base, plan.job.output)
        assert theta is not None, "a sidecar without theta is refused"
        engine = Engine.load(_engine_config(plan))
        material = Material.gather(plan.job, engine.tokenizer)
        _check_theta(plan, theta, material)
        study = open_study(
            study_path,
            _identity(plan, material, base_sha256(base)),
            seed=plan.job.seed,
            resume=plan.resume and study_path.exists(),
        )
        bench = TuningBench(engine, theta, material.choosing.windows.to(engine.kernels.device))
        *_, baseline = bench.losses(None)

        def told(done: int, total: int, note: str) -> None:
            progress("search", done, total, note)

        search(study, plan, bench, told)
        results = Results.of(study, bench.overhead, math.exp(baseline))
        return _finish(plan, results, bench, engine, theta, material, progress)


def _finish(
    plan: TuningPlan,
    results: Results,
    bench: TuningBench,
    engine: Engine,
    theta: Theta,
    material: Material,
    progress: Progress,
) -> Tuning:
    best = results.best
    setting = Setting(best.rank, best.gamma, Layers(best.layers))
    factors = bench.factors(setting)
    engine.replace_theta(factors, best.gamma)
    reports = tuple(_report(engine, sample, progress) for sample in material.reports)
    notes = {key: value for key, value in theta.notes.items() if not key.startswith(REPORT_PREFIX)}
    notes |= report_notes(reports)
    winner = replace(theta, factors=factors, rank=best.rank, gamma=best.gamma, notes=notes)
    name = f"optimal_rank{best.rank}_gamma{best.gamma:.2f}"
    model = plan.folder / f"{name}.nkat"
    for earlier in plan.folder.glob("optimal_rank*_gamma*.*"):
        earlier.unlink()  # the winner of a shorter search of this folder
    with open_model(plan.job.input).file as base:
        write_nkat(base, winner, model)
    summary = results.summary()
    write_json(plan.folder / f"{name}.json", summary | {"reports": [one.notes() for one in reports]})
    write_json(plan.folder / HISTORY, [asdict(trial) for trial in results.trials])
    write_json(
        plan.folder / SUMMARY,
        {
            "mode": plan.mode.value,
            "ranks": plan.ranks,
            "layers": plan.layers,
            "best": summary,
            "importances": results.importances,
            "pareto_front": [asdict(trial) for trial in results.pareto_front],
            "storage": STUDY,
        },
    )
    write_picture(plan.folder / PICTURE, results, f"{engine.info.name}: {len(results.trials)} trials")
    return Tuning(results, reports, model)


def _report(engine: Engine, sample: Sample, progress: Progress) -> Quality:
    def done(count: int) -> None:
        progress("evaluate", count, len(sample.windows), sample.name)

    return evaluate(engine.model, sample.name, sample.windows.to(engine.kernels.device), done)


def _engine_config(plan: TuningPlan) -> EngineConfig:
    job = plan.job
    context = max(job.window, CONTEXT)
    return EngineConfig(
        job.input,
        context_length=context,
        kv_tokens=context,
        threads=job.threads,
        device=job.device,
        theta_path=job.output,
    )


def _identity(plan: TuningPlan, material: Material, sha256: str) -> dict[str, Any]:
    """All that makes two trials comparable, by the names that users know."""
    return {
        "model": sha256,
        "mode": plan.mode.value,
        "target rank": plan.target_rank,
        "calibration text": digest(material.choosing.windows),
    }


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made a folder: {error.strerror}") from None


def _check_theta(plan: TuningPlan, theta: Theta, material: Material) -> None:
    """Raise `ConfigError` for theta in the folder that was made otherwise than the plan says."""
    job = plan.job
    with ExitStack() as files:
        reference = None if job.reference is None else files.enter_context(open_gguf(job.reference))
        planned = calibration_notes(job, material.calibration, reference)
    found = {"rank": theta.rank} | {key: theta.notes.get(f"{CALIBRATION_PREFIX}{key}") for key in _MAKING}
    wanted = {"rank": job.rank} | {key: planned.get(f"{CALIBRATION_PREFIX}{key}") for key in _MAKING}
    different = [label for key, label in {"rank": "rank", **_MAKING}.items() if found[key] != wanted[key]]
    if different:
        raise ConfigError(
            f"{job.output}: was made otherwise (different: {', '.join(different)}); repeat that search's "
            "flags, or choose another --output-dir"
        )
