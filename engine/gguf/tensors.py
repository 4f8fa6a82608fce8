"""What a GGUF file says about one tensor, and the checks that its words need."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from engine.errors import ModelFileError
from engine.gguf.types import GGMLType
from engine.printable import quoted


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of the file.

    `shape` is in numpy order, rows first: (m, n) for a linear layer with n inputs. `offset` counts
    from the start of the file of part number `part` (0 for a file that is not split).
    """

    name: str
    type: GGMLType
    shape: tuple[int, ...]
    n_bytes: int
    offset: int
    part: int = 0

    @property
    def n_elements(self) -> int:
        """How many weights the tensor has."""
        return prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, that is of the last dimension."""
        return self.shape[-1] // self.type.block_size * self.type.type_size


def check_layout(tensors: Iterable[TensorInfo], file_size: int) -> None:
    """Check that the tensors of one part lie inside its `file_size` bytes and apart from each other.

    Raises ModelFileError, without the file's name.
    """
    last: TensorInfo | None = None
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        end = tensor.offset + tensor.n_bytes
        if end > file_size:
            raise ModelFileError(
                f"the data of tensor {quoted(tensor.name)} ends at byte {end}, but the file has {file_size}: "
                "it is truncated; download or copy it again"
            )
        if last is not None and tensor.offset < last.offset + last.n_bytes:
            raise ModelFileError(f"the data of tensors {quoted(last.name)} and {quoted(tensor.name)} overlap")
        last = tensor
