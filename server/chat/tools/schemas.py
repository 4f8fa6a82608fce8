"""The tools' parameter schemas: what the grammar needs of them, and arguments that fit them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from server.chat.call import Tool
from server.chat.tools.json_value import parse_json

_KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


def arguments_schema(tool: Tool) -> str:
    """The schema of a tool's arguments as JSON text; always one of an object, whatever its `type` says.

    A tool without parameters takes an empty object.
    """
    schema = {**tool.parameters, "type": "object"} if tool.parameters else _NO_PARAMETERS
    return json.dumps(schema, ensure_ascii=False)


class ArgumentTypes:
    """Turns arguments that a model wrote as text into the types that the tools' schemas ask for."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._properties = {tool.name: _properties(tool) for tool in tools}

    def knows(self, name: str) -> bool:
        """Whether there is such a tool."""
        return name in self._properties

    def typed(self, name: str, argument: str, text: str) -> Any:
        """The value that `text` means for an argument of tool `name`.

        Where the schema allows text and nothing else fits, or says nothing, it stays text; an object or
        array is recognised even then if the schema does not ask for text.
        """
        kinds = self._properties.get(name, {}).get(argument, ())
        if not kinds and text.lstrip()[:1] not in ("{", "["):
            return text
        try:
            value = parse_json(text)
        except ValueError:
            lower = text.strip().lower()
            return lower == "true" if "boolean" in kinds and lower in ("true", "false") else text
        fits = not kinds or any(_is(value, kind) for kind in kinds)
        return value if fits and not isinstance(value, str) else text

    def mended(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments in which text stands for another type, as small models write them, set right."""
        return {
            key: self.typed(name, key, value) if self._wants_no_text(name, key, value) else value
            for key, value in arguments.items()
        }

    def _wants_no_text(self, name: str, argument: str, value: Any) -> bool:
        kinds = self._properties.get(name, {}).get(argument, ())
        return isinstance(value, str) and bool(kinds) and "string" not in kinds


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _KINDS.get(kind, ()))


def _properties(tool: Tool) -> dict[str, tuple[str, ...]]:
    """Names of arguments and the types that they may have; none where the schema does not say."""
    properties = tool.parameters.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    return {name: tuple(_kinds(schema)) for name, schema in properties.items()}


def _kinds(schema: Any) -> list[str]:
    """Types of a schema, those of its alternatives included, as far as they are said outright."""
    if not isinstance(schema, Mapping):
        return []
    kind = schema.get("type")
    kinds = [kind] if isinstance(kind, str) else kind if isinstance(kind, list) else []
    for name in ("anyOf", "oneOf"):
        options = schema.get(name)
        if isinstance(options, list):
            kinds = kinds + [option.get("type") for option in options if isinstance(option, Mapping)]
    return [kind for kind in kinds if isinstance(kind, str)]
