"""One GGUF file on disk: its mapping, metadata and tensor list. Knows nothing of split models."""

import reprlib
import stat
from contextlib import suppress
from errno import ENOMEM
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from engine.errors import ModelFileError
from engine.gguf.cursor import Cursor
from engine.gguf.tensors import TensorInfo, check_layout
from engine.gguf.types import GGMLType, type_name
from engine.native.guard import MappingGuard
from engine.printable import quoted

VERSIONS = (2, 3)
MAX_ENTRIES = 1 << 16
"""Metadata keys, and tensors, that one file may have; the largest models have some thousands."""

MAX_DIMS = 4
MAX_ALIGNMENT = 1 << 20
_DEFAULT_ALIGNMENT = 32
_LEAST_ENTRY = 8 + 4 + 1
_LEAST_TENSOR = 8 + 4 + 8 + 4 + 8

_CUT = (
    "was cut or could not be read while it was loaded; copy or download it again, and leave it alone until "
    "the model is loaded"
)

_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive, perhaps a PyTorch checkpoint",
    b"\x80\x02": "a Python pickle, perhaps an old PyTorch checkpoint",
    b"lmgg": "the old ggml format of before GGUF",
    b"fmgg": "the old ggmf format of before GGUF",
    b"tjgg": "the old ggjt format of before GGUF",
    b"algg": "the old ggla adapter format of before GGUF",
    b"version https://git-lfs": "a Git LFS pointer in place of the file; run `git lfs pull`",
    b"<!DOCTYPE": "a web page; the download went wrong",
    b"<html": "a web page; the download went wrong",
}


class Part:
    """A mapped GGUF file. The attributes are plain data, read and checked when it is opened.

    Raises ModelFileError, one line that begins with the file's path, for whatever is wrong with it.
    """

    path: Path
    version: int
    metadata: dict[str, Any]
    entries: dict[str, slice]
    """Where the file has each metadata entry: its key, type and value."""
    tensors: list[TensorInfo]
    alignment: int
    map: mmap
    guard: MappingGuard

    def __init__(self, path: Path, number: int = 0) -> None:
        self.path = path
        try:
            self.map, self.guard = _map(path)
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from None
        except OSError as error:
            if error.errno == ENOMEM:
                raise MemoryError(f"{path}: cannot be mapped") from None
            raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from None
        try:
            self._read(number)
        except ModelFileError as error:
            self.check_whole()  # of what is found in a file that is cut meanwhile, nothing else counts
            raise ModelFileError(f"{path}: {error}") from None
        self.check_whole()

    def check_whole(self) -> None:
        """Raise `ModelFileError` where the file is shorter than it was, or could not be read at some place.

        What was read of it is then not what it held. Nothing is checked once it is closed.
        """
        if not self.map.closed and self.map.size() < len(self.map):
            raise ModelFileError(f"{self.path}: {_CUT}")
        self.check_reads()

    def check_reads(self) -> None:
        """The same for what was noted when it was read, whatever has become of the file since then."""
        if self.guard.failed:
            raise ModelFileError(f"{self.path}: {_CUT}")

    def close(self) -> None:
        """Let go of the file. A mapping with living views goes with the last of them."""
        if self.map.closed:
            return
        # In this order another mapping may take the place for a moment; in the other one, views of this one
        # would be without a guard.
        with suppress(BufferError):
            self.map.close()
            self.guard.release()

    def _read(self, number: int) -> None:
        self.version = _version(self.map)
        cursor = Cursor(self.map, position=8)
        n_tensors = _entries(cursor, "the number of tensors", _LEAST_TENSOR)
        n_keys = _entries(cursor, "the number of metadata keys", _LEAST_ENTRY)
        self.metadata, self.entries = _metadata(cursor, n_keys)
        self.alignment = _alignment(self.metadata)
        self.tensors = _tensors(cursor, n_tensors, self.alignment, number)
        check_layout(self.tensors, len(self.map))


def _map(path: Path) -> tuple[mmap, MappingGuard]:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise ModelFileError("is a directory; name the .gguf file in it")
    if not stat.S_ISREG(mode):
        raise ModelFileError("is not a regular file")
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            raise ModelFileError("is empty; download or copy it again")
        data = mmap(file.fileno(), 0, access=ACCESS_READ)
        return data, MappingGuard(data, file.fileno())


def _version(data: mmap) -> int:
    if data[:4] != b"GGUF":
        raise ModelFileError(f"is not a GGUF file: it looks like {_other_format(data)}")
    raw = data[4:8]
    if len(raw) < 4:
        raise ModelFileError("ends inside the version number: it is truncated; download or copy it again")
    version = int.from_bytes(raw, "little")
    if int.from_bytes(raw, "big") in (1, *VERSIONS):
        raise ModelFileError("is a big-endian GGUF file; only little-endian ones can be read")
    if version not in VERSIONS:
        advice = "convert the model anew with a current llama.cpp" if version < min(VERSIONS) else "too new"
        raise ModelFileError(f"has GGUF version {version}, known are 2 and 3; {advice}")
    return version


def _other_format(data: mmap) -> str:
    head = data[:32]
    for magic, meaning in _OTHER_FORMATS.items():
        if head.startswith(magic):
            return meaning
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < len(data):
        return "a safetensors file; convert it to GGUF first"
    return f"none that is known here (its first bytes are {head[:4]!r})"


def _entries(cursor: Cursor, what: str, least_size: int) -> int:
    count = cursor.count(what, least_size)
    if count > MAX_ENTRIES:
        raise ModelFileError(f"{what} is {count}, more than the {MAX_ENTRIES} allowed")
    return count


def _metadata(cursor: Cursor, count: int) -> tuple[dict[str, Any], dict[str, slice]]:
    metadata: dict[str, Any] = {}
    entries: dict[str, slice] = {}
    for _ in range(count):
        start = cursor.position
        key = cursor.name("a metadata key")
        if key in metadata:
            raise ModelFileError(f"has the metadata key {quoted(key)} twice")
        metadata[key] = cursor.value(key)
        entries[key] = slice(start, cursor.position)
    return metadata, entries


def _alignment(metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    # `type`, not isinstance: a bool is no alignment
    if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ModelFileError(
            f"general.alignment is {reprlib.repr(alignment)}, not a power of two from 1 to {MAX_ALIGNMENT}"
        )
    return alignment


def _tensors(cursor: Cursor, count: int, alignment: int, part: int) -> list[TensorInfo]:
    """The tensor list, its offsets still to be compared with the file's size."""
    entries = [_entry(cursor) for _ in range(count)]
    data_start = -(-cursor.position // alignment) * alignment
    tensors = []
    names = set()
    for name, type_, shape, n_bytes, offset in entries:
        if name in names:
            raise ModelFileError(f"has the tensor {quoted(name)} twice")
        names.add(name)
        if offset % alignment:
            raise ModelFileError(f"tensor {quoted(name)} has offset {offset}, no multiple of {alignment}")
        tensors.append(TensorInfo(name, type_, shape, n_bytes, data_start + offset, part))
    return tensors


def _entry(cursor: Cursor) -> tuple[str, GGMLType, tuple[int, ...], int, int]:
    """Name, type, shape, bytes and relative offset of the tensor described at the cursor."""
    name = cursor.name("a tensor name")
    what = f"tensor {quoted(name)}"
    n_dims = cursor.u32(what)
    if not 0 < n_dims <= MAX_DIMS:
        raise ModelFileError(f"{what} has {n_dims} dimensions, not 1 to {MAX_DIMS}")
    # the file counts from the innermost dimension
    shape = tuple(reversed([cursor.u64(what) for _ in range(n_dims)]))
    number = cursor.u32(what)
    offset = cursor.u64(what)
    n_elements = 1
    for dim in shape:
        n_elements *= dim
    if not 0 < n_elements < 1 << 63:
        raise ModelFileError(f"{what} has the impossible shape {shape}")
    try:
        type_ = GGMLType(number)
    except ValueError:
        raise ModelFileError(
            f"{what} has the ggml type {type_name(number)}, which is not known here; "
            "quantise the model to another type, for example Q4_K_M"
        ) from None
    if shape[-1] % type_.block_size:
        raise ModelFileError(
            f"{what} has rows of {shape[-1]}, no multiple of {type_.name}'s block of {type_.block_size}"
        )
    return name, type_, shape, n_elements // type_.block_size * type_.type_size, offset
