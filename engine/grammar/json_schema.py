"""Turns a JSON schema into the part of a Lark grammar that admits its JSON."""

import json
from collections.abc import Iterator
from typing import Any

from engine.errors import RequestError
from engine.grammar.relaxed_schema import LEAST, MAX_LEAST, MAX_MEMBERS, MAX_OPTIONS, resolve

MAX_LENGTH = 256 << 10
"""Characters of a schema's text."""

MAX_DEPTH = 500
"""Levels of the schema that references lead through. llguidance needs about 5 KiB of stack for each."""

WHITESPACE = r"[ \t]{1,2}|\r?\n[ \t]{0,40}"
"""Where JSON allows blanks: up to two, or a new line and its indentation. Models make blanks without end."""

_CHOICES = ("anyOf", "oneOf")
_ELSEWHERE = {*_CHOICES, "allOf", "$ref", "patternProperties", "unevaluatedProperties"}
"""Keywords beside `properties` that may tell of others."""
_OPTIONS = "x-guidance"
"""llguidance's own key in a schema."""


def json_schema_to_lark(text: str) -> str:
    """An expression for a Lark rule: JSON that the schema in `text` admits.

    Properties come in the order of the schema, and where a schema lists some and says nothing of others
    there are no others: small models would go on inventing them (llama.cpp's choice, too). `oneOf` counts
    as `anyOf`: what more than one of its schemas admits is not kept out. Raises RequestError, one line,
    for what is no JSON schema, and for nesting that is too deep. Which keywords are supported, llguidance
    says when it compiles the expression.
    """
    if len(text) > MAX_LENGTH:
        raise RequestError(f"the JSON schema is longer than {MAX_LENGTH} characters")
    try:
        schema = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the JSON schema is not valid JSON: {error}") from None
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    if not isinstance(schema, dict):
        raise RequestError("the JSON schema must be an object")
    _check_size(schema)
    _check_depth(schema)
    _close_objects(schema)
    options = {"whitespace_pattern": WHITESPACE, "coerce_one_of": True}
    return f"%json {json.dumps(schema | {_OPTIONS: options})}"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _check_size(schema: dict[str, Any]) -> None:
    options = 0
    for node in _objects(schema):
        if len(node) > MAX_MEMBERS:
            raise RequestError(f"an object in the JSON schema has more than {MAX_MEMBERS} members")
        for key in LEAST:
            if isinstance(least := node.get(key), int | float) and least > MAX_LEAST:
                raise RequestError(f"{key} in the JSON schema is larger than {MAX_LEAST}")
        options += sum(len(found) for key in _CHOICES if isinstance(found := node.get(key), list))
    if options > MAX_OPTIONS:
        raise RequestError(f"anyOf and oneOf in the JSON schema have more than {MAX_OPTIONS} options")


def _check_depth(schema: dict[str, Any]) -> None:
    """Bound what a chain of references can add up to: the depths of all that is referred to."""
    targets = {value for node in _objects(schema) if isinstance(value := node.get("$ref"), str)}
    whole = _depth(schema)
    depth = whole
    for target in targets:
        found = resolve(schema, target)
        # what is named in another way than by its place may lie anywhere
        depth += _depth(found) if isinstance(found, (dict, list)) else whole
        if depth > MAX_DEPTH:
            raise RequestError(f"the JSON schema's references lead through more than {MAX_DEPTH} levels")


def _close_objects(schema: dict[str, Any]) -> None:
    """Shut objects that list their properties and do not say whether there may be others, in place.

    Those whose properties are told in several places stay as they are: one place would shut out the rest.
    """
    pending: list[Any] = [schema]
    while pending:
        node = pending.pop()
        if not isinstance(node, dict) or ("properties" in node and _ELSEWHERE & node.keys()):
            continue
        if "allOf" in node:
            continue
        if _lists_all(node):
            node.setdefault("additionalProperties", False)
        for key in ("properties", "$defs", "definitions"):
            pending.extend(found.values() if isinstance(found := node.get(key), dict) else ())
        for key in (*_CHOICES, "prefixItems"):
            pending.extend(found if isinstance(found := node.get(key), list) else ())
        pending += [node.get("items"), node.get("additionalProperties")]


def _lists_all(node: dict[str, Any]) -> bool:
    """Whether the properties that a schema lists include those that it requires."""
    listed, required = node.get("properties"), node.get("required", [])
    if not isinstance(listed, dict) or not isinstance(required, list):
        return False
    return all(isinstance(name, str) and name in listed for name in required)


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _depth(schema: Any) -> int:
    """Levels of objects and lists within each other."""
    depth, level = 0, [schema]
    while level:
        depth += 1
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
    return depth
