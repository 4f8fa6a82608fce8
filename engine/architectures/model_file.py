"""Opens a model file and judges it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.architectures.llama import LlamaConfig
from engine.errors import ModelFileError
from engine.gguf import GGUFFile, StringArray, open_gguf

_ARCHITECTURES: Mapping[str, type[LlamaConfig]] = {"llama": LlamaConfig}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that holds every tensor, in the right shape, of a model that the engine can run."""

    file: GGUFFile
    architecture: str
    config: LlamaConfig


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
        raise ModelFileError(f"the architecture {name!r:.60} is not supported; supported: {known}")
    config = _ARCHITECTURES[name].from_metadata(file.metadata, _vocab_size(file.metadata))
    for tensor, shape in config.tensors():
        if tensor not in file.tensors:
            raise ModelFileError(f"the tensor {tensor} is missing")
        _check_shape(file, tensor, shape)
    for tensor, shape in config.optional_tensors():
        if tensor in file.tensors:
            _check_shape(file, tensor, shape)
    return ModelFile(file, name, config)


def _vocab_size(metadata: Mapping[str, Any]) -> int:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, StringArray) or not tokens:
        raise ModelFileError("the file holds no vocabulary (tokenizer.ggml.tokens)")
    return len(tokens)


def _check_shape(file: GGUFFile, tensor: str, shape: tuple[int, ...]) -> None:
    found = file.tensors[tensor].shape
    if found != shape:
        raise ModelFileError(
            f"the tensor {tensor} has the shape {_by(found)}; the file's own settings ask for {_by(shape)}"
        )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
