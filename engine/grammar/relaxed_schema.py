"""Makes of any JSON schema one that a grammar can hold, by leaving out what it cannot.

What is left out only lets more JSON in. First goes what is known beforehand: keywords that llguidance does
not know, values that are not of the keyword's kind, references that lead nowhere, sizes beyond the bounds.
Then what only a trial shows, such as a pattern with a look-ahead or a minimum above the maximum: from a
part that does not compile, the parts in it are tried by themselves, and then its keywords one by one.
"""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

MAX_DEPTH = 100
"""Levels of a schema; deeper ones admit anything."""

MAX_MEMBERS = 2000
"""Of an object in the schema. The time to compile properties grows with the square of their number."""

MAX_OPTIONS = 400
"""Of all `anyOf` and `oneOf` together. The time for a step can grow with the cube of their number."""

MAX_LEAST = 1 << 16
"""The largest least length of a text, a list or an object: no reply gets that far."""

LEAST = ("minLength", "minItems", "minProperties")
"""The keywords that `MAX_LEAST` bounds."""

MAX_TRIED = 256 << 10
"""Characters of all parts of schemas that are compiled on trial for one request."""

FREE = '{"type": "object"}'
"""The schema of any object."""

Schema = dict[str, Any]
Part = Schema | bool
Holds = Callable[[str], bool]
"""Whether a grammar can hold the schema, which is JSON text."""

_MAPS = ("properties", "patternProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "additionalItems")
_TEXTS = ("pattern", "format")
_LEAVES = frozenset(
    (
        *(*LEAST, "type", "enum", "const", "required", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("maxLength", "maxItems", "maxProperties"),
    )
)
_CONSTRAINTS = frozenset(
    (
        *(
            "propertyNames",
            "not",
            "if",
            "then",
            "else",
            "uniqueItems",
            "contains",
            "minContains",
            "maxContains",
        ),
        *(
            "dependentRequired",
            "dependentSchemas",
            "dependencies",
            "unevaluatedProperties",
            "unevaluatedItems",
        ),
        *("$dynamicRef", "$recursiveRef", "contentSchema"),
    )
)
"""Keywords that narrow a schema and are unknown to llguidance. All others are remarks."""
_TELL_OF_PROPERTIES = frozenset(
    (*_LISTS[:3], "$ref", "unevaluatedProperties", "if", "then", "else", "dependentSchemas", "dependencies")
)
"""Keywords that may allow properties beside those that a schema lists."""
_LAST = ("required", "properties", "additionalProperties", "type")
"""Keywords that go last: they say most about what is asked for."""


class Relaxer:
    """Relaxes the schemas of one request, which share the bound on trials."""

    def __init__(self, holds: Holds) -> None:
        self._holds = holds
        self._left = MAX_TRIED
        self._texts: dict[tuple[str, str], bool] = {}

    def relax(self, text: str) -> tuple[str, tuple[str, ...]]:
        """A schema that holds, as JSON text, and the keywords that were left out: none of one that held.

        `text` is a JSON schema, or any text. What is left of a schema is one for objects.
        """
        if self._holds(text):
            return text, ()
        try:
            schema = json.loads(text)
            if isinstance(schema, dict):
                relaxed = _Relaxed(schema, self)
                found = relaxed.document()
                if found is not None:
                    return json.dumps(found), tuple(dict.fromkeys(relaxed.left_out))
        except (ValueError, RecursionError):
            pass
        return FREE, ("schema",)

    def holds(self, schema: Schema) -> bool:
        """Whether a grammar can hold a whole schema."""
        return self._holds(json.dumps(schema))

    @property
    def may_try(self) -> bool:
        """Whether the bound on trials is not met yet."""
        return self._left > 0

    def tries(self, part: Schema) -> bool:
        """Whether it can hold a part of one; False once the bound on trials is met."""
        text = json.dumps(part)
        self._left -= len(text) + 64
        return self._left >= 0 and self._holds(text)

    def tries_text(self, key: str, value: str) -> bool:
        """Whether it knows a pattern or a format, which schemas often repeat."""
        if (key, value) not in self._texts:
            self._texts[key, value] = self.tries({"type": "string", key: value})
        return self._texts[key, value]


class _Relaxed:
    """One schema on its way. Definitions lie beside it, by a new name for each place that is referred to."""

    def __init__(self, schema: Schema, relaxer: Relaxer) -> None:
        self.left_out: list[str] = []
        self._root = schema
        self._relaxer = relaxer
        self._options = 0
        self._names: dict[str, str] = {}
        self._definitions: dict[str, Part] = {}
        self._mended: set[str] = set()
        self._copy = self._copied({**schema, "type": "object"}, 0)
        for name, target in self._targets():
            self._definitions[name] = self._copied(target, 0)

    def document(self) -> Schema | None:
        """The whole schema, None if nothing of it holds."""
        assert isinstance(self._copy, dict)
        if not self._holds(self._copy):
            self._copy = self._mend(self._copy)
        return self._whole(self._copy) if self._holds(self._copy) else None

    def _holds(self, root: Schema) -> bool:
        return root.get("type") == "object" and self._relaxer.holds(self._whole(root))

    # What is known beforehand

    def _copied(self, node: Any, depth: int) -> Part:
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict) or depth > MAX_DEPTH:
            self.left_out.append("schema")
            return True
        copy: Schema = {}
        lost = []
        for key, value in node.items():
            kept = self._value(key, value, depth)
            if kept is not None:
                copy[key] = kept
            elif key in _KNOWN:
                lost.append(key)
        for key in lost:
            copy = self._without(copy, key)
        return copy

    def _value(self, key: str, value: Any, depth: int) -> Any:
        """What is kept of a keyword's value; None for nothing."""
        if key in _MAPS:
            if not isinstance(value, dict) or len(value) > MAX_MEMBERS or not all(map(_is_text, value)):
                return None
            if key == "patternProperties" and not all(
                self._relaxer.tries_text("pattern", name) for name in value
            ):
                return None
            return {name: self._copied(child, depth + 1) for name, child in value.items()}
        if key in _LISTS or (key == "items" and isinstance(value, list)):
            if not isinstance(value, list) or (key in _LISTS and not value):
                return None
            self._options += len(value) if key in ("anyOf", "oneOf") else 0
            if self._options > MAX_OPTIONS:
                return None
            return [self._copied(child, depth + 1) for child in value]
        if key in _SINGLE:
            return self._copied(value, depth + 1) if isinstance(value, dict | bool) else None
        if key == "$ref":
            return self._reference(value)
        if key in LEAST and isinstance(value, int | float) and value > MAX_LEAST:
            return None
        if key in _TEXTS and not (isinstance(value, str) and _is_text(value)):
            return None
        if key in _TEXTS and not self._relaxer.tries_text(key, value):
            return None
        return value if key in _LEAVES and _is_plain(value) else None

    def _reference(self, value: Any) -> str | None:
        if not isinstance(value, str) or resolve(self._root, value) is None:
            return None
        name = self._names.setdefault(value, f"d{len(self._names)}")
        return _DEFINITIONS + name

    def _targets(self) -> Iterator[tuple[str, Any]]:
        """All that is referred to, also by what is found on the way."""
        done = 0
        while done < len(self._names):
            for reference, name in list(self._names.items())[done:]:
                done += 1
                yield name, resolve(self._root, reference)

    # What a trial shows

    def _mend(self, node: Schema) -> Schema:
        if self._is_held(node):
            return node
        whole = node is self._copy
        node = dict(node)
        for key, value in node.items():
            node[key] = self._mended_value(key, value)
        if self._is_held(node):
            return node
        if not self._relaxer.may_try:
            # what was mended before counts, the rest admits anything
            return node if whole else {}
        keys = sorted(node, key=lambda key: _LAST.index(key) if key in _LAST else -1)
        for key in keys:
            trial = self._without(node, key, note=False)
            if self._is_held(trial):
                self.left_out.append(key)
                return trial
        for key in keys:
            node = self._without(node, key)
            if self._is_held(node):
                break
        return node

    def _mended_value(self, key: str, value: Any) -> Any:
        if key in _MAPS:
            return {name: self._mended_part(part) for name, part in value.items()}
        if key in _LISTS or (key == "items" and isinstance(value, list)):
            return [self._mended_part(part) for part in value]
        if key == "$ref":
            self._mend_definition(value.removeprefix(_DEFINITIONS))
        return self._mended_part(value) if key in _SINGLE else value

    def _mended_part(self, part: Part) -> Part:
        return part if isinstance(part, bool) else self._mend(part)

    def _mend_definition(self, name: str) -> None:
        if name not in self._mended:
            self._mended.add(name)
            self._definitions[name] = self._mended_part(self._definitions[name])

    def _is_held(self, node: Schema) -> bool:
        return self._relaxer.may_try and self._relaxer.tries(self._whole(node))

    def _whole(self, node: Schema) -> Schema:
        """A part of the schema with the definitions that it needs."""
        needed: dict[str, Part] = {}
        pending: list[Any] = [node]
        while pending:
            part = pending.pop()
            if isinstance(part, list):
                pending.extend(part)
            elif isinstance(part, dict):
                pending.extend(part.values())
                name = str(part.get("$ref", "")).removeprefix(_DEFINITIONS)
                if name in self._definitions and name not in needed:
                    needed[name] = self._definitions[name]
                    pending.append(needed[name])
        return {**node, "$defs": needed} if needed else node

    def _without(self, node: Schema, key: str, *, note: bool = True) -> Schema:
        """The node without a keyword, and without what would then mean something narrower."""
        if note:
            self.left_out.append(key)
        rest = {name: value for name, value in node.items() if name != key}
        if key in _MAPS:
            rest["additionalProperties"] = True
        elif key in _TELL_OF_PROPERTIES and "properties" in rest:
            rest.setdefault("additionalProperties", True)
        elif key == "prefixItems" or (key == "items" and isinstance(node.get(key), list)):
            rest.pop("items", None)
            rest.pop("additionalItems", None)
        return rest


_DEFINITIONS = "#/$defs/"
_KNOWN = _LEAVES | _CONSTRAINTS | {*_MAPS, *_LISTS, *_SINGLE, "$ref"}


def resolve(schema: Any, reference: str) -> Any:
    """The part of the schema that a reference like `#/$defs/name` means, None where it is another kind."""
    path = unquote(reference.removeprefix("#")).split("/")
    if not reference.startswith("#") or path[0]:
        return None
    node = schema
    for step in path[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(name)
        elif isinstance(node, list) and name.isdecimal() and name.isascii() and len(name) < 10:
            node = node[int(name)] if int(name) < len(node) else None
        else:
            return None
    return node


def _is_plain(value: Any) -> bool:
    """Whether llguidance's parser of JSON takes a value: no number or text is beyond what it reads."""
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending += [*node, *node.values()]
        elif isinstance(node, list):
            pending += node
        elif (isinstance(node, str) and not _is_text(node)) or (
            isinstance(node, int | float) and not _is_finite(node)
        ):
            return False
    return True


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _is_text(text: str) -> bool:
    """Whether there are no halves of a surrogate pair in it."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
