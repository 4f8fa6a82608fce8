"""What the engine is told at start. Typed, frozen, and free of where the values came from."""

from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError

DEFAULT_CONTEXT_LENGTH = 16384
"""Tokens, where the model knows that many and the memory allows them."""
DEFAULT_DRAFT_TOKENS = 8
"""With a draft model; KoboldCpp's figure."""
MOST_DRAFT_TOKENS = 64
"""Longer ones are hardly ever right to their end."""


def usual_contexts(context_length: int) -> int:
    """How many contexts of that length the KV cache holds if nobody says: four short ones, two long ones."""
    return max(2, min(4, DEFAULT_CONTEXT_LENGTH // context_length))


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of one engine. `None` means: the engine decides from the model and the machine.

    Raises `ConfigError` for values that no engine could run with.
    """

    model: Path
    """GGUF file; the first part of a split model."""
    context_length: int | None = None
    """Tokens a request may span; None: the model's own, at most 4,096."""
    threads: int | None = None
    """CPU threads for the model; None: the physical cores."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`; or several with the layers that each has, `cpu=9,cuda:0=24`."""
    gpu_layers: int | None = None
    """A wish for whoever chooses devices: layers on GPUs, the output is one; None: as many as fit."""
    tensor_split: tuple[float, ...] | None = None
    """A wish of the same kind: shares of these layers by GPU."""
    main_gpu: int | None = None
    """A wish of the same kind: the one GPU to use."""
    kernels: str = "auto"
    """`auto` for the best that the device can run, or the name of one of them: `reference` runs anywhere.

    For several devices, names joined by `+`: each takes the first that it can run.
    """
    max_sequences: int = 16
    """Requests computed together; more wait their turn."""
    token_budget: int = 512
    """Tokens computed in one step over all requests; longer prompts go in chunks."""
    block_size: int = 16
    """Tokens in one block of the KV cache."""
    kv_tokens: int | None = None
    """Tokens the KV cache holds over all requests; None: four contexts."""
    quantkv: int = 0
    """Bits of keys and values: 0 for 16, 1 for 8, 2 for 4, on kernels that can; others keep theirs."""
    context_shift: bool = True
    """Whether a context whose middle was cut out moves what lies behind the cut instead of computing it anew.

    That is faster, and not exact: see `engine.context_shift`.
    """
    draft_tokens: int | None = None
    """Tokens that may be guessed ahead of a reply in one step, 0 for none; see `engine.speculation`.

    None: as many as a draft model is usually asked for if there is one, else none.
    """
    draft_model: Path | None = None
    """GGUF file of a smaller model with the same vocabulary, which guesses them; None: they are looked up."""
    theta: bool = True
    """Whether theta counts, where there is one."""
    theta_path: Path | None = None
    """Sidecar file with theta for the model; None: the model file's own theta, if it has one."""
    gamma: float | None = None
    """Strength of theta, 0 to 1; None: as theta's file says."""

    def __post_init__(self) -> None:
        for name in ("context_length", "threads", "kv_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        for name in ("max_sequences", "token_budget", "block_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.quantkv not in (0, 1, 2):
            raise ConfigError(f"quantkv must be 0, 1 or 2, not {self.quantkv}")
        if self.draft_tokens is not None and not 0 <= self.draft_tokens <= MOST_DRAFT_TOKENS:
            raise ConfigError(
                f"draft_tokens must lie between 0 and {MOST_DRAFT_TOKENS}, not {self.draft_tokens}"
            )
        if self.gamma is not None and not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma must lie between 0 and 1, not {self.gamma:g}")
        if self.token_budget < self.max_sequences:
            raise ConfigError(
                f"token_budget ({self.token_budget}) must be at least max_sequences "
                f"({self.max_sequences}): each running request needs one token a step"
            )

    @property
    def drafted_tokens(self) -> int:
        """Tokens of the longest draft; 0: there are no drafts."""
        if self.draft_tokens is None:
            return 0 if self.draft_model is None else DEFAULT_DRAFT_TOKENS
        return self.draft_tokens
