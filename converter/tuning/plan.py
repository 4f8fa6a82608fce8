"""What a user asks of the optimiser. Knows neither torch nor optuna."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from converter.job import ConversionJob
from engine.errors import ConfigError
from engine.theta import RANKS


class Mode(StrEnum):
    """How long to search, and in how large a space."""

    QUICK = "quick"
    """12 trials over rank and gamma."""
    FULL = "full"
    """100 trials over rank, gamma and the layers that theta corrects."""
    CUSTOM = "custom"
    """As many trials as the user says, over rank and gamma."""


TRIALS = {Mode.QUICK: 12, Mode.FULL: 100}


class Layers(StrEnum):
    """Subsets of the tensors that theta may correct."""

    ALL = "all"
    ATTENTION = "attention"
    FEED_FORWARD = "feed-forward"
    FIRST_HALF = "first half"
    SECOND_HALF = "second half"

    def take(self, tensors: list[str]) -> list[str]:
        """Those of the tensors, given in the model's order, that belong to the subset."""
        half = len(tensors) // 2
        match self:
            case Layers.ALL:
                return tensors
            case Layers.ATTENTION:
                return [name for name in tensors if ".attn_" in name]
            case Layers.FEED_FORWARD:
                return [name for name in tensors if ".ffn_" in name]
            case Layers.FIRST_HALF:
                return tensors[:half]
            case Layers.SECOND_HALF:
                return tensors[half:]


@dataclass(frozen=True, slots=True)
class TuningPlan:
    """A search. Raises `ConfigError` and `ModelFileError` for what contradicts itself.

    `job`: how theta is made; its rank is the highest that is tried, and its output, a sidecar in the
    folder of the search, holds theta at that rank.
    """

    job: ConversionJob
    folder: Path
    mode: Mode
    trials: int
    target_rank: int | None = None
    """The only rank to try; None: all of them."""
    resume: bool = False

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError(f"a search needs at least 1 trial, not {self.trials}")
        if not self.job.theta_only or not self.job.choosing_windows or not self.job.evaluate:
            raise ConfigError("the optimiser needs theta alone, windows for choosing, and a report")

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks to try."""
        return RANKS if self.target_rank is None else (self.target_rank,)

    @property
    def layers(self) -> tuple[Layers, ...]:
        """The subsets of layers to try."""
        return tuple(Layers) if self.mode is Mode.FULL else (Layers.ALL,)
