"""Tools in all shapes that clients write them in, and the choice among them."""

from collections.abc import Mapping
from typing import Any

import pytest

from engine.errors import RequestError
from server.chat.call import Tool, ToolChoice, ToolMode
from server.wire.tool_choice import read_choice
from server.wire.tools import Declaration, Offer, read_tools
from tests.server.dialects.fields import untold

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
LOOK = {"name": "look", "description": "Looks.", "parameters": SCHEMA}
FLAT = {"type": "function", **LOOK}
NESTED = {"type": "function", "function": LOOK}
PATCH = {"type": "custom", "name": "patch", "description": "Edits."}
SPACE = {"type": "namespace", "name": "files", "tools": [FLAT, PATCH, {"type": "mcp"}]}


class Told(dict[str, str]):
    """What was asked for in vain."""

    def tell(self, fields: Mapping[str, str]) -> None:
        self.update(fields)


def tools_of(*listed: Any) -> Offer:
    return read_tools(listed, untold)


@pytest.mark.parametrize("written", [FLAT, NESTED, {"function": LOOK}, LOOK])
def test_functions_are_flat_or_nested(written: dict[str, Any]) -> None:
    offer = tools_of(written)
    assert offer.tools == (Tool("look", "Looks.", SCHEMA),)
    assert offer.declaration("look") == Declaration("look")


def test_anthropics_functions_are_called_custom() -> None:
    tool = {"name": "look", "input_schema": SCHEMA}
    read = [
        read_tools([one], untold, function="custom", schema="input_schema")
        for one in (tool, tool | {"type": "custom"})
    ]
    assert [offer.tools for offer in read] == [(Tool("look", "", SCHEMA),)] * 2
    assert not read[1].declaration("look").custom


def test_a_custom_tool_takes_one_text() -> None:
    grammar = {"syntax": "lark", "definition": "start: WORD"}
    flat = PATCH | {"format": {"type": "grammar", **grammar}}
    nested = {"type": "custom", "custom": PATCH | {"format": {"type": "grammar", "grammar": grammar}}}
    for written in (flat, nested):
        [tool] = tools_of(written).tools
        assert (tool.name, tool.parameters["required"]) == ("patch", ["input"])
        assert tool.parameters["properties"]["input"]["type"] == "string"
        assert tool.description == "Edits.\n\nThe input must follow this grammar (lark):\nstart: WORD"
        assert tools_of(written).declaration("patch").custom
    assert tools_of(PATCH).tools[0].description == "Edits."


def test_a_namespace_is_unfolded_and_its_names_come_back() -> None:
    told = Told()
    offer = read_tools([SPACE, FLAT], told.tell)
    assert [tool.name for tool in offer.tools] == ["files__look", "files__patch", "look"]
    assert offer.declaration("files__look") == Declaration("look", "files")
    assert offer.declaration("files__patch") == Declaration("patch", "files", custom=True)
    assert offer.find("look", "files") == "files__look"
    assert offer.find("look") == "look"
    assert offer.find("patch") == "files__patch"
    assert offer.find("sing", "files") == "files__sing"
    assert list(told) == ["a tool of type 'mcp'"]


def test_names_of_a_namespace_hide_no_other_tool() -> None:
    other = {"type": "function", "name": "files__look"}
    offer = tools_of({"type": "namespace", "name": "files__", "tools": [FLAT]}, other)
    assert [tool.name for tool in offer.tools] == ["files__look_", "files__look"]
    assert offer.find("look", "files__") == "files__look_"
    assert offer.declaration("files__look") == Declaration("files__look")


@pytest.mark.parametrize(
    "kind",
    ["web_search", "web_search_preview", "image_generation", "code_interpreter", "file_search", "mcp", "x",
     "local_shell", "computer_use_preview", "web_search_20250305", "bash_20250124", "text_editor_20250728"],
)  # fmt: skip
def test_what_does_not_run_here_is_skipped_and_told(kind: str) -> None:
    told = Told()
    offer = read_tools([{"type": kind, "name": "bash", "parameters": 7}, FLAT], told.tell)
    assert [tool.name for tool in offer.tools] == ["look"]
    assert list(told) == [f"a tool of type {kind!r}"]


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ({"type": "function"}, r"tools\.0\.name: must be text"),
        ({"type": "function", "function": {"name": 5}}, r"tools\.0\.name: must be text"),
        ({"name": "f", "description": 5}, r"tools\.0\.description: must be text"),
        ({"type": "custom"}, r"tools\.0\.name"),
        ({"type": "namespace", "name": "n"}, r"tools\.0: a namespace has"),
        ({"type": "namespace", "name": "n", "tools": [5]}, r"tools\.0\.tools\.0: must be an object"),
        ({"type": "namespace", "name": "n", "tools": [{"type": "function"}]}, r"tools\.0\.tools\.0\.name"),
    ],
)
def test_functions_that_nobody_can_read(tool: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        tools_of(tool)


MUST = ToolChoice(ToolMode.REQUIRED, "look")
ANY = ToolChoice(ToolMode.REQUIRED)


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ({"type": "auto"}, ToolChoice()),
        ("none", ToolChoice(ToolMode.NONE)),
        ({"type": "none"}, ToolChoice(ToolMode.NONE)),
        *((choice, ANY) for choice in ("required", "any", {"type": "required"}, {"type": "any"})),
        ({"type": "function", "name": "look"}, MUST),
        ({"type": "function", "function": {"name": "look"}}, MUST),
        ({"function": {"name": "look"}}, MUST),
        ({"name": "look"}, MUST),
        ({"type": "tool", "name": "look"}, MUST),
        ({"type": "custom", "name": "patch"}, ToolChoice(ToolMode.REQUIRED, "files__patch")),
        ({"type": "custom", "custom": {"name": "patch"}}, ToolChoice(ToolMode.REQUIRED, "files__patch")),
        (
            {"type": "function", "name": "look", "namespace": "files"},
            ToolChoice(ToolMode.REQUIRED, "files__look"),
        ),
    ],
)
def test_choices(choice: Any, meant: ToolChoice) -> None:
    offer = read_tools([SPACE, FLAT], lambda fields: None)
    assert read_choice(choice, offer, untold) == meant


@pytest.mark.parametrize("nested", [False, True])
def test_allowed_tools(nested: bool) -> None:
    entries = [NESTED if nested else FLAT, {"type": "web_search"}, {"type": "function", "name": "other"}]
    allowed = {"mode": "required", "tools": entries}
    choice = {"type": "allowed_tools"} | ({"allowed_tools": allowed} if nested else allowed)
    offer = tools_of(FLAT, PATCH)
    assert read_choice(choice, offer, untold) == ToolChoice(
        ToolMode.REQUIRED, allowed=frozenset({"look", "other"})
    )


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "web_search"},
        {"type": "tool", "name": "search"},
        {"type": "mcp", "server_label": "x", "name": "y"},
        {"type": "not_yet", "tools": []},
    ],
)
def test_a_choice_of_what_does_not_run_here_is_the_models(choice: Any) -> None:
    told = Told()
    offer = read_tools([FLAT, {"type": "web_search_1", "name": "search"}], lambda fields: None)
    assert read_choice(choice, offer, told.tell) == ToolChoice()
    assert len(told) == 1


def test_a_call_cannot_be_asked_for_where_all_tools_were_skipped() -> None:
    told = Told()
    offer = read_tools([{"type": "web_search"}], lambda fields: None)
    assert read_choice("required", offer, told.tell) == ToolChoice()
    assert told
    assert read_choice("required", tools_of(), untold) == ANY


@pytest.mark.parametrize(
    "choice", ["look", 7, [], {"type": 7}, {}, {"type": "tool"}, {"function": {}}, {"type": "allowed_tools"}]
)
def test_bad_choices(choice: Any) -> None:
    with pytest.raises(RequestError, match="tool_choice"):
        read_choice(choice, tools_of(FLAT), untold)
