"""Writes theta: into a copy of its model (`.nkat`), or alone (a sidecar). Knows no torch.

A file is laid out as the GGUF specification (ggml, MIT) asks, version 3: header, metadata, tensor list, then
the tensors' data, each padded to the alignment and each where the one before it ends, since llama.cpp takes
no other order. Nothing in it depends on time or chance: the same input gives the same bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from struct import pack
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from converter.atomic import replacing
from engine.errors import ConfigError, ModelFileError
from engine.gguf import GGMLType, GGUFFile
from engine.theta import Theta, names
from engine.theta.theta import check_base, check_gamma, check_rank

SIDECAR_TYPE = "nkat-theta"
"""`general.type` of a file that holds theta alone."""

_ALIGNMENT = 32
_CHUNK = 1 << 24
"""Bytes written at once, so that an interrupt need not wait for a whole tensor."""

_FLOAT32, _BOOL, _STRING, _INT64, _FLOAT64 = 6, 7, 8, 11, 12


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to be written: `shape` in numpy order, `data` for its packed bytes when their turn comes."""

    name: str
    type: GGMLType
    shape: tuple[int, ...]
    data: Callable[[], npt.NDArray[Any]]

    @classmethod
    def of(cls, name: str, array: npt.NDArray[np.int8] | npt.NDArray[np.float32]) -> Self:
        """An array in its own type, I8 or F32."""
        kind = GGMLType.I8 if array.dtype == np.int8 else GGMLType.F32
        return cls(name, kind, array.shape, partial(np.ascontiguousarray, array))

    @property
    def n_bytes(self) -> int:
        """Bytes of the data, without padding."""
        return prod(self.shape) // self.type.block_size * self.type.type_size


def write_nkat(base: GGUFFile, theta: Theta, output: Path) -> None:
    """Write `base` and `theta` as one GGUF file.

    Metadata entries and tensors of `base` are copied byte for byte and in order; theta follows. Left out are
    only theta that `base` already holds, since the new one takes its place, and the keys `split.*`: a model
    of several files becomes one, with the metadata of the first. Raises what `check_output` and `write_gguf`
    raise, and `ModelFileError` for theta that does not fit `base` or was made for another model.
    """
    check_output(output, base)
    named = base.metadata.get(names.BASE_KEY, theta.base_sha256)
    if named != theta.base_sha256:
        raise ModelFileError(f"theta was made for another model than the one that {base.path} comes from")
    added = _theta_entries(theta)
    for name, factors in theta.factors.items():
        if name not in base.tensors:
            raise ModelFileError(f"theta corrects {name}, which the model does not have")
        factors.check(name, base.tensors[name].shape, theta.rank)
    dropped = (names.PREFIX, "split.")
    entries = [base.entry(key) for key in base.metadata if not key.startswith(dropped)]
    tensors = [
        NewTensor(info.name, info.type, info.shape, partial(base.data, info.name))
        for info in base.tensors.values()
        if names.corrected_tensor(info.name) is None
    ]
    write_gguf(
        output, [*entries, *added], [*tensors, *_theta_tensors(theta)], base.alignment, check=base.check_whole
    )


def write_sidecar(theta: Theta, output: Path, architecture: str) -> None:
    """Write theta without its model. `architecture`: the model's. Raises what `write_gguf` raises."""
    about = [entry("general.architecture", architecture), entry("general.type", SIDECAR_TYPE)]
    write_gguf(output, [*about, *_theta_entries(theta)], list(_theta_tensors(theta)))


def check_output(output: Path, base: GGUFFile) -> None:
    """Raise `ConfigError` if `output` is a file of `base`, or exists and is no regular file."""
    if output.exists() and not output.is_file():
        raise ConfigError(f"{output}: is not a regular file; choose another output")
    if output.exists() and any(output.samefile(path) for path in base.paths):
        raise ConfigError(f"{output}: is the input itself; choose another output")


def entry(key: str, value: object) -> bytes:
    """A metadata entry: UTF-8, BOOL, INT64, FLOAT64, and FLOAT32 for numpy's float32.

    Raises `ConfigError` for a value of another type or beyond 64 bits.
    """
    match value:
        case str():
            packed = pack("<I", _STRING) + _string(value)
        case bool():
            packed = pack("<I?", _BOOL, value)
        case int() if -(1 << 63) <= value < 1 << 63:
            packed = pack("<Iq", _INT64, value)
        case float():
            packed = pack("<Id", _FLOAT64, value)
        case np.generic() if value.dtype == np.float32:
            packed = pack("<If", _FLOAT32, value)
        case _:
            raise ConfigError(f"the metadata {key} cannot hold {value!r:.60}")
    return _string(key) + packed


def write_gguf(
    output: Path,
    entries: Sequence[bytes],
    tensors: Sequence[NewTensor],
    alignment: int = _ALIGNMENT,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write a GGUF file as a whole or not at all; an interrupt leaves what was there before.

    `check` is called when all has been read, and before the file takes its name. The data pass through memory
    in pieces. Raises `ConfigError` when the disk has no room, the folder cannot be written, or another
    process is writing the same file.
    """
    header = bytearray(b"GGUF" + pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries))
    offset = 0
    for tensor in tensors:
        dims = reversed(tensor.shape)  # the file counts from the innermost dimension
        header += _string(tensor.name)
        header += pack(f"<I{len(tensor.shape)}QIQ", len(tensor.shape), *dims, tensor.type, offset)
        offset += _padded(tensor.n_bytes, alignment)
    header += bytes(_padded(len(header), alignment) - len(header))
    with replacing(output, len(header) + offset) as file:
        file.write(header)
        for tensor in tensors:
            data = tensor.data().reshape(-1).view(np.uint8)
            for start in range(0, len(data), _CHUNK):
                file.write(data[start : start + _CHUNK].data)
            file.write(bytes(_padded(len(data), alignment) - len(data)))
        check()


def _theta_entries(theta: Theta) -> list[bytes]:
    check_rank(theta.rank)
    check_gamma(theta.gamma)
    check_base(theta.base_sha256)
    values: dict[str, object] = {
        names.VERSION_KEY: names.VERSION,
        names.RANK_KEY: theta.rank,
        names.GAMMA_KEY: theta.gamma,
        names.METHOD_KEY: theta.method,
        names.COUNT_KEY: len(theta.factors),
        names.BASE_KEY: theta.base_sha256,
    }
    for key in sorted(theta.notes):
        if not key.startswith((names.CALIBRATION_PREFIX, names.REPORT_PREFIX)):
            raise ConfigError(f"{key} is no key for a note of theta")
        values[key] = theta.notes[key]
    return [entry(key, value) for key, value in values.items()]


def _theta_tensors(theta: Theta) -> Iterator[NewTensor]:
    for tensor in sorted(theta.factors):
        factors = theta.factors[tensor]
        factors.check(tensor, (len(factors.u), len(factors.v)), theta.rank)
        u, v, scale = names.theta_names(tensor)
        yield NewTensor.of(u, factors.u)
        yield NewTensor.of(v, factors.v)
        yield NewTensor.of(scale, factors.scale)


def _string(text: str) -> bytes:
    raw = text.encode()
    return pack("<Q", len(raw)) + raw


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
