"""What a model file must hold to be a model of its architecture. Knows no torch.

A file is judged here before anything heavy is imported or allocated, so that a bad one costs its user
no more than a moment.
"""

from engine.architectures.cache_shape import CacheShape
from engine.architectures.llama import LlamaConfig
from engine.architectures.model_file import ModelFile, open_model

__all__ = ["CacheShape", "LlamaConfig", "ModelFile", "open_model"]
