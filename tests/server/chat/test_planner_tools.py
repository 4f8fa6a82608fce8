import json
from dataclasses import replace
from typing import Any

import pytest

from engine.errors import RequestError
from engine.types import GbnfGrammar, TaggedGrammar
from server.chat.call import ChatCall, Tool, ToolChoice, ToolMode
from tests.server.chat import templates
from tests.server.chat.planning import (
    HI,
    NOW,
    plan,
    reply_to,
    tags_of,
    text_of,
    with_tools,
)
from tests.server.chat.templates import assistant, result, system, user


def test_tools_of_a_template_that_knows_them() -> None:
    planned = plan(with_tools(), templates.QWEN_3)
    grammar = tags_of(planned)
    assert (grammar.trigger, grammar.required, grammar.several) == ("<tool_call>", False, True)
    assert [json.loads(tag.begin.splitlines()[1] + "0}")["name"] for tag in grammar.tags] == [
        "weather",
        "now",
    ]
    message = reply_to(planned, 'So.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call><|im_end|>')
    assert (message.content, [call.name for call in message.tool_calls]) == ("So.", ["now"])


def test_tools_are_told_to_a_template_that_knows_none() -> None:
    call = replace(
        with_tools(parallel_tool_calls=False),
        messages=(system("Be terse."), user("Hi"), assistant(None, ("c", "now", "{}")), result("noon", "c")),
    )
    planned = plan(call)
    text = text_of(planned)
    assert text.startswith("<|im_start|>system\nBe terse.\n\nYou can use tools.")
    assert '<|im_start|>assistant\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>' in text
    assert "<|im_start|>user\n<tool_response>\nnoon\n</tool_response><|im_end|>" in text
    assert not tags_of(planned).several
    [found] = reply_to(planned, '<tool_call>{"name": "now", "arguments": {}}').tool_calls
    assert found.name == "now"


def test_earlier_calls_are_text_also_when_no_tools_are_offered() -> None:
    call = ChatCall((user("Hi"), assistant(None, ("c", "now", "{}")), result("noon", "c")))
    planned = plan(call)
    assert "<tool_call>" in text_of(planned)
    assert "You can use tools" not in text_of(planned)
    assert planned.request.grammar is None


def test_tools_with_an_adapter() -> None:
    call = replace(
        with_tools(),
        messages=(user("Hi"), assistant(None, ("c", "now", "{}")), result("noon", "c")),
        adapter={"tools_start": "[", "tools_end": "]"},
    )
    text = text_of(plan(call))
    assert text.startswith("\n### Instruction:\nYou can use tools.")
    assert '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>' in text
    assert text.endswith("[\nReceived results of function call c:\nnoon]\n### Response:\n")
    without = text_of(plan(replace(call, tools=())))
    assert "(Called function now with {} as c)" in without


@pytest.mark.parametrize("mode", [ToolMode.NONE, ToolMode.AUTO])
def test_without_tools_nothing_is_looked_for(mode: ToolMode) -> None:
    call = replace(with_tools(mode), tools=()) if mode is ToolMode.AUTO else with_tools(mode)
    planned = plan(call, templates.QWEN_3)
    assert planned.request.grammar is None
    assert "# Tools" not in text_of(planned)
    reply = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    message = reply_to(planned, reply)
    assert (message.content, message.tool_calls) == (reply, ())


def test_required_and_named_tools() -> None:
    required = tags_of(plan(with_tools(ToolMode.REQUIRED), templates.QWEN_3))
    assert (required.required, len(required.tags)) == (True, 2)
    assert not required.several
    several = with_tools(ToolMode.REQUIRED, parallel_tool_calls=True)
    assert tags_of(plan(several, templates.QWEN_3)).several
    named = tags_of(plan(with_tools(ToolMode.REQUIRED, "now"), templates.QWEN_3))
    assert (named.required, named.several) == (True, False)
    [tag] = named.tags
    assert '"now"' in tag.begin


def test_the_model_is_told_of_tools_that_are_not_allowed() -> None:
    allowed = frozenset({"now", "other"})
    call = with_tools()
    narrowed = replace(call, tool_choice=ToolChoice(ToolMode.REQUIRED, allowed=allowed))
    planned = plan(narrowed, templates.QWEN_3)
    [tag] = tags_of(planned).tags
    assert '"now"' in tag.begin
    assert '"name": "weather"' in text_of(planned), "so that the prompt stays the same"
    nothing = ToolChoice(allowed=frozenset({"other"}))
    assert plan(replace(call, tool_choice=nothing), templates.QWEN_3).request.grammar is None
    with pytest.raises(RequestError, match="allows none"):
        plan(replace(call, tool_choice=replace(nothing, mode=ToolMode.REQUIRED)), templates.QWEN_3)


def test_a_call_that_must_come_leaves_no_room_for_thoughts() -> None:
    call = with_tools(ToolMode.REQUIRED, thinking_budget=50)
    opened = plan(call, templates.DEEPSEEK_R1)
    assert text_of(opened).endswith("<think>\n</think>\n\n")
    assert opened.request.thinking is None
    harmony = plan(call, templates.HARMONY)
    assert text_of(harmony).endswith("<|start|>assistant")
    tag = tags_of(harmony).tags[1]
    message = reply_to(harmony, f"{tag.begin}{{}}{tag.end}")
    assert [(found.name, found.arguments) for found in message.tool_calls] == [("now", "{}")]


def test_a_format_without_json_is_forced_in_another() -> None:
    auto = plan(with_tools(), templates.GLM_TOOLS)
    assert auto.request.grammar is None
    assert reply_to(auto, "<tool_call>now\n</tool_call>").tool_calls[0].name == "now"
    forced = plan(with_tools(ToolMode.REQUIRED), templates.GLM_TOOLS)
    tag = tags_of(forced).tags[1]
    assert reply_to(forced, f"{tag.begin}{{}}{tag.end}").tool_calls[0].name == "now"


def test_tools_win_over_a_grammar_unless_both_are_musts() -> None:
    grammar = GbnfGrammar('root ::= "yes"')
    assert isinstance(plan(with_tools(grammar=grammar)).request.grammar, TaggedGrammar)
    assert plan(with_tools(ToolMode.NONE, grammar=grammar)).request.grammar == grammar
    with pytest.raises(RequestError, match="exclude each other"):
        plan(with_tools(ToolMode.REQUIRED, grammar=grammar))
    with pytest.raises(RequestError, match="exclude each other"):
        plan(with_tools(ToolMode.AUTO, "now", grammar=grammar))


def test_mistrals_templates_get_ids_that_they_accept() -> None:
    messages = (
        user("Hi"),
        assistant(None, ("call_abcdef012", "now", "{}")),
        result("noon", "call_abcdef012"),
    )
    text = text_of(plan(replace(with_tools(), messages=(*messages, user("So?"))), templates.MISTRAL_TOOLS))
    assert '"id": "abcdef012"' in text
    assert "[TOOL_RESULTS]abcdef012: noon" in text


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (replace(HI, tool_choice=ToolChoice(ToolMode.REQUIRED)), "there are no tools"),
        (replace(HI, tool_choice=ToolChoice(ToolMode.AUTO, "now")), "there are no tools"),
        (with_tools(ToolMode.REQUIRED, "other"), "names the tool 'other', which is not"),
        (replace(HI, tools=(Tool("two words"),)), "bad tool name 'two words'"),
        (replace(HI, tools=(Tool(""),)), "bad tool name ''"),
        (replace(HI, tools=(Tool("x" * 10_000),)), "bad tool name"),
        (replace(HI, tools=(NOW,) * 1000), "1000 tools; at most"),
        (replace(HI, tools=(Tool("f", parameters=deep(70)),)), "nested more than 64"),
        (replace(HI, tools=(Tool("f", parameters=deep(100_000)),)), "nested more than 64"),
        (replace(HI, tools=(Tool("f", parameters={"default": {1, 2}}),)), "not JSON"),
        (replace(HI, adapter={"user_start": 1}), "user_start must be text"),
        (ChatCall(({"content": "Hi"},)), "message 0 has no role"),
    ],
)
def test_what_cannot_be_is_the_clients_fault(call: ChatCall, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as refusal:
        plan(call)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300
