"""Reads the keywords of a JSON schema, with checks: schemas come from clients."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import RequestError

MAX_COUNT = 2000
"""The largest number of repetitions that llama.cpp accepts."""

ANNOTATIONS = {
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
}
"""Keywords that admit nothing and forbid nothing."""

KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "integer": set(),
    "number": set(),
    "boolean": set(),
    "null": set(),
}
"""What each type can be bound by."""


def refuse_others(schema: Mapping[str, Any], known: set[str]) -> None:
    """Raise RequestError for a keyword that is neither one of the known ones nor an annotation."""
    for key in schema:
        if key not in known and key not in ANNOTATIONS:
            beside = f" beside {sorted(known & schema.keys())[0]}" if known & schema.keys() else ""
            raise RequestError(f"the keyword {str(key)[:64]!r}{beside} cannot be written as a grammar")


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """The types that a schema names, or those that its keywords are about, or all; each once.

    Raises RequestError for a name that is no type.
    """
    named = schema.get("type")
    if named is None:
        about = [kind for kind, keywords in KEYWORDS.items() if keywords & schema.keys()]
        # of the types that have no keywords here, an integer is a number as well
        return about or [kind for kind in KEYWORDS if kind != "integer"]
    types = [named] if isinstance(named, str) else named
    if not isinstance(types, Sequence) or not types:
        raise RequestError("type must be a name or a list of names")
    for kind in types:
        if not isinstance(kind, str) or kind not in KEYWORDS:
            raise RequestError(f"type {str(kind)[:64]!r} is none of JSON schema's types")
    return list(dict.fromkeys(types))


def is_bound(schema: Mapping[str, Any]) -> bool:
    """Whether a keyword says more than a type."""
    return any(keywords & schema.keys() for keywords in KEYWORDS.values())


def is_of_type(value: Any, kind: str) -> bool:
    """Whether a JSON value is of one of JSON schema's types."""
    match value:
        case bool():
            return kind == "boolean"
        case int():
            return kind in ("integer", "number")
        case float():
            return kind == "number" or (kind == "integer" and value.is_integer())
        case str():
            return kind == "string"
        case None:
            return kind == "null"
        case Mapping():
            return kind == "object"
        case _:
            return kind == "array"


def bounds(schema: Mapping[str, Any], lowest: str, highest: str) -> tuple[int, int | None]:
    """The counts of the two keywords: 0 and None where they are not given. Raises RequestError."""
    low, high = schema.get(lowest, 0), schema.get(highest)
    for key, value in ((lowest, low), (highest, high)):
        if value is not None and (type(value) is not int or not 0 <= value <= MAX_COUNT):
            raise RequestError(f"{key} must be a whole number from 0 to {MAX_COUNT}")
    if high is not None and high < low:
        raise RequestError(f"{highest} is less than {lowest}")
    return low, high
