"""Models split over several files."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from engine.errors import ModelFileError
from engine.gguf import open_gguf
from tests.support.gguf_files import Tensor, write_gguf

COUNT = 3


def name_of(number: int, count: int = COUNT) -> str:
    return f"model-{number:05}-of-{count:05}.gguf"


def write_part(folder: Path, number: int, tensor: str | None = None, **overrides: Any) -> Path:
    """Part `number`, counted from 1, with one tensor whose values are its number."""
    keys = {"split.no": number - 1, "split.count": COUNT, "split.tensors.count": COUNT}
    keys |= {key.replace("_", "."): value for key, value in overrides.items()}
    values = np.full((2, 3), number, np.float32)
    tensors = {tensor or f"tensor{number}": Tensor(values, GGMLQuantizationType.F32)}
    return write_gguf(folder / name_of(number), keys, tensors)


def write_parts(folder: Path) -> Path:
    for number in range(2, COUNT + 1):
        write_part(folder, number)
    return write_part(folder, 1)


def test_the_parts_are_one_model(tmp_path: Path) -> None:
    first = write_parts(tmp_path)
    with open_gguf(first) as model:
        assert model.path == first
        assert model.metadata["split.no"] == 0
        assert [(tensor.name, tensor.part) for tensor in model.tensors.values()] == [
            ("tensor1", 0),
            ("tensor2", 1),
            ("tensor3", 2),
        ]
        for number in range(1, COUNT + 1):
            assert (model.dequantize(f"tensor{number}") == number).all()
        content = b"".join((tmp_path / name_of(number)).read_bytes() for number in range(1, COUNT + 1))
        assert model.sha256() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("count", [0, 1, None])
def test_a_model_of_one_part_may_have_any_name(tmp_path: Path, count: int | None) -> None:
    path = write_part(tmp_path, 1, split_count=count, split_tensors_count=1)
    with open_gguf(path) as model:
        assert list(model.tensors) == ["tensor1"]


def lose_part(folder: Path) -> None:
    (folder / name_of(2)).unlink()


def truncate_part(folder: Path) -> None:
    path = folder / name_of(2)
    path.write_bytes(path.read_bytes()[:-16])


def rewrite(number: int, **overrides: Any) -> Callable[[Path], object]:
    return lambda folder: write_part(folder, number, **overrides)


def exchange_parts(folder: Path) -> None:
    (folder / name_of(2)).rename(folder / "aside")
    (folder / name_of(3)).rename(folder / name_of(2))
    (folder / "aside").rename(folder / name_of(3))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_part, f"{name_of(1)}: part 2 of 3 is missing: no {name_of(2)} beside it"),
        (truncate_part, f"{name_of(2)}: the data of tensor 'tensor2' ends at byte"),
        (exchange_parts, f"{name_of(2)}: split.no is 2, expected 1"),
        (rewrite(2, split_count=4), f"{name_of(2)}: split.count is 4, expected 3"),
        (rewrite(2, split_count=None), f"{name_of(2)}: split.count is None, expected 3"),
        (rewrite(3, split_no="two"), f"{name_of(3)}: split.no is 'two', expected 2"),
        (rewrite(3, tensor="tensor1"), f"{name_of(3)}: has the tensor 'tensor1', and so has {name_of(1)}"),
        (rewrite(1, split_tensors_count=4), "split.tensors.count is 4, but the parts have 3 tensors"),
        (rewrite(1, split_count=4), "is the first of 4 parts (split.count), but its name does not end in"),
        (rewrite(1, split_count="many"), f"{name_of(1)}: split.count is 'many', not a number"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    first = write_parts(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelFileError, match=re.escape(message)):
        open_gguf(first)


def test_another_part_than_the_first_says_which_to_open(tmp_path: Path) -> None:
    write_parts(tmp_path)
    message = f"is part 2 of 3 of a split model; open {name_of(1)}"
    with pytest.raises(ModelFileError, match=re.escape(message)):
        open_gguf(tmp_path / name_of(2))


def test_renamed_parts_are_asked_back_to_their_names(tmp_path: Path) -> None:
    first = write_parts(tmp_path).rename(tmp_path / "mine.gguf")
    with pytest.raises(ModelFileError, match=r"its name does not end in -00001-of-00003\.gguf"):
        open_gguf(first)
    other = (tmp_path / name_of(2)).rename(tmp_path / "other.gguf")
    with pytest.raises(ModelFileError, match="is part 2 of 3 of a split model; open the first part"):
        open_gguf(other)
