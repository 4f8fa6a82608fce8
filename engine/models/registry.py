"""From a model file to a model."""

from collections.abc import Callable, Mapping

from engine.architectures import LlamaConfig, ModelFile
from engine.errors import ModelFileError
from engine.models.interface import Model
from engine.models.llama import Llama
from engine.models.loader import Loader

_MODELS: Mapping[str, Callable[[LlamaConfig, Loader, int], Model]] = {"llama": Llama}


def load_model(model: ModelFile, load: Loader, positions: int) -> Model:
    """The model of a file, of what `load` makes of it, ready for contexts of up to `positions` tokens.

    Raises `ModelFileError`, naming the file, for values that are not finite, as far as they have been read:
    the rest may still be packed.
    """
    try:
        loaded = _MODELS[model.architecture](model.config, load, positions)
        damage = loaded.damage()
        if damage is not None:
            raise ModelFileError(damage)
    except ModelFileError as error:
        raise ModelFileError(f"{model.file.path}: {error}") from None
    return loaded
