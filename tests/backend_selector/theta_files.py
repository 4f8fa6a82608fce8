"""Hand-written theta: a sidecar, or theta beside a tiny model's own tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType

from engine.gguf import open_gguf
from engine.theta import names
from tests.support.gguf_files import Tensor, write_gguf

TENSOR = "blk.0.attn_q.weight"


def theta_keys(base_sha256: str, **changes: Any) -> dict[str, Any]:
    """The keys of theta at rank 2 for one tensor; `changes` by the key's last word."""
    keys: dict[str, Any] = {
        names.VERSION_KEY: names.VERSION,
        names.RANK_KEY: 2,
        names.GAMMA_KEY: 0.95,
        names.METHOD_KEY: "svd",
        names.COUNT_KEY: 1,
        names.BASE_KEY: base_sha256,
    }
    return keys | {key: changes[word] for key in keys if (word := key.rpartition(".")[2]) in changes}


def theta_tensors(m: int = 64, n: int = 64, *, tensor: str = TENSOR) -> dict[str, Tensor]:
    """U, V and scales of zeros and ones for a tensor (m, n)."""
    u, v, scale = names.theta_names(tensor)
    return {
        u: Tensor(np.zeros((m, 2), np.int8), GGMLQuantizationType.I8),
        v: Tensor(np.ones((n, 2), np.int8), GGMLQuantizationType.I8),
        scale: Tensor(np.ones(2, np.float32), GGMLQuantizationType.F32),
    }


def write_sidecar(path: Path, keys: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> Path:
    """A file with theta alone."""
    return write_gguf(path, {"general.architecture": "llama", **keys}, tensors or theta_tensors())


def write_star_model(path: Path, base: Path) -> Path:
    """The model `base` with theta in the same file."""
    with open_gguf(base) as file:
        tensors = {
            name: Tensor(file.data(name).copy(), GGMLQuantizationType(int(info.type)))
            if info.type.name != "F32"
            else Tensor(file.data(name).view(np.float32).copy(), GGMLQuantizationType.F32)
            for name, info in file.tensors.items()
        }
        keys = {**file.metadata, **theta_keys(file.sha256())}
        return write_gguf(path, keys, {**tensors, **theta_tensors()})
