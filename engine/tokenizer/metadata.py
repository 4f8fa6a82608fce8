"""Reads single values of GGUF metadata and complains in one line when they are not what they must be."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from engine.errors import ModelFileError
from engine.gguf import StringArray

T = TypeVar("T")


def read(metadata: Mapping[str, Any], key: str, kind: type[T]) -> T | None:
    """The value under `key`, or None where the file has none.

    Raises ModelFileError for a value that is not exactly a `kind` (so that True is no number).
    """
    value = metadata.get(key)
    if value is None or type(value) is kind:
        return value
    raise ModelFileError(f"{key} must be a {kind.__name__}, not a {type(value).__name__}")


def require(metadata: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """The value under `key`. Raises ModelFileError where it is missing or of another type."""
    value = read(metadata, key, kind)
    if value is None:
        raise ModelFileError(f"{key} is missing: the file has no usable tokenizer")
    return value


def read_list(
    metadata: Mapping[str, Any], key: str, kinds: tuple[type, ...], length: int | None = None
) -> Sequence[Any] | None:
    """The list under `key`, or None where the file has none.

    Raises ModelFileError for an element of another type than `kinds`, and for another `length`.
    """
    values = metadata.get(key)
    if isinstance(values, StringArray):
        found: set[type] = {str}
    else:
        values = read(metadata, key, list)
        if values is None:
            return None
        found = set(map(type, values))
    if not found <= set(kinds):
        raise ModelFileError(f"{key} must hold only values of type {kinds[0].__name__}")
    if length is not None and len(values) != length:
        raise ModelFileError(f"{key} has {len(values)} entries for {length} tokens")
    return values
