"""Writes a JSON schema as a grammar in llama.cpp's notation (GBNF), for clients that want to see it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.errors import RequestError
from server.wire.schema_keywords import KEYWORDS, bounds, is_bound, is_of_type, refuse_others, types_of

MAX_LENGTH = 256 << 10
"""Characters of the grammar; a longer one would not be accepted as a grammar either."""

MAX_DEPTH = 64
"""Schemas within schemas."""

_BASICS = {
    "ws": r'| " " | "\n" [ \t]{0,20}',
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" ["\\/bfnrt]',
    "string": r'"\"" char* "\""',
    "integer": r'"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": r'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": r'"true" | "false"',
    "null": r'"null"',
    "value": "object | array | string | number | boolean | null",
    "member": r'string ws ":" ws value',
    "object": r'"{" ws (member (ws "," ws member)* ws)? "}"',
    "array": r'"[" ws (value (ws "," ws value)* ws)? "]"',
}
"""The rules that need no schema. They use only each other."""

_ESCAPES = {'"': '\\"', "\\": "\\\\"}
"""What JSON text, which has no bare line ends, needs within a literal."""


def schema_to_gbnf(schema: Mapping[str, Any]) -> str:
    """A grammar whose rule `root` matches JSON that the schema admits.

    Knows `type` (a name or a list), `enum`, `const`, `anyOf`, `oneOf` (as `anyOf`), `$ref` to places within
    the schema, `properties`, `required`, `additionalProperties`, `items`, `minItems`, `maxItems`, `minLength`
    and `maxLength`. Properties come in the order of the schema; where there are some, no others come. Raises
    RequestError, one line, for every other keyword that would bind the JSON, and for what is no schema.
    """
    return _Writer(schema).grammar()


class _Writer:
    """Collects rules by name; `_places` names those of schemas that are referred to."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._rules: dict[str, str] = {}
        self._places = {"#": "root"}
        self._pending: list[tuple[str, Any]] = [("root", schema)]
        self._basics: set[str] = set()
        self._length = 0

    def grammar(self) -> str:
        while self._pending:
            name, target = self._pending.pop()
            # takes its place in the text before the rules that it needs
            self._rules[name] = ""
            self._define(name, self._body(target, 0))
        lines = [f"{name} ::= {body}" for name, body in self._rules.items()]
        lines += [f"{name} ::= {body}" for name, body in _BASICS.items() if name in self._basics]
        return "\n".join([*lines, ""])

    def _define(self, name: str, body: str) -> str:
        self._rules[name] = body
        self._spend(len(body))
        return name

    def _rule(self, kind: str, body: str) -> str:
        return self._define(f"{kind}-{len(self._rules)}", body)

    def _spend(self, length: int) -> None:
        self._length += length
        if self._length > MAX_LENGTH:
            raise _too_long()

    def _either(self, options: Iterable[str]) -> str:
        """One of the options. Stops at the first that makes the grammar too long: millions may come."""
        taken, length = [], self._length
        for option in options:
            taken.append(option)
            length += len(option) + len(" | ")
            if length > MAX_LENGTH:
                raise _too_long()
        return " | ".join(taken)

    def _basic(self, name: str) -> str:
        if name not in self._basics:
            self._basics.add(name)
            for other in _BASICS:
                if other in _words(_BASICS[name]):
                    self._basic(other)
        return name

    def _name(self, schema: Any, depth: int) -> str:
        """The name of a rule for a schema within another."""
        if depth > MAX_DEPTH:
            raise RequestError(f"the JSON schema nests more than {MAX_DEPTH} schemas in each other")
        if schema is True or schema == {}:
            return self._basic("value")
        if not isinstance(schema, Mapping):
            raise RequestError(f"a JSON schema must be an object, not {json.dumps(schema, default=str)[:64]}")
        if "$ref" in schema:
            return self._referred(schema)
        body = self._body(schema, depth)
        return body if body in _BASICS else self._rule("part", body)

    def _referred(self, schema: Mapping[str, Any]) -> str:
        refuse_others(schema, {"$ref"})
        place = schema["$ref"]
        if not isinstance(place, str):
            raise RequestError("$ref must be a text")
        target = self._at(place)
        if place not in self._places:
            self._places[place] = name = f"ref-{len(self._places)}"
            # not at once: a schema may refer to itself, and long chains would nest
            self._pending.append((name, target))
        return self._places[place]

    def _at(self, place: str) -> Any:
        """The schema that a reference means. A reference to a reference to itself means nothing."""
        passed = set()
        while True:
            if place in passed:
                raise RequestError(f"$ref {place[:64]!r} refers to itself")
            passed.add(place)
            target: Any = self._schema
            path = place.split("/")
            for step in path[1:]:
                key = step.replace("~1", "/").replace("~0", "~")
                target = target.get(key) if isinstance(target, Mapping) else None
            if path[0] != "#" or not isinstance(target, (Mapping, bool)):
                raise RequestError(f"$ref {place[:64]!r} is not a place within the JSON schema")
            if isinstance(target, bool) or not isinstance(target.get("$ref"), str):
                return target
            place = target["$ref"]

    def _body(self, schema: Any, depth: int) -> str:
        """The right side of a rule for `schema`; the name of a basic rule where it says it all."""
        if not isinstance(schema, Mapping) or "$ref" in schema or not schema:
            return self._name(schema, depth)
        if "const" in schema:
            refuse_others(schema, {"const", "type"})
            return self._literals([schema["const"]], schema)
        if "enum" in schema:
            refuse_others(schema, {"enum", "type"})
            values = schema["enum"]
            if not isinstance(values, Sequence) or isinstance(values, str):
                raise RequestError("enum must be a list")
            return self._literals(values, schema)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                refuse_others(schema, {key})
                options = schema[key]
                if not isinstance(options, Sequence) or isinstance(options, str) or not options:
                    raise RequestError(f"{key} must be a list of schemas")
                return self._either(self._name(option, depth + 1) for option in options)
        kinds = types_of(schema)
        refuse_others(schema, {"type"}.union(*(KEYWORDS[kind] for kind in kinds)))
        if set(kinds) >= {"object", "array", "string", "number", "boolean", "null"} and not is_bound(schema):
            return self._basic("value")
        return " | ".join(self._typed(kind, schema, depth) for kind in kinds)

    def _typed(self, kind: str, schema: Mapping[str, Any], depth: int) -> str:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                low, high = bounds(schema, "minLength", "maxLength")
                if (low, high) == (0, None):
                    return self._basic("string")
                return f'"\\"" {self._basic("char")}{_times(low, high)} "\\""'
            case _:
                return self._basic(kind)

    def _literals(self, values: Sequence[Any], schema: Mapping[str, Any]) -> str:
        kinds = types_of(schema) if "type" in schema else None
        admitted = (
            _literal(value)
            for value in values
            if kinds is None or any(is_of_type(value, kind) for kind in kinds)
        )
        literals = self._either(admitted)
        if not literals:
            raise RequestError("an enum or const in the JSON schema admits no value")
        return literals

    def _object(self, schema: Mapping[str, Any], depth: int) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, Mapping):
            raise RequestError("properties must be an object")
        if not isinstance(required, Sequence) or not all(isinstance(name, str) for name in required):
            raise RequestError("required must be a list of names")
        for name in required:
            if name not in properties:
                raise RequestError(f"required names {name[:64]!r}, which is not among the properties")
        if not properties:
            return self._map(schema, depth)
        ws = self._basic("ws")
        needed = set(required)
        members = [(self._member(name, value, depth), name in needed) for name, value in properties.items()]
        # once a member is there, each further one brings its comma; so the first one is chosen apart
        options = []
        for at, (first, must) in enumerate(members):
            rest = "".join(
                f' {ws} "," {ws} {other}' if also else f' ({ws} "," {ws} {other})?'
                for other, also in members[at + 1 :]
            )
            options.append(first + rest)
            self._spend(len(rest))
            if must:
                break
        return f'"{{" {ws} ({" | ".join(options)}){"" if needed else "?"} {ws} "}}"'

    def _member(self, name: str, value: Any, depth: int) -> str:
        ws = self._basic("ws")
        return self._rule("member", f'{_literal(name)} {ws} ":" {ws} {self._name(value, depth + 1)}')

    def _map(self, schema: Mapping[str, Any], depth: int) -> str:
        extra = schema.get("additionalProperties", True)
        if extra is False:
            return f'"{{" {self._basic("ws")} "}}"'
        if extra is True or extra == {}:
            return self._basic("object")
        ws, string = self._basic("ws"), self._basic("string")
        member = self._rule("member", f'{string} {ws} ":" {ws} {self._name(extra, depth + 1)}')
        return f'"{{" {ws} ({member} ({ws} "," {ws} {member})* {ws})? "}}"'

    def _array(self, schema: Mapping[str, Any], depth: int) -> str:
        low, high = bounds(schema, "minItems", "maxItems")
        ws = self._basic("ws")
        if high == 0:
            return f'"[" {ws} "]"'
        item = self._name(schema.get("items", True), depth + 1)
        if item == "value" and (low, high) == (0, None):
            return self._basic("array")
        more = _times(max(low - 1, 0), None if high is None else high - 1)
        items = f'({item} ({ws} "," {ws} {item}){more} {ws})'
        return f'"[" {ws} {items}{"" if low else "?"} "]"'


def _times(low: int, high: int | None) -> str:
    if (low, high) == (0, None):
        return "*"
    return f"{{{low}}}" if low == high else f"{{{low},{'' if high is None else high}}}"


def _literal(value: Any) -> str:
    """A JSON value as a literal of the grammar. Raises RequestError for what JSON cannot say."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError as error:
        raise RequestError(f"the JSON schema holds a value that is no JSON: {error}") from None
    if len(text) > MAX_LENGTH:
        raise _too_long()
    return f'"{"".join(_ESCAPES.get(character, character) for character in text)}"'


def _too_long() -> RequestError:
    return RequestError(f"the JSON schema makes a grammar longer than {MAX_LENGTH} characters")


def _words(body: str) -> set[str]:
    return {word.strip("()*?") for word in body.split()}
