"""What a user asks of a conversion. Knows no torch."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from engine.errors import ConfigError
from engine.theta.names import DEFAULT_GAMMA, DEFAULT_RANK
from engine.theta.theta import check_gamma, check_rank

_SEEDS = 1 << 31
"""numpy takes 32 bits, and each round over a text and each search that goes on counts the seed up."""


class Method(StrEnum):
    """How theta is made."""

    SVD = "svd"
    """From the weights alone, by the letter of the guide; it does not help."""
    RESIDUAL = "residual"
    """In closed form, from a better version of the model."""
    TRAIN = "train"
    """By gradient descent, on text or towards a better version of the model."""


@dataclass(frozen=True, slots=True)
class ConversionJob:
    """A conversion. Raises `ConfigError` and `ModelFileError` for what contradicts itself."""

    input: Path
    output: Path
    """A `.nkat` file, or theta alone if `theta_only`."""
    method: Method = Method.TRAIN
    rank: int = DEFAULT_RANK
    gamma: float = DEFAULT_GAMMA
    optimize_rank: bool = False
    """Make theta at the highest rank and keep the one with the best TPE."""
    selective_layers: tuple[str, ...] = ()
    """Names and patterns of tensors; empty: every linear layer of every block."""
    target_size: int = 512
    """For `svd`: the edge of the block that is taken of each matrix."""
    calibration: tuple[Path, ...] = ()
    """Texts that theta is made with; empty: English prose that ships with Python."""
    reference: Path | None = None
    """A better GGUF file of the same model."""
    choosing_windows: int = 0
    """Windows of the calibration text to hold back for a choice among several results."""
    eval_text: Path | None = None
    """Text to report on; None: the end of the calibration text, which is then not used to make theta."""
    eval_windows: int = 20
    """Windows of a text that are reported on."""
    evaluate: bool = True
    theta_only: bool = False
    export_lora: Path | None = None
    steps: int = 100
    learning_rate: float = 2e-3
    window: int = 512
    """Tokens computed together: one step of training."""
    windows: int = 16
    """For `residual`: windows of the text that the layers' inputs are taken from."""
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        check_rank(self.rank)
        check_gamma(self.gamma)
        if self.gamma == 0:
            raise ConfigError(
                "gamma is 0, which takes all effect from theta; the guide's range is 0.90 to 0.99"
            )
        for name in ("target_size", "eval_windows", "steps", "windows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.window < 16:
            raise ConfigError(f"a window must have at least 16 tokens, not {self.window}")
        if not 0 < self.learning_rate <= 1:
            raise ConfigError(f"the learning rate must lie between 0 and 1, not {self.learning_rate:g}")
        if not 0 <= self.seed < _SEEDS:
            raise ConfigError(f"the seed must lie between 0 and {_SEEDS - 1}, not {self.seed}")
        if self.method is Method.RESIDUAL and self.reference is None:
            raise ConfigError("the method residual needs --reference, a better GGUF file of the same model")
        if self.method is Method.SVD and self.reference is not None:
            raise ConfigError("the method svd has no use for --reference; use residual or train")
        if self.optimize_rank and not self.choosing_windows:
            raise ConfigError("the best rank cannot be told without windows for choosing")
        if self.export_lora is not None and self.export_lora.resolve() == self.output.resolve():
            raise ConfigError("--output and --export-lora name the same file")

    @property
    def checkpoint(self) -> Path:
        """Where the job keeps what it has so far."""
        return self.output.with_name(f"{self.output.name}.checkpoint")
