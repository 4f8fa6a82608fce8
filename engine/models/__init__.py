"""The architectures that the engine knows, by the name a GGUF file gives them."""

from engine.models.interface import Model
from engine.models.loader import Loader
from engine.models.registry import load_model

__all__ = ["Loader", "Model", "load_model"]
