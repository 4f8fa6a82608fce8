"""What theta does to a model on a text that was not used to make it, the baseline always beside it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F

from engine.batch import Batch
from engine.errors import ConfigError, ModelFileError
from engine.models import Model
from engine.theta.names import REPORT_PREFIX

_SURE = 2.0
"""Standard errors that a difference must exceed to count as one."""

_LARGEST = 700.0
"""Beyond this mean loss the perplexity leaves the floats: no undamaged model comes near."""


class Verdict(StrEnum):
    """Whether theta helps."""

    BETTER = "better"
    SAME = "no difference"
    WORSE = "worse"


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, samples: torch.Tensor) -> "Mean":
        """Of independent samples, [n]."""
        samples = samples.double()
        deviation = float(samples.std()) if len(samples) > 1 else 0.0
        return cls(float(samples.mean()), deviation / math.sqrt(len(samples)))

    def exp(self) -> "Mean":
        """The exponential, and the error that it has to first order."""
        return Mean(math.exp(self.value), math.exp(self.value) * self.error)


@dataclass(frozen=True, slots=True)
class Quality:
    """A model's quality on one text without theta and with it.

    `before`, `after`: perplexity by llama.cpp's definition (the second half of each window is scored);
    `change`: mean difference of the log likelihood losses, after minus before, token by token, so that
    what is hard about the text cancels; `divergence`: mean KL divergence from the baseline's distribution
    to that with theta, in nats.
    """

    text: str
    windows: int
    tokens: int
    before: Mean
    after: Mean
    change: Mean
    divergence: Mean

    @property
    def relative(self) -> float:
        """Change of the perplexity, -0.1 for a tenth less."""
        return self.after.value / self.before.value - 1

    @property
    def verdict(self) -> Verdict:
        """Whether the change is beyond two standard errors, and on which side."""
        if abs(self.change.value) <= _SURE * self.change.error:
            return Verdict.SAME
        return Verdict.BETTER if self.change.value < 0 else Verdict.WORSE

    def notes(self) -> dict[str, Any]:
        """The figures by the names they have in theta's file, without the prefix."""
        return {
            "text": self.text,
            "windows": self.windows,
            "tokens": self.tokens,
            "ppl_before": self.before.value,
            "ppl_before_error": self.before.error,
            "ppl_after": self.after.value,
            "ppl_after_error": self.after.error,
            "kl": self.divergence.value,
            "kl_error": self.divergence.error,
            "verdict": self.verdict.value,
        }


def report_notes(reports: Sequence[Quality]) -> dict[str, Any]:
    """Up to two reports by the keys that theta's file has for them: the text's own kind, then another."""
    prefixes = (REPORT_PREFIX, f"{REPORT_PREFIX}second.")
    return {
        f"{prefix}{key}": value
        for prefix, report in zip(prefixes, reports, strict=False)
        for key, value in report.notes().items()
    }


@torch.inference_mode()
def evaluate(
    model: Model,
    text: str,
    windows: torch.Tensor,
    progress: Callable[[int], None] = lambda done: None,
) -> Quality:
    """Run every window, int64 [windows, T], through a model that has theta, with it off and on.

    `text` names it. `progress` is told how many windows are done. Theta is on afterwards. Raises
    `ModelFileError` and `ConfigError` for predictions that are not finite without theta and with it.
    """
    star = model.star
    assert star is not None, "there is theta to evaluate"
    before, after, divergences = [], [], []
    first = windows.shape[1] // 2
    for number, ids in enumerate(windows):
        batch = Batch.of_one(ids, range(first, len(ids) - 1))
        odds = []
        for on in (False, True):
            star.enable(on)
            odds.append(F.log_softmax(model(batch, None), -1))
        baseline, nkat = odds
        targets = ids[first + 1 :]
        before.append(F.nll_loss(baseline, targets, reduction="none"))
        after.append(F.nll_loss(nkat, targets, reduction="none"))
        divergences.append(F.kl_div(nkat, baseline, log_target=True, reduction="none").sum(-1))
        progress(number + 1)
    losses, others = torch.cat(before), torch.cat(after)
    if not float(losses.double().mean()) <= _LARGEST:
        raise ModelFileError(f"the model's predictions on {text} are not finite: its file is damaged")
    if not float(others.double().mean()) <= _LARGEST:
        raise ConfigError(
            f"with theta the model's predictions on {text} are not finite; if it was trained, lower the "
            "learning rate"
        )
    return Quality(
        text=text,
        windows=len(windows),
        tokens=len(losses),
        before=Mean.of(losses).exp(),
        after=Mean.of(others).exp(),
        change=Mean.of(others.double() - losses.double()),
        divergence=Mean.of(torch.cat(divergences)),
    )
