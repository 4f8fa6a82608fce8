"""Writes theta as a LoRA adapter, with which stock llama.cpp and KoboldCpp run it (`--lora FILE`).

Source of the form: `llama-adapter.cpp` of llama.cpp (MIT). For a matrix (m, n) it wants `NAME.lora_a` (r, n)
and `NAME.lora_b` (m, r), and computes A x + scale * lora_b (lora_a x) with scale = alpha / r * the user's.
"""

from pathlib import Path

import numpy as np

from converter.writer import NewTensor, check_output, entry, write_gguf
from engine.errors import ConfigError, ModelFileError
from engine.gguf import GGUFFile
from engine.theta import Theta, ThetaFactors

_INT8_MAX = 127
_EMBEDDING = "token_embd.weight"


def write_lora(theta: Theta, gamma: float, base: GGUFFile, output: Path) -> None:
    """Write an adapter for `base` whose term, at the scale 1, is that of theta: 0.5 * gamma * B x.

    Raises what `check_output` and `write_gguf` raise, `ModelFileError` for theta that does not fit `base`,
    and `ConfigError` for theta of the embedding, which adapters apply to a lookup and not to a product.
    """
    check_output(output, base)
    architecture = base.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ModelFileError(f"{base.path}: does not name its architecture (general.architecture)")
    tensors: list[NewTensor] = []
    for name in sorted(theta.factors):
        if name == _EMBEDDING:
            raise ConfigError(f"theta of {name} cannot become a LoRA adapter")
        if name not in base.tensors:
            raise ModelFileError(f"theta corrects {name}, which the model does not have")
        factors = theta.factors[name]
        factors.check(name, base.tensors[name].shape, theta.rank)
        tensors += _pair(name, factors, gamma)
    entries = [
        entry("general.type", "adapter"),
        entry("general.architecture", architecture),
        entry("adapter.type", "lora"),
        entry("adapter.lora.alpha", np.float32(theta.rank)),
    ]
    write_gguf(output, entries, tensors)


def _pair(name: str, factors: ThetaFactors, gamma: float) -> tuple[NewTensor, NewTensor]:
    """Both matrices, float32, with lora_b @ lora_a = 0.5 * gamma * B.

    The elements of lora_a lie in [-1, 1]: some backends keep lora_a x in half precision, which large inputs
    times 127 would leave.
    """
    a = factors.v.T.astype(np.float32) / np.float32(_INT8_MAX)
    b = factors.u * (factors.scale * np.float32(0.5 * gamma * _INT8_MAX))
    return NewTensor.of(f"{name}.lora_a", a), NewTensor.of(f"{name}.lora_b", b)
