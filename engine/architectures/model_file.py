"""Opens a model file and judges it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.architectures.llama import LlamaConfig
from engine.errors import ModelFileError
from engine.gguf import GGUFFile, StringArray, TensorInfo, open_gguf
from engine.printable import quoted

_ARCHITECTURES: Mapping[str, type[LlamaConfig]] = {"llama": LlamaConfig}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that holds every tensor, in the right shape, of a model that the engine can run.

    `tensors`: those that its architecture describes, by name, the optional ones included that are there. A
    model is made of them alone: whatever else the file holds has not been checked.
    """

    file: GGUFFile
    architecture: str
    config: LlamaConfig
    tensors: Mapping[str, TensorInfo]


def open_model(path: Path) -> ModelFile:
    """Open a model file and check it against its architecture.

    Raises `ModelFileError`, naming the file, for one that is damaged, of an unknown architecture, with
    settings that make no sense, or with tensors that are missing or misshapen.
    """
    file = open_gguf(path)
    try:
        return _judge(file)
    except ModelFileError as error:
        file.close()
        raise ModelFileError(f"{path}: {error}") from None


def _judge(file: GGUFFile) -> ModelFile:
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise ModelFileError("the file does not name its architecture (general.architecture)")
    if name not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES))
        raise ModelFileError(f"the architecture {quoted(name)} is not supported; supported: {known}")
    config = _ARCHITECTURES[name].from_metadata(file.metadata, _vocab_size(file.metadata))
    tensors: dict[str, TensorInfo] = {}
    for tensor, shape in config.tensors():
        if tensor not in file.tensors:
            raise ModelFileError(f"the tensor {tensor} is missing")
        tensors[tensor] = _checked(file, tensor, shape)
    for tensor, shape in config.optional_tensors():
        if tensor in file.tensors:
            tensors[tensor] = _checked(file, tensor, shape)
    return ModelFile(file, name, config, tensors)


def _vocab_size(metadata: Mapping[str, Any]) -> int:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, StringArray) or not tokens:
        raise ModelFileError("the file holds no vocabulary (tokenizer.ggml.tokens)")
    return len(tokens)


def _checked(file: GGUFFile, tensor: str, shape: tuple[int, ...]) -> TensorInfo:
    info = file.tensors[tensor]
    if info.shape != shape:
        raise ModelFileError(
            f"the tensor {tensor} has the shape {_by(info.shape)}; "
            f"the file's own settings ask for {_by(shape)}"
        )
    return info


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
