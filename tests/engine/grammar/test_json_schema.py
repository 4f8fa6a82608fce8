import json
import re
from typing import Any

import pytest

from engine.errors import RequestError
from engine.grammar import GrammarCompiler
from engine.grammar.json_schema import MAX_DEPTH, json_schema_to_lark
from engine.grammar.relaxed_schema import MAX_LEAST, MAX_MEMBERS, MAX_OPTIONS
from engine.tokenizer import Tokenizer
from engine.types import GbnfGrammar, JsonGrammar
from tests.engine.grammar.walks import BYTE_PAIRS, COMPILERS, SENTENCE_PIECES, admits, texts

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 4},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["a", "é", None]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
}


def is_person(value: Any) -> bool:
    return (
        list(value) == [key for key in PERSON["properties"] if key in value]  # type: ignore[attr-defined]
        and 1 <= len(value["name"]) <= 4
        and 0 <= value.get("age", 0) <= 150
        and value.get("kind") in ("a", "é", None)
        and 1 <= len(value["tags"]) <= 3
        and all(type(tag) is bool for tag in value["tags"])
    )


@pytest.mark.parametrize("tokenizer", [BYTE_PAIRS, SENTENCE_PIECES], ids=["bpe", "spm"])
@pytest.mark.parametrize("kind", [JsonGrammar, GbnfGrammar])
def test_random_texts_keep_to_the_schema(
    tokenizer: Tokenizer, kind: type[JsonGrammar] | type[GbnfGrammar]
) -> None:
    for text in texts(tokenizer, kind(json.dumps(PERSON))):
        assert is_person(json.loads(text))


@pytest.mark.parametrize("schema", ["{}", "true"])
def test_any_value(schema: str) -> None:
    found = {type(json.loads(text)) for text in texts(BYTE_PAIRS, JsonGrammar(schema), count=60)}
    assert {str, int} <= found
    for text in ("null", "[]", '{"a": [1.5e3, {"b": "é😀\\n"}]}', '"x"', "-0.5"):
        assert admits(BYTE_PAIRS, JsonGrammar(schema), text)


def test_characters_in_parts() -> None:
    """All bytes of the vocabulary are tokens of their own, so these take two to four each."""
    grammar = JsonGrammar('{"enum": ["é😀日"]}')
    assert admits(BYTE_PAIRS, grammar, '"é😀日"')
    assert not admits(BYTE_PAIRS, grammar, '"é😀"')


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"b":[2,3]}',
        '{"a": 1, "b": [2, 3]}',
        '{\n    "a": 1,\n    "b": [\n        2,\n        3\n    ]\n}',
        '{\r\n\t"a": 1\r\n, "b": [ ] }',
    ],
)
def test_white_space_is_flexible(text: str) -> None:
    assert admits(BYTE_PAIRS, JsonGrammar('{"type": "object"}'), text)


@pytest.mark.parametrize("blanks", ["   ", "\n\n", " \n", "\n" + " " * 41])
def test_white_space_is_bounded(blanks: str) -> None:
    for text in ("{%s}", '{"a":%s1}', '{"a":[1,%s2]}', '{"a":1%s}'):
        assert not admits(BYTE_PAIRS, JsonGrammar("{}"), text % blanks)
        assert admits(BYTE_PAIRS, JsonGrammar("{}"), text % "\n ")
    assert not admits(BYTE_PAIRS, JsonGrammar("{}"), " {}")


def test_white_space_in_strings_is_free() -> None:
    assert admits(BYTE_PAIRS, JsonGrammar("{}"), json.dumps("x" + " " * 100))


def test_a_schema_cannot_change_the_white_space() -> None:
    schema = '{"type": "array", "x-guidance": {"whitespace_pattern": " *"}}'
    assert not admits(BYTE_PAIRS, JsonGrammar(schema), "[" + " " * 50 + "]")


@pytest.mark.parametrize(
    ("schema", "admitted", "refused"),
    [
        ({"const": {"a": 1}}, '{"a": 1}', '{"a": 2}'),
        ({"type": "string", "pattern": "^a+$"}, '"aa"', '"b"'),
        ({"type": "string", "format": "date"}, '"2024-02-03"', '"2024-2-3"'),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "1.5", '"a"'),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/x"}], "$defs": {"x": {"const": 3}}}, "3", "4"),
        ({"type": ["string", "null"]}, "null", "1"),
        ({"type": "array", "items": {"$ref": "#"}}, "[[],[[]]]", "[1]"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, '{"x": 1}', '{"x": "a"}'),
        # what is listed is all there is, unless the schema says otherwise or tells more elsewhere
        ({"properties": {"a": {"type": "integer"}}}, '{"a": 1}', '{"b": 1}'),
        ({"properties": {"a": {"properties": {"b": {}}}}}, '{"a": {"b": 1}}', '{"a": {"c": 1}}'),
        ({"properties": {"a": {"const": 1}}, "additionalProperties": True}, '{"b": 1}', '{"a": 2}'),
        ({"properties": {"a": {"const": 1}}, "required": ["b"]}, '{"b": 1}', '{"a": 1}'),
        (
            {"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]},
            '{"a": 1, "b": 2}',
            '{"a": 1, "b": 3}',
        ),
        ({"const": {"properties": {"a": 1}}}, '{"properties": {"a": 1}}', "{}"),
    ],
)
def test_keywords(schema: dict[str, Any], admitted: str, refused: str) -> None:
    grammar = JsonGrammar(json.dumps(schema))
    assert admits(BYTE_PAIRS, grammar, admitted)
    assert not admits(BYTE_PAIRS, grammar, refused)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("", "the JSON schema is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[" * 100_000, "the JSON schema is not valid JSON: "),
        ('{"const": NaN}', "the JSON schema is not valid JSON: NaN is no JSON number"),
        ("[]", "the JSON schema must be an object"),
        ('{"type": "string", "not": {}}', 'the grammar cannot be used: Unimplemented keys: ["not"]'),
        ('{"type": "strin"}', "the grammar cannot be used: Invalid type: strin"),
        ('{"type": "string", "format": "odd"}', "the grammar cannot be used: Unknown format: odd"),
        (
            '{"type": "string", "pattern": "(a"}',
            "the grammar cannot be used: regex parse error: (a error: unclosed group",
        ),
        ('{"$ref": "#/$defs/x"}', "the grammar cannot be used: Pointer '/$defs/x' does not exist"),
        ("false", "the grammar cannot be used: Unsatisfiable schema: anyOf is empty"),
        ('"' + "x" * (256 << 10) + '"', "the JSON schema is longer than 262144 characters"),
    ],
)
def test_errors(schema: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        COMPILERS[id(BYTE_PAIRS)].check(JsonGrammar(schema))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def chained(length: int) -> str:
    """Definitions that need each other, two levels each."""
    names = {f"d{at}": {"type": "array", "items": {"$ref": f"#/$defs/d{at + 1}"}} for at in range(length)}
    return json.dumps({"$ref": "#/$defs/d0", "$defs": names | {f"d{length}": {"type": "null"}}})


def test_what_llguidance_does_not_survive_is_refused() -> None:
    GrammarCompiler(BYTE_PAIRS).check(JsonGrammar(chained(MAX_DEPTH // 2 - 5)))
    with pytest.raises(RequestError, match=f"more than {MAX_DEPTH} levels"):
        json_schema_to_lark(chained(MAX_DEPTH // 2))
    # named in another way than by their place
    with pytest.raises(RequestError, match=f"more than {MAX_DEPTH} levels"):
        json_schema_to_lark(re.sub(r"#/\$defs/", "#", chained(MAX_DEPTH // 2)))


def test_size_is_bounded() -> None:
    properties: dict[str, Any] = {f"p{at}": {} for at in range(MAX_MEMBERS + 1)}
    with pytest.raises(RequestError, match=f"more than {MAX_MEMBERS} members"):
        json_schema_to_lark(json.dumps({"properties": properties}))
    options: list[Any] = [{"anyOf": [{}] * 100} for _ in range(MAX_OPTIONS // 100 + 1)]
    with pytest.raises(RequestError, match=f"more than {MAX_OPTIONS} options"):
        json_schema_to_lark(json.dumps({"items": options}))
    with pytest.raises(RequestError, match=f"minItems in the JSON schema is larger than {MAX_LEAST}"):
        json_schema_to_lark(json.dumps({"items": {"minItems": MAX_LEAST + 1}}))
