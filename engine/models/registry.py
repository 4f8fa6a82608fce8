"""From a model file to a model."""

from collections.abc import Callable, Mapping

from engine.architectures import LlamaConfig, ModelFile
from engine.kernels import Kernels
from engine.models.interface import Model
from engine.models.llama import Llama
from engine.models.loader import Loader
from engine.theta import Theta

_MODELS: Mapping[str, Callable[[LlamaConfig, Loader, int], Model]] = {"llama": Llama}


def load_model(model: ModelFile, kernels: Kernels, positions: int, theta: Theta | None = None) -> Model:
    """The model of a file, ready for contexts of up to `positions` tokens; with theta if there is any."""
    return _MODELS[model.architecture](model.config, Loader(model.file, kernels, theta), positions)
