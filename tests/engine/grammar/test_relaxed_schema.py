import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.grammar import GrammarCompiler
from engine.grammar.relaxed_schema import MAX_LEAST, MAX_MEMBERS, MAX_OPTIONS
from engine.types import Tag, TaggedGrammar
from tests.engine.grammar.walks import BYTE_PAIRS, admits

COMPILER = GrammarCompiler(BYTE_PAIRS)
OTHER = Tag(
    "<c>other=",
    '{"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}',
    "</c>",
    "other",
)
INF = float("inf")


def calls(*schemas: Any) -> TaggedGrammar:
    tags = [Tag(f"<c>t{at}=", json.dumps(schema), "</c>", f"t{at}") for at, schema in enumerate(schemas)]
    return TaggedGrammar("<c>", (*tags, OTHER), required=True)


def takes(grammar: TaggedGrammar, arguments: Any, tag: str = "t0") -> bool:
    return admits(BYTE_PAIRS, grammar, f"<c>{tag}={json.dumps(arguments)}</c>", COMPILER)


def a(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema, "b": {"type": "integer"}}, **more}


LIST = {"type": "array", "items": {"type": "string"}}


@pytest.mark.parametrize(
    ("schema", "keyword", "admitted", "refused"),
    [
        (
            a({"type": "object", "propertyNames": {"type": "string"}}),
            "propertyNames",
            {"a": {"x": 1}},
            {"a": 1},
        ),
        (a({"type": "integer", "not": {"const": 0}}), "not", {"a": 0}, {"a": "0"}),
        (a({**LIST, "uniqueItems": True}), "uniqueItems", {"a": ["x", "x"]}, {"a": [1]}),
        (a({**LIST, "contains": {}}), "contains", {"a": ["x"]}, {"a": [1]}),
        (a(LIST, **{"if": {}, "then": {}}), "if, then", {"a": ["x"]}, {"b": "x"}),
        (a(LIST, dependentRequired={"a": ["b"]}), "dependentRequired", {"a": ["x"]}, {"a": 1}),
        (a(LIST, unevaluatedProperties=False), "unevaluatedProperties", {"a": ["x"]}, {"a": 1}),
        (a({"type": "string", "format": "uint16"}), "format", {"a": "x"}, {"a": 1}),
        (a({"type": "string", "pattern": "^(?=x)"}), "pattern", {"a": "y"}, {"a": 1}),
        (a({"type": "string", "pattern": "\\bx", "maxLength": 2}), "pattern", {"a": "yy"}, {"a": "yyy"}),
        (a({"type": "string", "pattern": "(x"}), "pattern", {"a": "y"}, {"a": 1}),
        (a({"type": "frob"}), "type", {"a": [1]}, {"b": "x"}),
        (a({"type": ["string", "frob"]}), "type", {"a": "x"}, {"b": "x"}),
        (a({"type": "object", "properties": None}), "properties", {"a": {"x": 1}}, {"a": 1}),
        (a({"type": "object", "required": "x"}), "required", {"a": {"x": 1}}, {"a": 1}),
        (a({"$ref": "https://example.org/x"}), "$ref", {"a": 1}, {"b": "x"}),
        (a({"$ref": "#/$defs/none"}), "$ref", {"a": 1}, {"b": "x"}),
        (a({"type": "integer", "minimum": 3, "maximum": 1}, required=["a"]), "minimum", {"a": 1}, {"a": 2}),
        (a({"type": "integer", "minimum": 1e400}), "minimum", {"a": -1}, {"a": "x"}),
        (a({"type": "integer", "maximum": 10**400}), "maximum", {"a": 1}, {"a": "x"}),
        (a({"type": "integer", "minimum": 1e30}), "minimum", {"a": 1}, {"a": "x"}),
        (a({"type": "number", "multipleOf": 1e300}), "multipleOf", {"a": 1.5}, {"a": "x"}),
        (a({"type": "string", "minLength": MAX_LEAST + 1}), "minLength", {"a": "x"}, {"a": 1}),
        (
            a({"type": "string", "minLength": 3, "maxLength": 2}, required=["a"]),
            "minLength",
            {"a": "x"},
            {"a": "xxx"},
        ),
        (a({"enum": []}, required=["a"]), "enum", {"a": 1}, {"b": "x"}),
        (a({"anyOf": [{"type": "null"}, {"not": {}}]}), "not", {"a": "x"}, {"b": "x"}),
        (a({"anyOf": {}}), "anyOf", {"a": "x"}, {"b": "x"}),
        (a({"allOf": [{"type": "string"}, {"type": "null"}]}, required=["a"]), "allOf", {"a": 1}, {"b": "x"}),
        (a(False, required=["a"]), "required", {"b": 1}, {"b": "x"}),
        (a({"const": "\ud800"}), "const", {"a": "x"}, {"b": "x"}),
        # what is left out of one place must not shut out more in another
        (
            a({}, patternProperties={"^(?!a)": {}}, additionalProperties=False),
            "patternProperties",
            {"x": 1},
            {"b": "x"},
        ),
        (a({"type": "array", "prefixItems": 3, "items": False}), "prefixItems", {"a": [1]}, {"a": 1}),
        ({"properties": {"\ud800": {}}, "additionalProperties": False}, "properties", {"x": 1}, [1]),
        # through references, also one that comes back to itself
        (
            a(
                {"$ref": "#/$defs/x"},
                **{"$defs": {"x": {"type": "array", "items": {"type": "null", "not": {}}}}},
            ),
            "not",
            {"a": [None]},
            {"a": [1]},
        ),
        (
            a({"$ref": "#/properties/a/items/0", "type": "array", "items": [{"type": "array", "not": 1}]}),
            "not",
            {"a": [[]]},
            {"a": [1]},
        ),
        (
            a({"anyOf": [{"$ref": "#"}, {"type": "string", "pattern": "(?=x)"}]}),
            "pattern",
            {"a": {"a": "y"}},
            {"a": 1},
        ),
        # of what is no object
        ({"type": "object", "enum": ["a", "b"]}, "enum", {"x": 1}, "a"),
        ([1], "schema", {"x": 1}, [1]),
        ("x", "schema", {"x": 1}, "x"),
    ],
)
def test_what_cannot_be_held_is_left_out(
    schema: Any, keyword: str, admitted: Any, refused: Any, caplog: pytest.LogCaptureFixture
) -> None:
    grammar = calls(schema)
    assert takes(grammar, admitted)
    assert not takes(grammar, refused)
    assert not takes(grammar, {"x": "y"}, "other")
    [line] = [record.getMessage() for record in caplog.records]
    assert line == f"the grammar holds the tools 't0' without {keyword}"


def test_what_can_be_held_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    grammar = calls(a({"type": "string", "minLength": 2}, description=3, examples=[INF]))
    assert takes(grammar, {"a": "xx"})
    assert not takes(grammar, {"a": "x"})
    assert not takes(grammar, {"c": 1})
    assert caplog.records == []


def test_a_line_of_the_log_does_not_name_all_tools(caplog: pytest.LogCaptureFixture) -> None:
    COMPILER.check(calls(*[{"type": "object", "title": "many", "not": {"const": at}} for at in range(20)]))
    [line] = [record.getMessage() for record in caplog.records]
    assert line.count("without not") == 8
    assert line.endswith(" and 12 more")


def test_sizes_beyond_the_bounds(caplog: pytest.LogCaptureFixture) -> None:
    wide = a({"type": "object", "properties": {f"p{at}": {} for at in range(MAX_MEMBERS + 1)}})
    long = a({"anyOf": [{"const": at} for at in range(MAX_OPTIONS + 1)]})
    deep: Any = {"type": "null"}
    for _ in range(150):
        deep = {"type": "array", "items": deep}
    chain = {f"d{at}": {"items": {"$ref": f"#/$defs/d{at + 1}"}} for at in range(600)}
    grammar = calls(
        wide, long, a(deep), a({"$ref": "#/$defs/d0"}, **{"$defs": chain}), {"description": "x" * (300 << 10)}
    )
    for tag in ("t0", "t1", "t2"):
        assert takes(grammar, {"b": 1}, tag)
        assert not takes(grammar, {"b": "x"}, tag)
    for tag in ("t3", "t4"):
        assert takes(grammar, {"x": 1}, tag)
    assert not takes(grammar, {"x": "y"}, "other")
    assert "'t0' without properties; 't1' without anyOf; 't2' without schema; 't3' without" in caplog.text


def test_when_trials_are_used_up_the_rest_admits_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.grammar.relaxed_schema.MAX_TRIED", 4000)
    odd = {"type": "object", "properties": {"q": {"type": "string", "enum": []}}, "required": ["q"]}
    names = [f"p{at}" for at in range(20)]
    grammar = calls(a({}, properties=dict.fromkeys(names, odd) | {"b": {"type": "null"}}, required=names))
    usual = {name: {"q": "x"} for name in names}
    assert takes(grammar, usual)
    assert not takes(grammar, {})
    assert not takes(grammar, usual | {"p0": {"q": 1}})
    assert takes(grammar, usual | {"p19": 1})


def test_schemas_that_are_too_large_together(caplog: pytest.LogCaptureFixture) -> None:
    """Each admits few enough values for a grammar, all of them do not."""
    names = [{"enum": [f"{tool}.{at}.{'x' * 20}" for at in range(5000)]} for tool in range(8)]
    grammar = calls(*map(a, names))
    assert takes(grammar, {"anything": 1})
    assert "leaves out all schemas" in caplog.text


_KEYWORDS = st.sampled_from(
    [
        *(
            "type",
            "properties",
            "required",
            "items",
            "prefixItems",
            "anyOf",
            "oneOf",
            "allOf",
            "enum",
            "const",
        ),
        *(
            "additionalProperties",
            "patternProperties",
            "pattern",
            "format",
            "$ref",
            "$defs",
            "minimum",
            "maximum",
        ),
        *(
            "exclusiveMinimum",
            "multipleOf",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
        ),
        *(
            "maxProperties",
            "propertyNames",
            "not",
            "if",
            "then",
            "uniqueItems",
            "contains",
            "unevaluatedProperties",
        ),
        *("dependentRequired", "$schema", "$id", "$anchor", "description", "x-guidance", "default", "a", "b"),
    ]
)
_ATOMS = st.sampled_from(
    [
        *(
            None,
            True,
            False,
            0,
            1,
            -1,
            2.5,
            1e30,
            INF,
            -INF,
            float("nan"),
            10**400,
            10**9,
            "",
            "a",
            "b",
            "\ud800",
        ),
        *(
            "string",
            "object",
            "array",
            "integer",
            "number",
            "null",
            "date",
            "uint16",
            "^a+$",
            "(?=a)b",
            "\\bx",
        ),
        *(
            "(a",
            "a{9999}",
            "#",
            "#/$defs/a",
            "#/properties/a",
            "#/properties/b",
            "#a",
            "https://example.org/x",
        ),
    ]
)
_VALUES = st.recursive(
    _ATOMS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYWORDS, inner, max_size=5),
    max_leaves=25,
)


@settings(max_examples=40, deadline=None)
@given(_VALUES, st.dictionaries(_KEYWORDS, _VALUES, max_size=6))
def test_any_json_makes_a_tool_that_can_be_called(value: Any, schema: dict[str, Any]) -> None:
    grammar = calls(value, schema)
    assert takes(grammar, {"x": 1}, "other")
    assert not takes(grammar, {"x": "y"}, "other")
    state = COMPILER.start(grammar)
    for token in BYTE_PAIRS.encode("<c>t1=", add_bos=False):
        assert state.mask()[token // 32] >> (token % 32) & 1
        state.accept(token)
    assert not state.finished
