"""Models split over several files: NAME-00001-of-0000N.gguf and its sisters."""

import re
import reprlib
from pathlib import Path

from engine.errors import ModelFileError
from engine.gguf.part import Part
from engine.printable import quoted

_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def open_parts(path: Path) -> list[Part]:
    """Open `path` and, when its metadata says that the model is split, all the other parts.

    `path` must be the first part. The parts come back in order; the metadata of the first is the
    model's. Raises ModelFileError.
    """
    first = Part(path)
    count = _number(first, "split.count", 1)
    if count <= 1:
        return [first]
    number = _number(first, "split.no", 0)
    name = _NAME.fullmatch(path.name)
    if number != 0:
        begin = f"{name['stem']}-00001-of-{count:05}.gguf" if name else "the first part"
        raise ModelFileError(f"{path}: is part {number + 1} of {count} of a split model; open {begin}")
    if name is None or int(name["number"]) != 1 or int(name["count"]) != count:
        raise ModelFileError(
            f"{path}: is the first of {count} parts (split.count), "
            f"but its name does not end in -00001-of-{count:05}.gguf"
        )
    parts = [first]
    for number in range(1, count):
        sister = path.with_name(f"{name['stem']}-{number + 1:05}-of-{count:05}.gguf")
        if not sister.exists():
            raise ModelFileError(
                f"{path}: part {number + 1} of {count} is missing: no {sister.name} beside it"
            )
        parts.append(_open_sister(sister, number, count))
    _check_whole(parts)
    return parts


def _open_sister(path: Path, number: int, count: int) -> Part:
    part = Part(path, number)
    for key, expected in (("split.no", number), ("split.count", count)):
        found = part.metadata.get(key)
        if found != expected:
            raise ModelFileError(
                f"{path}: {key} is {reprlib.repr(found)}, expected {expected}: no part of the same model"
            )
    return part


def _check_whole(parts: list[Part]) -> None:
    homes: dict[str, Part] = {}
    for part in parts:
        for tensor in part.tensors:
            if tensor.name in homes:
                other = homes[tensor.name].path.name
                raise ModelFileError(f"{part.path}: has the tensor {quoted(tensor.name)}, and so has {other}")
            homes[tensor.name] = part
    expected = _number(parts[0], "split.tensors.count", len(homes))
    if expected != len(homes):
        raise ModelFileError(
            f"{parts[0].path}: split.tensors.count is {expected}, but the parts have {len(homes)} tensors"
        )


def _number(part: Part, key: str, default: int) -> int:
    value = part.metadata.get(key, default)
    # `type`, not isinstance: a bool is no number here
    if type(value) is not int:
        raise ModelFileError(f"{part.path}: {key} is {reprlib.repr(value)}, not a number")
    return value
