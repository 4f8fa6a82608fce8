"""A GGUF file taken apart: where its fields lie, and its entries and tensors to be put together again.

Knows valid files of the reference writer alone, and nothing of the reader under test.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from struct import pack, unpack_from

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
ALIGNMENT = 32


@dataclass(frozen=True)
class Field:
    """Bytes of the header that mean one thing. `kind`: `number`, `float`, `type` or `text`."""

    kind: str
    name: str
    at: int
    size: int


@dataclass(frozen=True)
class Tensor:
    """A tensor with its bytes; `dims` innermost first, as in the file."""

    name: bytes
    dims: tuple[int, ...]
    type: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Content:
    """What a file holds: entries as their bytes, by key, and tensors in order."""

    entries: dict[str, bytes]
    tensors: tuple[Tensor, ...]

    def with_tensor(self, number: int, tensor: Tensor | None) -> "Content":
        """Another tensor in the place of one, or none."""
        changed = [*self.tensors[:number], *([] if tensor is None else [tensor]), *self.tensors[number + 1 :]]
        return replace(self, tensors=tuple(changed))

    def write(self) -> bytes:
        """The file."""
        header = b"GGUF" + pack("<IQQ", 3, len(self.tensors), len(self.entries))
        header += b"".join(self.entries.values())
        offset = 0
        for tensor in self.tensors:
            header += pack("<Q", len(tensor.name)) + tensor.name
            header += pack(f"<I{len(tensor.dims)}QIQ", len(tensor.dims), *tensor.dims, tensor.type, offset)
            offset += _padded(len(tensor.data))
        out = bytearray(header.ljust(_padded(len(header)), b"\0"))
        for tensor in self.tensors:
            out += tensor.data.ljust(_padded(len(tensor.data)), b"\0")
        return bytes(out)


@dataclass(frozen=True)
class Layout:
    """A file's bytes, the fields of its header, where its tensors' data lie, and what it holds."""

    raw: bytes = field(repr=False)
    fields: tuple[Field, ...]
    header: int
    """Bytes in front of the data."""
    data: dict[str, slice]
    content: Content

    @classmethod
    def read(cls, path: Path) -> "Layout":
        """Of a valid file."""
        return _Reader(path.read_bytes()).layout()


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0
        self.fields: list[Field] = []

    def layout(self) -> Layout:
        self.take("text", "magic", 4)
        self.number("version", 4)
        tensors, entries = self.number("tensors", 8), self.number("entries", 8)
        keys: dict[str, bytes] = {}
        for _ in range(entries):
            start = self.at
            key = self.text("key").decode()
            self.value(key)
            keys[key] = self.raw[start : self.at]
        listed = [self.tensor() for _ in range(tensors)]
        header = _padded(self.at)
        ends = sorted([*(offset for *_, offset in listed), len(self.raw) - header])
        found, places = [], {}
        for name, dims, kind, offset in listed:
            end = ends[ends.index(offset) + 1]
            places[name.decode()] = slice(header + offset, header + end)
            found.append(Tensor(name, dims, kind, self.raw[header + offset : header + end]))
        return Layout(self.raw, tuple(self.fields), header, places, Content(keys, tuple(found)))

    def take(self, kind: str, name: str, size: int) -> bytes:
        self.fields.append(Field(kind, name, self.at, size))
        self.at += size
        return self.raw[self.at - size : self.at]

    def number(self, name: str, size: int, kind: str = "number") -> int:
        return int.from_bytes(self.take(kind, name, size), "little")

    def text(self, name: str) -> bytes:
        return self.take("text", name, self.number(f"{name}.length", 8))

    def value(self, key: str) -> None:
        kind = self.number(f"{key}.type", 4, "type")
        if kind == _STRING:
            self.text(key)
        elif kind == _ARRAY:
            inner, count = self.number(f"{key}.elements", 4, "type"), self.number(f"{key}.count", 8)
            for number in range(count):
                name = f"{key}[{number}]"
                if inner == _STRING:
                    self.text(name)
                else:
                    self.take("float" if inner == 6 else "number", name, _SIZES[inner])
        else:
            self.take("float" if kind in (6, 12) else "number", key, _SIZES[kind])

    def tensor(self) -> tuple[bytes, tuple[int, ...], int, int]:
        name = self.text("tensor")
        shown = name.decode()
        n_dims = unpack_from("<I", self.raw, self.at)[0]
        self.number(f"{shown}.n_dims", 4)
        dims = tuple(self.number(f"{shown}.dim", 8) for _ in range(n_dims))
        return name, dims, self.number(f"{shown}.ggml", 4, "type"), self.number(f"{shown}.offset", 8)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
