"""Rotary position embedding with the scalings that GGUF files name.

Formulas: RoFormer (Su et al. 2021); linear interpolation (Chen et al. 2023); YaRN (Peng et al. 2023)
in the form that ggml computes; llama3 scaling comes ready as a tensor of frequency divisors.
"""

import math

import torch

from engine.architectures.rope_config import RopeConfig
from engine.errors import ModelFileError
from engine.kernels import Rotation


def rotation(
    config: RopeConfig, positions: int, device: torch.device, divisors: torch.Tensor | None = None
) -> Rotation:
    """Cosines and sines of the positions below `positions`.

    `divisors`, float32 [dimensions / 2]: the file's `rope_freqs.weight`, if it has one. Raises
    `ModelFileError` for settings and divisors of which no angles come.
    """
    pairs = torch.arange(config.dimensions // 2, dtype=torch.float64)
    frequencies = config.base ** (-2 * pairs / config.dimensions)
    if divisors is not None:
        frequencies = frequencies / divisors.double().cpu()
    magnitude = config.attention_factor
    if config.scaling == "linear":
        frequencies = frequencies / config.factor
    elif config.scaling == "yarn":
        kept = _yarn_kept(config, pairs)
        frequencies = frequencies * (kept + (1 - kept) / config.factor)
        magnitude *= 1 + 0.1 * math.log(config.factor)
    if not (frequencies * positions).isfinite().all():
        raise ModelFileError(
            "the rotation has no finite angles: the file's settings or rope_freqs.weight are damaged"
        )
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * frequencies
    return Rotation(
        (angles.cos() * magnitude).float().to(device), (angles.sin() * magnitude).float().to(device)
    )


def _yarn_kept(config: RopeConfig, pairs: torch.Tensor) -> torch.Tensor:
    """How much of its own frequency each pair keeps: 1 for the fast ones, 0 for the slow ones."""

    def pair_that_turns(times: float) -> float:
        turns = config.original_context / (times * 2 * math.pi)
        return config.dimensions * math.log(turns) / (2 * math.log(config.base))

    low = max(0, math.floor(pair_that_turns(config.beta_fast)))
    high = min(config.dimensions - 1, math.ceil(pair_that_turns(config.beta_slow)))
    return 1 - ((pairs - low) / max(0.001, high - low)).clamp(0, 1)
