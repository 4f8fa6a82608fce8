"""Hypothesis strategies for request bodies, as JSON text: values that no JSON writer makes are among them.

Half of a body is what the endpoint's schema admits, so that it gets past the first check; the other half is
of any type.
"""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from tests.server.fuzz.operations import Operation, resolved

LONG = 1 << 16
SPOILT = (0, 1, 2, 3, 4)
"""Levels of which objects may hold anything, one of them in a body: above it all is as it should be."""

DEEPEST = 6
"""Levels of a schema that are followed."""

Json = st.SearchStrategy[str]
"""Of JSON texts."""

NUMBERS: Json = st.one_of(
    st.sampled_from(
        (
            *("0", "-0", "-1", "1", "2", "0.5", "12.7", "1e400", "-1e400", "1e-400", "NaN", "Infinity"),
            *("-Infinity", "2147483648", "18446744073709551616", "9" * 40, "9" * 5000, "1e308", "true"),
        )
    ),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
)

ODD_STRINGS = r"""
""
"\ud800"
"a\udfffb"
"\u0000"
"\ufeff"
"\u2028\u2029"
"\\"
"12"
"NaN"
"auto"
"required"
"json"
"user"
"assistant"
"function"
"message"
"tool"
"tool_use"
"tool_result"
"function_call"
"function_call_output"
"input_text"
"json_object"
"json_schema"
"{{[INPUT]}}"
"<think>"
"<|im_end|>"
"root ::= root"
"root ::= \"a\"*"
"{\"type\": \"string\"}"
""".strip().splitlines()


def _long(part: str) -> str:
    return json.dumps(part * (LONG // len(part)))


STRINGS: Json = st.one_of(
    st.sampled_from(ODD_STRINGS),
    st.sampled_from(("x", "\u00e9", " ", "\n", "<|im_end|>")).map(_long),
    st.text(max_size=12).map(json.dumps),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(
        lambda text: json.dumps(text, ensure_ascii=False)
    ),
)

NESTED: Json = st.builds(
    lambda depth, opened, closed: opened * depth + closed * depth,
    st.sampled_from((1, 40, 90, 150, 300, 600, 900, 1100, 50_000)),
    st.just('{"a":['),
    st.just("]}"),
) | st.sampled_from((40, 90, 150, 400, 950, 100_000)).map(lambda depth: "[" * depth + "]" * depth)


def _list(items: list[str]) -> str:
    return f"[{', '.join(items)}]"


def _object(pairs: list[tuple[str, str]]) -> str:
    """An object as text; names may come twice."""
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in pairs) + "}"


NAMES = st.sampled_from(
    (
        *("type", "name", "role", "content", "text", "id", "call_id", "tool_use_id", "input", "arguments"),
        *(
            "function",
            "tool_calls",
            "schema",
            "json_schema",
            "parameters",
            "properties",
            "items",
            "$ref",
            "a",
        ),
    )
) | st.text(max_size=8)

SCALARS: Json = NUMBERS | STRINGS | st.sampled_from(("null", "true", "false"))

ANYTHING: Json = st.one_of(
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4).map(_list),
            st.lists(st.tuples(NAMES, inner), max_size=4).map(_object),
        ),
        max_leaves=8,
    ),
    NESTED,
)


def plausible(schema: Mapping[str, Any], depth: int = 0, spoilt: int | None = None) -> Json:
    """Texts of what `schema` admits, roughly: ranges and patterns do not count.

    `depth`: levels of objects and lists above it. `spoilt`: the level of which objects hold anything in
    their fields; None: no level.
    """
    whole = resolved(schema)
    if "const" in whole:
        return st.just(json.dumps(whole["const"]))
    if "enum" in whole:
        return st.sampled_from([json.dumps(value) for value in whole["enum"]])
    if "anyOf" in whole:
        return st.one_of([plausible(one, depth, spoilt) for one in whole["anyOf"]])
    match whole.get("type"):
        case "integer":
            return st.integers(0, 12).map(str)
        case "number":
            return st.floats(0, 2).map(json.dumps)
        case "boolean":
            return st.sampled_from(("true", "false"))
        case "string":
            return st.text("abc {}<|>", min_size=1, max_size=12).map(json.dumps)
        case "null":
            return st.just("null")
        case "array" if depth < DEEPEST:
            items = plausible(whole.get("items", {}), depth + 1, spoilt)
            return st.lists(items, min_size=1, max_size=3).map(_list)
        case "object" if depth < DEEPEST:
            return objects(whole, depth, spoilt)
    return SCALARS


def objects(schema: Mapping[str, Any], depth: int = 0, spoilt: int | None = None) -> Json:
    """Texts of objects with all required fields, some others and some that there are not; see `plausible`."""
    junk = ANYTHING if depth == spoilt else None
    fields = {
        name: value if junk is None else value | junk
        for name, field in schema.get("properties", {}).items()
        for value in (plausible(field, depth + 1, spoilt),)
    }
    required = st.tuples(
        *(st.tuples(st.just(name), fields[name]) for name in schema.get("required", ()))
    ).map(list)
    known = st.sampled_from(sorted(fields)).flatmap(lambda name: st.tuples(st.just(name), fields[name]))
    unknown = st.tuples(NAMES, SCALARS if junk is None else junk)
    others = st.lists(known | unknown if fields else unknown, max_size=5)
    return st.builds(lambda first, more: _object(first + more), required, others)


def _cut(text: str, place: int) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return raw[: place % (len(raw) + 1)]


def _spoilt(text: str, place: int, byte: int) -> bytes:
    raw = bytearray(text.encode("utf-8", "surrogatepass"))
    if raw:
        raw[place % len(raw)] = byte
    return bytes(raw)


def bodies(operation: Operation) -> st.SearchStrategy[bytes]:
    """Bodies for an endpoint: objects with fields of any type, and what is no object or no JSON at all."""
    schema = resolved(operation.schema)
    mixed = st.one_of([objects(schema, spoilt=level) for level in SPOILT])
    place = st.integers(0, 1 << 20)
    return st.one_of(
        mixed.map(lambda text: text.encode("utf-8", "surrogatepass")),
        objects(schema).map(str.encode),
        mixed.map(lambda text: text.encode("utf-8", "surrogatepass")),
        ANYTHING.map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.builds(_cut, mixed, place),
        st.builds(_spoilt, mixed, place, st.integers(0, 255)),
        st.binary(max_size=40),
    )
