"""All corrections of a model, and what their file says of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelFileError
from engine.gguf import GGMLType, GGUFFile, TensorInfo
from engine.printable import quoted
from engine.theta import names
from engine.theta.factors import ThetaFactors


@dataclass(frozen=True, slots=True)
class Theta:
    """Theta of one model.

    `factors` by the name of the corrected tensor (`blk.0.attn_q.weight`); `gamma` in [0, 1];
    `base_sha256`: hexadecimal SHA-256 of the model file that it was made for; `notes`: the keys
    `nkat.calibration.*` and `nkat.report.*`.
    """

    factors: Mapping[str, ThetaFactors]
    rank: int
    gamma: float
    method: str
    base_sha256: str
    notes: Mapping[str, Any] = field(default_factory=dict)


def read_theta(file: GGUFFile, corrected: Mapping[str, TensorInfo]) -> Theta | None:
    """Theta of a file, `.nkat` or sidecar; None where the file has none.

    `corrected`: the tensors of the model that it is for. Raises `ModelFileError`, one line without the
    file's name, for theta that is damaged, incomplete or made for tensors that the model has not.
    """
    metadata = file.metadata
    if names.VERSION_KEY not in metadata:
        return None
    version = _integer(metadata, names.VERSION_KEY)
    if version != names.VERSION:
        raise ModelFileError(f"theta of version {version}; this program reads version {names.VERSION}")
    rank = _integer(metadata, names.RANK_KEY)
    check_rank(rank)
    base = _text(metadata, names.BASE_KEY)
    check_base(base)
    gamma = metadata.get(names.GAMMA_KEY)
    if not isinstance(gamma, float):
        raise ModelFileError(f"{names.GAMMA_KEY} must be a number")
    check_gamma(gamma)
    factors: dict[str, ThetaFactors] = {}
    for name in file.tensors:
        tensor = names.corrected_tensor(name)
        if tensor is not None and tensor not in factors:
            factors[tensor] = _read_factors(file, tensor)
            if tensor not in corrected:
                raise ModelFileError(f"theta corrects {quoted(tensor)}, which the model does not have")
            factors[tensor].check(tensor, corrected[tensor].shape, rank)
    if len(factors) != _integer(metadata, names.COUNT_KEY):
        raise ModelFileError(f"theta of {len(factors)} tensors; {names.COUNT_KEY} promises another number")
    prefixes = (names.CALIBRATION_PREFIX, names.REPORT_PREFIX)
    return Theta(
        factors,
        rank,
        gamma,
        _text(metadata, names.METHOD_KEY),
        base,
        {key: value for key, value in metadata.items() if key.startswith(prefixes)},
    )


def check_rank(rank: int) -> None:
    """Raise `ModelFileError` for a rank that theta cannot have."""
    if rank not in names.RANKS:
        allowed = ", ".join(map(str, names.RANKS))
        raise ModelFileError(f"theta cannot have rank {rank}; allowed are {allowed}")


def check_gamma(gamma: float) -> None:
    """Raise `ModelFileError` for a gamma outside [0, 1], NaN included."""
    if not 0 <= gamma <= 1:
        raise ModelFileError(f"gamma is {gamma:g}; it must lie between 0 and 1")


def check_base(sha256: str) -> None:
    """Raise `ModelFileError` for what is no lower-case hexadecimal SHA-256."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ModelFileError(f"{names.BASE_KEY} must be 64 hexadecimal digits, not {quoted(sha256)}")


def _read_factors(file: GGUFFile, tensor: str) -> ThetaFactors:
    u, v, scale = names.theta_names(tensor)
    return ThetaFactors(
        _raw(file, u, GGMLType.I8).view(np.int8),
        _raw(file, v, GGMLType.I8).view(np.int8),
        _raw(file, scale, GGMLType.F32).view(np.float32),
    )


def _raw(file: GGUFFile, name: str, kind: GGMLType) -> npt.NDArray[np.uint8]:
    """The bytes of a theta tensor, (*shape[:-1], bytes of a row), apart from the file's mapping."""
    info = file.tensors.get(name)
    if info is None:
        raise ModelFileError(f"theta is incomplete: the tensor {quoted(name)} is missing")
    if info.type is not kind:
        raise ModelFileError(f"{quoted(name)} must be of type {kind.name}, not {info.type.name}")
    return file.data(name).copy()


def _integer(metadata: Mapping[str, Any], key: str) -> int:
    value = metadata.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelFileError(f"{key} must be a whole number")
    return value


def _text(metadata: Mapping[str, Any], key: str) -> str:
    value = metadata.get(key)
    if not isinstance(value, str):
        raise ModelFileError(f"{key} must be a string")
    return value
