"""Typed, checked access to an architecture's metadata keys."""

from collections.abc import Mapping
from typing import Any

from engine.errors import ModelFileError


class Hyperparameters:
    """Keys of a GGUF file below the architecture's name: `integer("block_count")` reads
    `llama.block_count`.

    Every method raises `ModelFileError` for a missing key without a default, a wrong type or a value
    out of bounds.
    """

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self._metadata = metadata
        self._architecture = architecture

    def integer(self, key: str, default: int | None = None, *, least: int = 1, most: int = 2**24) -> int:
        """A whole number within bounds."""
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ModelFileError(f"{self._name(key)} must be a whole number, not {value!r:.60}")
        if not least <= value <= most:
            raise ModelFileError(f"{self._name(key)} is {value}; {least} to {most} makes sense")
        return value

    def number(self, key: str, default: float | None = None, *, least: float, most: float) -> float:
        """A number within bounds."""
        value = self._value(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ModelFileError(f"{self._name(key)} must be a number, not {value!r:.60}")
        if not least <= value <= most:
            raise ModelFileError(f"{self._name(key)} is {value}; {least:g} to {most:g} makes sense")
        return float(value)

    def text(self, key: str, default: str) -> str:
        """A string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise ModelFileError(f"{self._name(key)} must be a string, not {value!r:.60}")
        return value

    def _name(self, key: str) -> str:
        return f"{self._architecture}.{key}"

    def _value(self, key: str, default: Any) -> Any:
        value = self._metadata.get(self._name(key), default)
        if value is None:
            raise ModelFileError(f"the file lacks the key {self._name(key)}")
        return value
