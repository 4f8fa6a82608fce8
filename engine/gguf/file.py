"""A GGUF model, of one file or of several, as one mapping of metadata and one of tensors."""

import hashlib
from collections.abc import Mapping
from mmap import MADV_DONTNEED
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from engine.errors import ModelFileError
from engine.gguf.part import Part
from engine.gguf.quants import dequantize
from engine.gguf.split import open_parts
from engine.gguf.tensors import TensorInfo
from engine.printable import quoted


class GGUFFile:
    """An open model. Metadata and tensor list are in memory, the weights stay on disk until touched.

    `metadata` holds Python scalars, str and lists of them; a list of str is a `StringArray`. `tensors`
    keeps the file's order. Both stay usable after `close()`; so do arrays from `data`, which keep their
    mapping alive.
    """

    path: Path
    paths: tuple[Path, ...]
    """The files that the model lies in, `path` first."""
    version: int
    alignment: int
    """The tensor data of the first file begin at multiples of this."""
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    def __init__(self, parts: list[Part]) -> None:
        first = parts[0]
        self.path = first.path
        self.paths = tuple(part.path for part in parts)
        self.version = first.version
        self.alignment = first.alignment
        self.metadata = MappingProxyType(first.metadata)
        self.tensors = MappingProxyType({tensor.name: tensor for part in parts for tensor in part.tensors})
        self._parts = parts
        self._sha256: str | None = None

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """The packed bytes of a tensor: read-only view of the file, uint8, (*shape[:-1], bytes of a row).

        Raises ModelFileError when the file has no such tensor, ValueError when it is closed.
        """
        tensor = self._tensor(name)
        flat = np.frombuffer(self._open_parts()[tensor.part].map, np.uint8, tensor.n_bytes, tensor.offset)
        return flat.reshape(*tensor.shape[:-1], tensor.row_bytes)

    def entry(self, key: str) -> bytes:
        """The bytes of a metadata entry as they stand in the file: key, type and value.

        Raises KeyError when the file has no such key, ValueError when it is closed.
        """
        first = self._open_parts()[0]
        return first.map[first.entries[key]]

    def dequantize(self, name: str) -> npt.NDArray[np.float32]:
        """The weights of a tensor: a new float32 array of its shape. Raises what `data` raises."""
        tensor = self._tensor(name)
        return dequantize(self.data(name), tensor.type, tensor.shape)

    def sha256(self) -> str:
        """The hexadecimal SHA-256 of the file's bytes; of a split model, of its parts, one after another.

        Reads all of it the first time, and remembers. Raises ValueError when it is closed.
        """
        parts = self._open_parts()
        if self._sha256 is None:
            digest = hashlib.sha256()
            for part in parts:
                digest.update(part.map)
            self.check_whole()
            self._sha256 = digest.hexdigest()
        return self._sha256

    def check_whole(self) -> None:
        """Raise `ModelFileError` where a file has been cut, or could not be read, since it was opened.

        What was read of it may then be zeros. Nothing is checked once the model is closed.
        """
        for part in self._parts:
            part.check_whole()

    def check_reads(self) -> None:
        """The same for what was noted when it was read, whatever has become of the files since then."""
        for part in self._parts:
            part.check_reads()

    def release(self) -> None:
        """Give back the memory of what was read so far. Who reads again reads from disk, or its cache."""
        for part in self._open_parts():
            part.map.madvise(MADV_DONTNEED)

    def close(self) -> None:
        """Let go of the files. Harmless when done twice."""
        parts, self._parts = self._parts, []
        for part in parts:
            part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_parts(self) -> list[Part]:
        if not self._parts:
            raise ValueError(f"{self.path} is closed")
        return self._parts

    def _tensor(self, name: str) -> TensorInfo:
        try:
            return self.tensors[name]
        except KeyError:
            raise ModelFileError(f"{self.path}: has no tensor {quoted(name)}") from None


def open_gguf(path: Path) -> GGUFFile:
    """Open a GGUF model, versions 2 and 3, little-endian; of a split model its first part.

    The header is read and checked whole: counts and lengths before anything is allocated for them,
    then that every tensor has a known type and its own place in the file. Raises ModelFileError, one
    line that names the file and what is wrong with it.
    """
    return GGUFFile(open_parts(path))
