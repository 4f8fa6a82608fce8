"""The texts of a conversion, cut into windows, each for one purpose only."""

from dataclasses import dataclass

import torch

from converter.job import ConversionJob, Method
from converter.windows import cut, hold_out
from engine.text import Text
from engine.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Sample:
    """Windows of one text, int64 [windows, T], and what to call it."""

    name: str
    windows: torch.Tensor


@dataclass(frozen=True, slots=True)
class Material:
    """What theta is made with, chosen by, and reported on. No window is in two of them."""

    calibration: Sample
    choosing: Sample
    """For the choice of a rank; empty where none is asked for."""
    reports: tuple[Sample, ...]
    """The end of the calibration text, or the text that the user names; then a text of another kind."""

    @classmethod
    def gather(cls, job: ConversionJob, tokenizer: Tokenizer) -> "Material":
        """Read and cut the texts of a job. Raises `RequestError`."""
        text = Text.read(job.calibration) if job.calibration else Text.built_in()
        # By the letter of the guide theta needs no text; what there is serves the report.
        left = cut(text, tokenizer, job.window)
        reports: list[Sample] = []
        if job.evaluate:
            if job.eval_text is None:
                left, held_out = hold_out(left, job.eval_windows)
                reports.append(Sample(f"{text.name}, held out", held_out))
            else:
                own = Text.read([job.eval_text])
                reports.append(Sample(own.name, cut(own, tokenizer, job.window, most=job.eval_windows)))
            other = Text.built_in() if job.calibration else Text.code()
            reports.append(Sample(other.name, cut(other, tokenizer, job.window, most=job.eval_windows)))
        left, choosing = hold_out(left, job.choosing_windows)
        if job.method is Method.RESIDUAL:
            left = left[: job.windows]
        return cls(
            Sample(text.name, left),
            Sample(text.name, choosing),
            tuple(sample for sample in reports if len(sample.windows)),
        )
