"""Reads GGUF model files: metadata, tensor list, packed bytes and their float32 values.

Knows numpy and the file format; has the strings of long lists found by the compiled library, if there is one.
Knows no model, no tokeniser and no torch.
"""

from engine.gguf.file import GGUFFile, open_gguf
from engine.gguf.quants import dequantize
from engine.gguf.string_array import StringArray
from engine.gguf.tensors import TensorInfo
from engine.gguf.types import NATIVE_TYPES, GGMLType

__all__ = ["NATIVE_TYPES", "GGMLType", "GGUFFile", "StringArray", "TensorInfo", "dequantize", "open_gguf"]
