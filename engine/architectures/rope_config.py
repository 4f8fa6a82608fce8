"""Settings of rotary position embedding."""

from dataclasses import dataclass
from typing import Self

from engine.architectures.hyperparameters import Hyperparameters
from engine.errors import ModelFileError
from engine.printable import quoted


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Settings of the rotation, named as in the file.

    `dimensions`: components of each head that turn; `scaling`: `none`, `linear` or `yarn`;
    `factor`: how much longer the context is than the one trained on; `original_context`: that one's
    length in tokens (YaRN only). The scaling of Llama 3.1 comes as a tensor, `rope_freqs.weight`.
    """

    dimensions: int
    base: float = 10000.0
    scaling: str = "none"
    factor: float = 1.0
    original_context: int = 0
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    @classmethod
    def read(cls, keys: Hyperparameters, head_dim: int) -> Self:
        """From the keys of a file; raises `ModelFileError`."""
        dimensions = keys.integer("rope.dimension_count", head_dim, least=2, most=head_dim)
        if dimensions % 2:
            raise ModelFileError(f"rope.dimension_count is {dimensions}; rotation needs an even number")
        scaling = keys.text("rope.scaling.type", "none")
        if scaling not in ("none", "linear", "yarn"):
            raise ModelFileError(f"rope.scaling.type is {quoted(scaling)}; supported: none, linear, yarn")
        # Files from before `rope.scaling` said how much with this key alone.
        old_factor = keys.number("rope.scale_linear", 0.0, least=0, most=1e6)
        factor = keys.number("rope.scaling.factor", old_factor, least=0, most=1e6)
        if factor in (0, 1):
            scaling, factor = "none", 1.0
        elif old_factor and scaling == "none":
            scaling = "linear"
        trained = keys.integer("context_length", most=2**31)
        return cls(
            dimensions=dimensions,
            base=keys.number("rope.freq_base", 10000.0, least=1.5, most=1e12),
            scaling=scaling,
            factor=factor,
            original_context=keys.integer("rope.scaling.original_context_length", trained, most=2**31),
            attention_factor=keys.number("rope.scaling.attn_factor", 1.0, least=0, most=1e3),
            beta_fast=keys.number("rope.scaling.yarn_beta_fast", 32.0, least=1e-3, most=1e6),
            beta_slow=keys.number("rope.scaling.yarn_beta_slow", 1.0, least=1e-3, most=1e6),
        )
