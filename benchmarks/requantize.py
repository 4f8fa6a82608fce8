"""A lighter copy of a model, to see what theta gives back.

python -m benchmarks.requantize SOURCE TARGET Q4_0
"""

import sys
from functools import partial
from pathlib import Path

from gguf import GGMLQuantizationType, quants

from converter.writer import NewTensor, check_output, write_gguf
from engine.errors import NkatError
from engine.gguf import GGMLType, GGUFFile, open_gguf


def requantize(source: Path, target: Path, kind: GGMLType) -> None:
    """Write the model with its quantised matrices in another type that `gguf.quants` can write.

    Vectors, metadata, and the embedding, which large models keep in a better type too, stay as they are.
    Raises `NkatError` for files that cannot be read or written.
    """
    with open_gguf(source) as file:
        check_output(target, file)
        entries = [file.entry(key) for key in file.metadata]
        write_gguf(target, entries, [_tensor(file, name, kind) for name in file.tensors], file.alignment)


def _tensor(file: GGUFFile, name: str, kind: GGMLType) -> NewTensor:
    info = file.tensors[name]
    if len(info.shape) == 1 or not name.startswith("blk."):
        return NewTensor(name, info.type, info.shape, partial(file.data, name))
    wanted = GGMLQuantizationType(kind)
    return NewTensor(name, kind, info.shape, lambda: quants.quantize(file.dequantize(name), wanted))


def main() -> None:
    """Take the arguments; one line and exit code 2 for what the user can mend."""
    try:
        source, target, kind = sys.argv[1:]
        requantize(Path(source), Path(target), GGMLType[kind])
    except (ValueError, KeyError):
        sys.exit("usage: python -m benchmarks.requantize SOURCE TARGET TYPE, TYPE being Q4_0, Q8_0, ...")
    except NkatError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
