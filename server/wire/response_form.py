"""What clients say of the form of a reply: `response_format`, and a schema in a field of its own.

Knows the forms of OpenAI, llama.cpp (the schema beside the type) and Hugging Face (the schema as `value`).
"""

import json
from typing import Annotated, Any

from pydantic import BeforeValidator

from engine.errors import RequestError
from engine.types import Grammar, JsonGrammar

_ANY_OBJECT = '{"type": "object"}'
_OBJECT_TYPES = ("json_object", "json")
_PLACES = ("json_schema", "schema", "value")
"""Where in a `response_format` a schema may stand."""


def _schema(value: Any) -> Any:
    """A schema, as an object or as JSON text. An empty one is some clients' word for none."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("must be a JSON schema") from None
        if not isinstance(value, dict):
            raise ValueError("must be a JSON schema")
    return value or None


Schema = Annotated[dict[str, Any] | None, BeforeValidator(_schema)]
"""A field that holds a JSON schema; `{}`, `""`, false and null say nothing."""


def form_grammar(form: dict[str, Any] | None) -> Grammar | None:
    """What a `response_format` binds the text to; None: to nothing.

    Raises `RequestError` for forms that are not known: no reply shall break a form that was asked for.
    """
    if form is None or form.get("type") == "text":
        return None
    schema = next((form[place] for place in _PLACES if form.get(place) is not None), None)
    if isinstance(schema, dict) and "json_schema" in form:
        schema = schema.get("schema")
    match form.get("type"):
        case kind if kind in _OBJECT_TYPES and not schema:
            return JsonGrammar(_ANY_OBJECT)
        case kind if kind in (*_OBJECT_TYPES, "json_schema") and isinstance(schema, dict):
            return JsonGrammar(json.dumps(schema))
    raise RequestError(
        'response_format must be {"type": "text"}, {"type": "json_object"} or '
        '{"type": "json_schema", "json_schema": {"schema": {...}}}'
    )


def schema_grammar(schema: dict[str, Any] | None) -> Grammar | None:
    """What a schema in a field of its own binds the text to."""
    return None if schema is None else JsonGrammar(json.dumps(schema))
