"""Changes values of a model file in place."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.gguf import open_gguf


def values_of(path: Path, name: str, dtype: Any = np.float32) -> npt.NDArray[Any]:
    """The data of a tensor as the file has them, to be changed: flat, of a type that the caller knows."""
    with open_gguf(path) as file:
        info = file.tensors[name]
    count = info.n_bytes // np.dtype(dtype).itemsize
    return np.memmap(path, dtype, "r+", offset=info.offset, shape=(count,))
