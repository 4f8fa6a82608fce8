import json
from typing import Any

import pytest

from server.chat.call import Tool
from server.chat.tools.schemas import ArgumentTypes, arguments_schema


def typed(schema: Any, text: str) -> Any:
    tool = Tool("f", parameters={"properties": {"x": schema}})
    return ArgumentTypes([tool]).typed("f", "x", text)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "12", "12"),
        ({"type": "string"}, '"quoted"', '"quoted"'),
        ({"type": "integer"}, " 12 ", 12),
        ({"type": "integer"}, "1.5", "1.5"),
        ({"type": "integer"}, "true", "true"),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "number"}, "NaN", "NaN"),
        ({"type": "number"}, "-1e999", "-1e999"),
        ({"type": "integer"}, "1" * 5000, "1" * 5000),
        ({"type": "boolean"}, "False", False),
        ({"type": "boolean"}, "maybe", "maybe"),
        ({"type": "array"}, "[1, 2]", [1, 2]),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"type": "object"}, "{a", "{a"),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["integer", "string"]}, "seven", "seven"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "7", 7),
        ({}, "7", "7"),
        ({}, "[7]", [7]),
        (True, "7", "7"),
        ({"type": "array"}, "[" * 100_000, "[" * 100_000),
    ],
)
def test_text_becomes_what_the_schema_asks_for(schema: Any, text: str, value: Any) -> None:
    found = typed(schema, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("parameters", [{}, {"properties": []}, {"properties": {"x": {"type": 5}}}])
def test_odd_schemas_say_nothing(parameters: dict[str, Any]) -> None:
    types = ArgumentTypes([Tool("f", parameters=parameters)])
    assert types.typed("f", "x", "7") == "7"
    assert types.typed("unknown", "x", "7") == "7"


def test_only_text_in_the_place_of_another_type_is_mended() -> None:
    properties = {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": ["string", "integer"]}}
    types = ArgumentTypes([Tool("f", parameters={"properties": properties})])
    arguments = {"a": "3", "b": "3", "c": "3", "d": "3", "e": 3}
    assert types.mended("f", arguments) == arguments | {"a": 3}


def test_arguments_are_always_an_object() -> None:
    empty = json.loads(arguments_schema(Tool("f")))
    assert empty == {"type": "object", "properties": {}, "additionalProperties": False}
    assert json.loads(arguments_schema(Tool("f", parameters={"properties": {}}))) == {
        "type": "object",
        "properties": {},
    }
