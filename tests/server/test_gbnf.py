"""The grammars that schemas become, read by the engine: what it then writes keeps to the schema."""

import json
from typing import Any

import pytest

from engine.errors import RequestError
from engine.types import GbnfGrammar
from server.wire.gbnf import schema_to_gbnf
from tests.engine.grammar.walks import BYTE_PAIRS, admits, texts

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": ["integer", "null"]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["value"],
        }
    },
    "$ref": "#/$defs/node",
}


def is_tree(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and list(value) in (["value"], ["value", "children"])
        and (value["value"] is None or type(value["value"]) is int)
        and len(value.get("children", [])) <= 2
        and all(map(is_tree, value.get("children", [])))
    )


def written(schema: dict[str, Any], count: int = 30) -> list[Any]:
    """Values that the engine writes at random under the schema's grammar."""
    return [json.loads(text) for text in texts(BYTE_PAIRS, GbnfGrammar(schema_to_gbnf(schema)), count=count)]


def test_the_whole_of_a_small_grammar() -> None:
    schema = {"type": "object", "properties": {'a"b': {"type": "boolean"}}, "required": ['a"b']}
    assert schema_to_gbnf(schema) == (
        'root ::= "{" ws (member-1) ws "}"\n'
        'member-1 ::= "\\"a\\\\\\"b\\"" ws ":" ws boolean\n'
        'ws ::= | " " | "\\n" [ \\t]{0,20}\n'
        'boolean ::= "true" | "false"\n'
    )


def test_recursion() -> None:
    assert all(map(is_tree, written(TREE)))


@pytest.mark.parametrize("required", [[], ["b"], ["a", "c"], ["a", "b", "c"]])
def test_properties_in_order(required: list[str]) -> None:
    schema = {"type": "object", "properties": {name: {"const": name} for name in "abc"}, "required": required}
    found = {"".join(value) for value in written(schema, 60)}
    assert all("".join(sorted(keys)) == keys and set(required) <= set(keys) for keys in found)
    # and all of these can come
    every = [keys for keys in ("", "a", "b", "c", "ab", "ac", "bc", "abc") if set(required) <= set(keys)]
    for keys in every:
        text = json.dumps({name: name for name in keys})
        assert admits(BYTE_PAIRS, GbnfGrammar(schema_to_gbnf(schema)), text)


@pytest.mark.parametrize(
    ("schema", "admitted", "refused"),
    [
        ({}, ["1", '{"a": [null, {}]}', '"é😀"'], ["x", "01"]),
        ({"description": "any"}, ["1", "[]"], [""]),
        ({"type": "string"}, ['""', r'"a\"\n"'], ['"a', "1", r'"\x"']),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', r'"a\n\\"'], ['"a"', '"abcd"']),
        ({"minLength": 1}, ['"a"'], ['""', "1"]),
        ({"type": "integer"}, ["0", "-12"], ["1.0", "012", "-"]),
        ({"type": "number"}, ["0", "-1.5e-3"], ["1.", ".5"]),
        ({"type": ["null", "boolean"]}, ["null", "true"], ["0"]),
        ({"type": "array"}, ["[]", '[1,\n "a"]'], ["[1,]", "{}"]),
        ({"type": "array", "items": {"const": 1}, "minItems": 2}, ["[1,1]", "[1, 1, 1]"], ["[1]", "[1,2]"]),
        ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
        ({"type": "array", "minItems": 1, "maxItems": 2}, ["[1]", "[1,{}]"], ["[]", "[1,2,3]"]),
        ({"type": "object"}, ["{}", '{"a": 1, "b": []}'], ["[]", "{1: 2}"]),
        ({"type": "object", "additionalProperties": False}, ["{}", "{ }"], ['{"a": 1}']),
        ({"additionalProperties": {"type": "null"}}, ["{}", '{"a": null}'], ['{"a": 1}']),
        ({"properties": {"a": {}}, "additionalProperties": True}, ["{}", '{"a": 1}'], ['{"b": 1}']),
        ({"enum": [1, "a\n", None, {"b": [True]}]}, ["1", r'"a\n"', "null", '{"b": [true]}'], ["2", "true"]),
        ({"type": "string", "enum": [1, "a"]}, ['"a"'], ["1"]),
        ({"const": "\u2028\x7f\\"}, ['"\u2028\x7f\\\\"'], ['""']),
        ({"anyOf": [{"const": 1}, {"oneOf": [{"const": 2}, True]}]}, ["1", "2", "3"], ["x"]),
        ({"items": {"$ref": "#"}}, ["[]", "[[],[[]]]"], ["[1]", "1"]),
        ({"definitions": {"a/b": {"const": 1}}, "$ref": "#/definitions/a~1b"}, ["1"], ["2"]),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": True}, "$ref": "#/$defs/a"}, ["1", "[]"], ["x"]),
    ],
)
def test_keywords(schema: dict[str, Any], admitted: list[str], refused: list[str]) -> None:
    grammar = GbnfGrammar(schema_to_gbnf(schema))
    for text in admitted:
        assert admits(BYTE_PAIRS, grammar, text), text
    for text in refused:
        assert not admits(BYTE_PAIRS, grammar, text), text


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            {"type": "string", "pattern": "a"},
            "the keyword 'pattern' beside type cannot be written as a grammar",
        ),
        ({"not": {}}, "the keyword 'not' cannot be written as a grammar"),
        ({"anyOf": [{}], "type": "string"}, "the keyword 'type' beside anyOf cannot be written as a grammar"),
        ({"type": "strin"}, "type 'strin' is none of JSON schema's types"),
        ({"type": []}, "type must be a name or a list of names"),
        ({"enum": []}, "an enum or const in the JSON schema admits no value"),
        ({"enum": "ab"}, "enum must be a list"),
        ({"anyOf": []}, "anyOf must be a list of schemas"),
        ({"items": False}, "a JSON schema must be an object, not false"),
        ({"items": [1]}, "a JSON schema must be an object, not [1]"),
        ({"properties": []}, "properties must be an object"),
        ({"required": [1], "properties": {}}, "required must be a list of names"),
        ({"required": ["a"]}, "required names 'a', which is not among the properties"),
        ({"minLength": -1}, "minLength must be a whole number from 0 to 2000"),
        ({"maxItems": 1e3}, "maxItems must be a whole number from 0 to 2000"),
        ({"minItems": 2, "maxItems": 1}, "maxItems is less than minItems"),
        ({"$ref": 1}, "$ref must be a text"),
        ({"$ref": "#"}, "$ref '#' refers to itself"),
        ({"$ref": "http://a/b"}, "$ref 'http://a/b' is not a place within the JSON schema"),
        ({"$ref": "#/$defs/a", "$defs": {}}, "$ref '#/$defs/a' is not a place within the JSON schema"),
        ({"const": float("nan")}, "the JSON schema holds a value that is no JSON: "),
        ({"const": "\ud800"}, "the JSON schema holds a value that is no JSON: "),
        (
            {"properties": {f"p{at}": {} for at in range(900)}},
            "the JSON schema makes a grammar longer than 262144",
        ),
    ],
)
def test_what_cannot_be_said_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        schema_to_gbnf(schema)
    assert str(caught.value).startswith(message)


def test_nesting_is_bounded() -> None:
    schema: dict[str, Any] = {"const": 1}
    for _ in range(100):
        schema = {"items": schema}
    with pytest.raises(RequestError, match="nests more than 64 schemas"):
        schema_to_gbnf(schema)
