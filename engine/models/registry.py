"""From a model file to a model."""

from collections.abc import Callable, Mapping

from engine.architectures import LlamaConfig, ModelFile
from engine.models.interface import Model
from engine.models.llama import Llama
from engine.models.loader import Loader

_MODELS: Mapping[str, Callable[[LlamaConfig, Loader, int], Model]] = {"llama": Llama}


def load_model(model: ModelFile, load: Loader, positions: int) -> Model:
    """The model of a file, of what `load` makes of it, ready for contexts of up to `positions` tokens."""
    return _MODELS[model.architecture](model.config, load, positions)
