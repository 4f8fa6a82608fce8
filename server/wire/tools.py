"""Tools as clients declare them, in the shapes of all dialects, and how their calls go back.

`read_tools` is the only reader. Tools that run at a vendor's, and types that a later version invents, are
skipped: a client that offers them works without them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from engine.errors import RequestError
from server.chat.call import Tool
from server.wire.parts import KIND_SHOWN
from server.wire.tool_parameters import read_parameters

DECLARED_LIMIT = 1024
"""Most entries of `tools`; how many of them may be offered to a model is the planner's to say."""

INPUT = "input"
"""The one argument of a custom tool."""

NOT_OFFERED = "tools of this type do not run here, and the model is not offered them"

Tell = Callable[[Mapping[str, str]], None]
"""Takes note of what a client asks for in vain: names with reasons."""

Declared = Annotated[
    list[dict[str, Any]],
    Field(max_length=DECLARED_LIMIT),
    WithJsonSchema({"type": "array", "items": {"type": "object"}, "maxItems": DECLARED_LIMIT}),
]
"""The field `tools` of a request."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A tool in the client's words. `custom`: it takes text instead of arguments."""

    name: str
    namespace: str | None = None
    custom: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools that a model is offered. `declared`: what each of them is to the client, by its name there.

    `skipped`: names of tools that are not offered, as far as they have one. `any_skipped`: whether there
    are such tools.
    """

    tools: tuple[Tool, ...] = ()
    declared: Mapping[str, Declaration] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()
    any_skipped: bool = False

    def find(self, name: str, namespace: str | None = None) -> str:
        """The model's name of a tool of the client's; one that is not offered keeps its own."""
        wanted = [key for key, tool in self.declared.items() if tool.name == name]
        for key in wanted:
            if self.declared[key].namespace == namespace:
                return key
        if namespace is not None:
            return _joined(namespace, name)
        return wanted[0] if wanted else name

    def declaration(self, name: str) -> Declaration:
        """What the model's tool `name` is to the client."""
        return self.declared.get(name, Declaration(name))


NO_TOOLS = Offer()


def read_tools(
    listed: Sequence[Mapping[str, Any]], tell: Tell, *, function: str = "function", schema: str = "parameters"
) -> Offer:
    """The tools of a request's list. `tell` hears of those that are skipped.

    `function` is the dialect's type of functions, which may be left out, and `schema` the field with the JSON
    schema of their arguments. Functions and custom tools may be written flat, as in the Responses API, or
    in an object of their own, as in chats. The tools of a namespace have its name in front. Raises
    `RequestError` for functions that cannot be read.
    """
    reader = _Reader(tell, function, schema)
    flat = (_body(tool, str(tool.get("type", function))).get("name") for tool in listed)
    reader.taken.update(name for name in flat if isinstance(name, str))
    for index, tool in enumerate(listed):
        reader.read(tool, f"tools.{index}")
    return Offer(
        tuple(reader.tools), reader.declared, frozenset(reader.skipped), any_skipped=reader.any_skipped
    )


class _Reader:
    def __init__(self, tell: Tell, function: str, schema: str) -> None:
        self._tell = tell
        self._function = function
        self._schema = schema
        self.taken: set[str] = set()
        self.tools: list[Tool] = []
        self.declared: dict[str, Declaration] = {}
        self.skipped: set[str] = set()
        self.any_skipped = False

    def read(self, tool: Mapping[str, Any], place: str, namespace: str | None = None) -> None:
        kind = tool.get("type", self._function)
        if kind == self._function:
            self._add(_function_of(_body(tool, "function"), self._schema, place), namespace, custom=False)
        elif kind == "custom":
            self._add(_custom_of(_body(tool, "custom"), place), namespace, custom=True)
        elif kind == "namespace" and namespace is None:
            self._unfold(tool, place)
        else:
            self._skip(tool, kind)

    def _unfold(self, tool: Mapping[str, Any], place: str) -> None:
        name, held = tool.get("name"), tool.get("tools")
        if not isinstance(name, str) or not isinstance(held, list):
            raise RequestError(f"{place}: a namespace has a name and a list of tools")
        for index, one in enumerate(held):
            if not isinstance(one, Mapping):
                raise RequestError(f"{place}.tools.{index}: must be an object")
            self.read(one, f"{place}.tools.{index}", name)

    def _add(self, tool: Tool, namespace: str | None, *, custom: bool) -> None:
        name = tool.name
        if namespace is not None:
            name = _joined(namespace, tool.name)
            while name in self.taken:
                name += "_"
            self.taken.add(name)
        self.tools.append(Tool(name, tool.description, tool.parameters))
        self.declared[name] = Declaration(tool.name, namespace, custom)

    def _skip(self, tool: Mapping[str, Any], kind: Any) -> None:
        self.any_skipped = True
        if isinstance(name := tool.get("name"), str):
            self.skipped.add(name)
        self._tell({f"a tool of type {str(kind)[:KIND_SHOWN]!r}": NOT_OFFERED})


def _body(tool: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The object that describes the tool: its own of that name, as in chats, or the tool itself."""
    inner = tool.get(kind)
    return inner if isinstance(inner, Mapping) else tool


def _function_of(body: Mapping[str, Any], schema: str, place: str) -> Tool:
    return Tool(_name(body, place), _description(body, place), read_parameters(body.get(schema)))


def _custom_of(body: Mapping[str, Any], place: str) -> Tool:
    """A tool that takes text, as a function with one argument."""
    told = _description(body, place)
    if grammar := _grammar_of(body):
        told = "\n\n".join(filter(None, (told, grammar)))
    argument = {"type": "string", "description": "the whole input of the tool, as plain text"}
    schema = {"type": "object", "properties": {INPUT: argument}, "required": [INPUT]}
    return Tool(_name(body, place), told, schema | {"additionalProperties": False})


def _grammar_of(body: Mapping[str, Any]) -> str:
    """What the model is told of the form of a custom tool's input."""
    form = body.get("format")
    if not isinstance(form, Mapping):
        return ""
    inner = form.get("grammar")
    grammar = inner if isinstance(inner, Mapping) else form
    definition = grammar.get("definition")
    if not isinstance(definition, str):
        return ""
    return f"The input must follow this grammar ({grammar.get('syntax', 'lark')}):\n{definition}"


def _name(body: Mapping[str, Any], place: str) -> str:
    name = body.get("name")
    if not isinstance(name, str) or not name:
        raise RequestError(f"{place}.name: must be text")
    return name


def _description(body: Mapping[str, Any], place: str) -> str:
    told = body.get("description")
    if told is None:
        return ""
    if not isinstance(told, str):
        raise RequestError(f"{place}.description: must be text")
    return told


def _joined(namespace: str, name: str) -> str:
    return f"{namespace.rstrip('_')}__{name}"


def named_in(choices: Iterable[Any]) -> Iterable[tuple[str, str | None]]:
    """Names and namespaces of the tools in a list of choices, flat or nested; what names none is left out."""
    for choice in choices:
        if isinstance(choice, Mapping) and (found := named(choice)) is not None:
            yield found


def named(choice: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The tool that a choice names, with its namespace; None where it names none."""
    name, space = _body(choice, str(choice.get("type", "function"))).get("name"), choice.get("namespace")
    return (name, space if isinstance(space, str) else None) if isinstance(name, str) else None
