"""The whole way from a model file to a file with theta, measured on text that did not make it."""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from converter.evaluation import Quality, evaluate, report_notes
from converter.factors import FactorMaker, Progress
from converter.job import ConversionJob, Method
from converter.lora import write_lora
from converter.material import Material, Sample
from converter.moments import ObservedKernels
from converter.overhead import measure_overhead
from converter.selection import select_tensors
from converter.space import check_space
from converter.trainable import TrainableModel
from converter.windows import digest
from converter.writer import check_output, write_nkat, write_sidecar
from engine.architectures import ModelFile, open_model
from engine.device import torch_device
from engine.errors import ConfigError, ModelFileError
from engine.gguf import GGUFFile
from engine.memory import available_bytes
from engine.models import Loader, load_model
from engine.theta import RANKS, Theta, ThetaFactors, base_sha256
from engine.theta.names import CALIBRATION_PREFIX
from engine.theta.score import tpe
from engine.tokenizer import Tokenizer

_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_MEMORY_SHARE = 3
"""A model may keep dequantised weights in this fraction of the memory that is free when it is loaded."""


@dataclass(frozen=True, slots=True)
class RankTrial:
    """What one rank would give: perplexity on the windows for choosing, decode overhead, and their TPE."""

    rank: int
    perplexity: float
    overhead: float
    tpe: float


@dataclass(frozen=True, slots=True)
class Conversion:
    """What came of a job.

    `reports`: first on the text it was made for, then on one of another kind; none where the job wants no
    evaluation. `trials`: by rank, where the job asks for the best.
    """

    theta: Theta
    reports: tuple[Quality, ...]
    trials: tuple[RankTrial, ...]


def convert(job: ConversionJob, progress: Progress, *, report: bool = True) -> Conversion:
    """Make theta, measure it unless `report` is off, write it.

    Nothing is written before everything is known, but for the job's checkpoint, which goes at the end.
    Raises `NkatError` for what is wrong with the job, its files or its texts. An interrupt leaves the
    checkpoint, and what was there before.
    """
    with ExitStack() as files:
        base = open_model(job.input)
        files.enter_context(base.file)
        reference = None
        if job.reference is not None:
            reference = open_model(job.reference)
            files.enter_context(reference.file)
            _check_reference(base, reference)
        _check_outputs(job, base, reference)
        selected = select_tensors(job.selective_layers, _linears(base), base.config.layers)
        if job.export_lora is not None and _EMBEDDING in selected:
            raise ConfigError(f"theta of {_EMBEDDING} cannot become a LoRA adapter; leave one of them out")
        check_space(job, base.file, selected)
        return _Run(job, base, reference, selected, progress).result(report=report)


class _Run:
    """A job whose files are open and fit each other."""

    def __init__(
        self,
        job: ConversionJob,
        base: ModelFile,
        reference: ModelFile | None,
        selected: list[str],
        progress: Progress,
    ) -> None:
        self._job = job
        self._base = base
        self._reference = reference
        self._selected = selected
        self._progress = progress
        self._material = Material.gather(job, Tokenizer.from_metadata(base.file.metadata))
        if job.choosing_windows and not len(self._material.choosing.windows):
            raise ConfigError("the calibration text is too short to hold windows back for choosing")
        self._device = torch_device(job.device)
        torch.set_num_threads(job.threads or len(os.sched_getaffinity(0)))
        self._sha256 = base_sha256(base.file)

    def result(self, *, report: bool) -> Conversion:
        job = self._job
        rank = max(RANKS) if job.optimize_rank else job.rank
        model = TrainableModel(
            self._base,
            self._kernels(),
            self._selected,
            rank=rank,
            gamma=job.gamma,
            positions=job.window,
            seed=job.seed,
        )
        factors = self._factors(model)
        trials = self._try_ranks(model, factors) if job.optimize_rank else ()
        if trials:
            rank = max(trials, key=lambda trial: trial.tpe).rank
            factors = {name: one.truncated(rank) for name, one in factors.items()}
        model.star.load(factors)
        reports = tuple(self._report(model, sample) for sample in self._material.reports if report)
        theta = self._theta(factors, rank, reports)
        for file in (self._base, *([] if self._reference is None else [self._reference])):
            file.file.check_whole()
        self._write(theta)
        job.checkpoint.unlink(missing_ok=True)
        return Conversion(theta, reports, trials)

    def _kernels(self) -> ObservedKernels:
        return ObservedKernels(self._device, dense_bytes=available_bytes(self._device) // _MEMORY_SHARE)

    def _factors(self, model: TrainableModel) -> dict[str, ThetaFactors]:
        job, reference = self._job, self._reference
        teacher = None
        if reference is not None and job.method is Method.TRAIN:
            teacher = load_model(reference, Loader(reference, self._kernels()), job.window)
        maker = FactorMaker(
            job,
            model,
            self._base.file,
            self._material.calibration.windows.to(self._device),
            None if reference is None else reference.file,
            teacher,
            self._identity(model.rank),
            self._progress,
        )
        return maker.make()

    def _identity(self, rank: int) -> dict[str, Any]:
        """All that the factors depend on, by the names that users know."""
        job = self._job
        return {
            "model": self._sha256,
            "method": job.method.value,
            "rank": rank,
            "gamma": job.gamma,
            "selective layers": self._selected,
            "calibration text": digest(self._material.calibration.windows),
            "ctx": job.window,
            "reference": None if self._reference is None else base_sha256(self._reference.file),
            "windows": None if self._reference is None else job.windows,
            "steps": job.steps,
            "learning rate": job.learning_rate,
            "seed": job.seed,
        }

    def _try_ranks(self, model: TrainableModel, factors: dict[str, ThetaFactors]) -> tuple[RankTrial, ...]:
        trials = []
        for number, rank in enumerate(RANKS):
            truncated = {name: one.truncated(rank) for name, one in factors.items()}
            model.star.load(truncated)
            choosing = self._material.choosing
            perplexity = evaluate(model.model, choosing.name, choosing.windows.to(self._device)).after.value
            overhead = measure_overhead(self._job, self._theta(truncated, rank, ()), self._base.architecture)
            trials.append(RankTrial(rank, perplexity, overhead, tpe(perplexity, overhead)))
            self._progress("ranks", number + 1, len(RANKS), f"rank {rank}: perplexity {perplexity:.3f}")
        return tuple(trials)

    def _report(self, model: TrainableModel, sample: Sample) -> Quality:
        stage = "evaluate" if sample is self._material.reports[0] else "second text"

        def done(count: int) -> None:
            self._progress(stage, count, len(sample.windows), "")

        return evaluate(model.model, sample.name, sample.windows.to(self._device), done)

    def _theta(self, factors: dict[str, ThetaFactors], rank: int, reports: tuple[Quality, ...]) -> Theta:
        reference = None if self._reference is None else self._reference.file
        notes = calibration_notes(self._job, self._material.calibration, reference)
        notes |= report_notes(reports)
        return Theta(factors, rank, self._job.gamma, self._job.method.value, self._sha256, notes)

    def _write(self, theta: Theta) -> None:
        job = self._job
        self._progress("write", 0, 1, job.output.name)
        if job.theta_only:
            write_sidecar(theta, job.output, self._base.architecture)
        else:
            write_nkat(self._base.file, theta, job.output)
        if job.export_lora is not None:
            write_lora(theta, job.gamma, self._base.file, job.export_lora)
        self._progress("write", 1, 1, job.output.name)


def calibration_notes(job: ConversionJob, calibration: Sample, reference: GGUFFile | None) -> dict[str, Any]:
    """How a job makes theta, by the keys that theta's file has for it."""
    if job.method is Method.SVD:
        return {f"{CALIBRATION_PREFIX}target_size": job.target_size}
    notes: dict[str, Any] = {
        "text": calibration.name,
        "sha256": digest(calibration.windows),
        "windows": len(calibration.windows),
        "window_tokens": job.window,
        "seed": job.seed,
    }
    if job.method is Method.TRAIN:
        notes |= {"steps": job.steps, "learning_rate": job.learning_rate}
    if reference is not None:
        notes |= {"reference": reference.path.name, "reference_sha256": base_sha256(reference)}
    return {f"{CALIBRATION_PREFIX}{key}": value for key, value in notes.items()}


def _linears(model: ModelFile) -> list[str]:
    """The matrices that a linear layer multiplies with; the embedding only where it is the output too."""
    matrices = [name for name, shape in model.config.tensors() if len(shape) == 2]
    if _OUTPUT in model.file.tensors:
        matrices[matrices.index(_EMBEDDING)] = _OUTPUT
    return matrices


def _check_outputs(job: ConversionJob, base: ModelFile, reference: ModelFile | None) -> None:
    """Find out before the work what could not or must not be written after it. Raises `ConfigError`."""
    inputs = [*job.calibration, *([] if job.eval_text is None else [job.eval_text])]
    inputs += [] if reference is None else reference.file.paths
    for path in (job.output, *([] if job.export_lora is None else [job.export_lora])):
        if not path.parent.is_dir():
            raise ConfigError(f"{path}: there is no folder {path.parent}; make it, or choose another output")
        if not os.access(path.parent, os.W_OK):
            raise ConfigError(f"{path}: nothing may be written into {path.parent}; choose another output")
        # the checkpoint's temporary file has the longest name of all that is put there
        if len(os.fsencode(f".{path.name}.checkpoint.partial")) > os.pathconf(path.parent, "PC_NAME_MAX"):
            raise ConfigError(f"{path}: file name too long; choose another output")
        check_output(path, base.file)
        if path.exists() and any(other.exists() and path.samefile(other) for other in inputs):
            raise ConfigError(f"{path}: is an input of the conversion; choose another output")
    _check_checkpoint(job.checkpoint, resume=job.resume)


def _check_checkpoint(path: Path, *, resume: bool) -> None:
    if resume and not path.exists():
        raise ConfigError(f"{path}: is not there, so that nothing can be resumed; start without --resume")
    if path.exists() and not resume:
        raise ConfigError(
            f"{path}: was left by an interrupted conversion; say --resume to go on, or delete it"
        )


def _check_reference(base: ModelFile, reference: ModelFile) -> None:
    """Raise `ModelFileError` unless both are the same model, whatever their quantisation."""
    tokens = "tokenizer.ggml.tokens"
    if (
        base.architecture != reference.architecture
        or dict(base.config.tensors()) != dict(reference.config.tensors())
        or base.file.metadata[tokens] != reference.file.metadata[tokens]
    ):
        raise ModelFileError(
            f"{reference.file.path}: is another model than {base.file.path.name} (its shapes or its "
            "vocabulary differ): a reference is the same model in a better quantisation"
        )
