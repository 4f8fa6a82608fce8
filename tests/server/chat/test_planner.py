import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from engine.errors import RequestError
from engine.types import (
    Event,
    FinishReason,
    GbnfGrammar,
    GenerationRequest,
    JsonGrammar,
    TaggedGrammar,
    TextPrompt,
    ThinkingBudget,
    Usage,
)
from server.chat.adapters import Adapter, shipped_adapter
from server.chat.call import ChatCall, Tool, ToolChoice, ToolMode
from server.chat.message import Message
from server.chat.planner import ChatPlan, ChatPlanner
from server.chat.turn import collect
from tests.server.chat import templates
from tests.server.chat.templates import Renderer, assistant, model, refuse, result, system, user

WEATHER = Tool("weather", "Tells it.", {"type": "object", "properties": {"city": {"type": "string"}}})
NOW = Tool("now")
BASE = GenerationRequest("1", TextPrompt(""), max_tokens=100, stop=("User:",))
HI = ChatCall((user("Hi"),))
CHATML_HI = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
ALPACA_HI = "\n### Instruction:\nHi\n### Response:\n"


def plan(
    call: ChatCall,
    template: str | None = templates.CHATML,
    *,
    adapter: Adapter | None = None,
    fallback: Adapter | None = None,
    base: GenerationRequest = BASE,
) -> ChatPlan:
    render = refuse if template is None else Renderer(template)
    planner = ChatPlanner(model(template), adapter, fallback)
    return asyncio.run(planner.plan(call, base, render))


def text_of(plan: ChatPlan) -> str:
    prompt = plan.request.prompt
    assert isinstance(prompt, TextPrompt)
    return prompt.text


def reply_to(plan: ChatPlan, text: str, finish: FinishReason = FinishReason.EOS) -> Message:
    return collect(plan.reader().push(Event("1", text, finish=finish, usage=Usage(1, 1))))


def with_tools(mode: ToolMode = ToolMode.AUTO, name: str | None = None, **fields: Any) -> ChatCall:
    return ChatCall((user("Hi"),), tools=(WEATHER, NOW), tool_choice=ToolChoice(mode, name), **fields)


def tags_of(plan: ChatPlan) -> TaggedGrammar:
    grammar = plan.request.grammar
    assert isinstance(grammar, TaggedGrammar)
    return grammar


def test_who_writes_the_prompt() -> None:
    own, settings = {"user_start": "U:"}, Adapter(user_start="S:")
    fallback = shipped_adapter("vicuna")
    assert text_of(plan(replace(HI, adapter=own), adapter=settings)) == "U:Hi\n### Response:\n"
    assert text_of(plan(HI, adapter=settings)) == "S:Hi\n### Response:\n"
    assert text_of(plan(HI, fallback=fallback)) == CHATML_HI
    assert text_of(plan(HI, None, fallback=fallback)) == "USER: Hi\nASSISTANT:"
    assert text_of(plan(HI, None)) == ALPACA_HI


def test_a_template_that_refuses_gives_way_to_the_fallback() -> None:
    refused = plan(HI, "{{ raise_exception('no') }}", fallback=shipped_adapter("chatml"))
    assert text_of(refused) == CHATML_HI
    broken = plan(HI, "{% for %}", fallback=shipped_adapter("chatml"))
    assert text_of(broken) == CHATML_HI


def test_only_adapters_add_stop_strings() -> None:
    assert plan(HI).request.stop == ("User:",)
    assert plan(HI, None).request.stop == ("User:", "### Instruction:", "### Response:")
    twice = replace(BASE, stop=("### Response:", "User:"))
    assert plan(HI, None, base=twice).request.stop == ("### Response:", "User:", "### Instruction:")


def test_the_rest_of_the_request_is_the_callers() -> None:
    base = replace(BASE, logprobs=3, trim_stop=False)
    request = plan(HI, base=base).request
    assert request == replace(base, prompt=TextPrompt(CHATML_HI), trim_stop=True)


def test_a_last_reply_goes_on_if_that_is_wanted() -> None:
    call = ChatCall((user("Hi"), assistant("Once")))
    assert text_of(plan(call)).endswith("<|im_start|>assistant\nOnce")
    assert text_of(plan(call, None)).endswith("\n### Response:\nOnce")
    answered = text_of(plan(replace(call, continue_last=False)))
    assert answered.endswith("Once<|im_end|>\n<|im_start|>assistant\n")


def test_memory_stands_before_the_chat_and_after_bos() -> None:
    call = replace(HI, memory="Rules.\n")
    assert plan(call).request.prompt == TextPrompt(CHATML_HI, "Rules.\n")
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    text = header.format("user") + "Hi<|eot_id|>" + header.format("assistant")
    assert plan(call, templates.LLAMA_3).request.prompt == TextPrompt(text, "<s>Rules.\n")
    assert plan(HI, templates.LLAMA_3).request.prompt == TextPrompt("<s>" + text)


def test_what_the_template_is_given() -> None:
    render = Renderer(templates.QWEN_3)
    call = with_tools(reasoning_effort="none", template_args={"enable_thinking": True, "x": 1})
    planned = asyncio.run(ChatPlanner(model(templates.QWEN_3)).plan(call, BASE, render))
    [asked] = render.asked
    assert asked.messages == call.messages
    assert [tool["function"]["name"] for tool in asked.tools] == ["weather", "now"]
    assert {tool["type"] for tool in asked.tools} == {"function"}
    assert asked.template_args == {"reasoning_effort": "none", "enable_thinking": True, "x": 1}
    assert '"name": "weather"' in text_of(planned)


def test_effort_none_thinks_not() -> None:
    assert text_of(plan(replace(HI, reasoning_effort="none"), templates.QWEN_3)).endswith("</think>\n\n")
    assert "Reasoning: low" in text_of(plan(replace(HI, reasoning_effort="low"), templates.HARMONY))


@pytest.mark.parametrize(
    ("effort", "budget", "tokens"),
    [
        ("none", None, 0),
        ("minimal", None, 10),
        ("low", 77, 25),
        ("medium", None, 50),
        ("high", None, None),
        ("xhigh", None, None),
        ("", None, None),
        ("", 77, 77),
        ("", 0, 0),
        ("", -1, None),
    ],
)
def test_effort_and_budget_bound_the_thoughts(effort: str, budget: int | None, tokens: int | None) -> None:
    call = replace(HI, reasoning_effort=effort, thinking_budget=budget)
    assert plan(call).request.thinking == (None if tokens is None else ThinkingBudget(tokens))


def test_the_budget_knows_the_models_tags() -> None:
    thinking = plan(replace(HI, thinking_budget=5), templates.HARMONY).request.thinking
    assert thinking is not None
    assert thinking.opening == "<|channel|>analysis<|message|>"
    assert thinking.closing.endswith("<|end|><|start|>assistant<|channel|>final<|message|>")


def test_thoughts_are_split_off_where_the_template_opens_them() -> None:
    planned = plan(HI, templates.DEEPSEEK_R1)
    assert text_of(planned).endswith("<think>\n")
    message = reply_to(planned, "Hm.\n</think>\n\nYes.</s>")
    assert (message.reasoning, message.content) == ("Hm.", "Yes.")
    kept = plan(replace(HI, split_reasoning=False), templates.DEEPSEEK_R1)
    message = reply_to(kept, "Hm.\n</think>\n\nYes.</s>")
    assert (message.reasoning, message.content) == ("", "Hm.\n</think>\n\nYes.")
    call = ChatCall((user("Hi"), assistant("<think>\nSo")))
    message = reply_to(plan(call, templates.QWEN_3), " be it.</think>Yes.")
    assert (message.reasoning, message.content) == ("be it.", "Yes.")


def test_special_tokens_are_shown_only_where_tags_are_looked_for() -> None:
    assert not plan(HI).request.render_special
    assert plan(HI, templates.QWEN_3).request.render_special
    assert plan(with_tools()).request.render_special
    # the end token's text shows then, too, unless the client wants it
    assert reply_to(plan(HI, templates.QWEN_3), "Yes.<|im_end|>").content == "Yes."
    wanted = plan(HI, templates.QWEN_3, base=replace(BASE, render_special=True))
    assert reply_to(wanted, "Yes.<|im_end|>").content == "Yes.<|im_end|>"


def test_a_plan_may_be_carried_out_several_times() -> None:
    planned = plan(HI, templates.QWEN_3)
    first, second = planned.reader(), planned.reader()
    first.push(Event("1", "<think>Hm"))
    [content, _] = second.push(Event("2", "Yes.", finish=FinishReason.EOS))
    assert content.text == "Yes."  # type: ignore[union-attr]


def test_a_grammar_binds_the_reply_and_leaves_no_room_for_thoughts() -> None:
    grammar = JsonGrammar("{}")
    call = replace(HI, grammar=grammar, reasoning_effort="low")
    request = plan(call).request
    assert (request.grammar, request.thinking) == (grammar, None)
    opened = plan(call, templates.DEEPSEEK_R1)
    assert text_of(opened).endswith("<think>\n</think>\n\n")
    assert reply_to(opened, "{}").content == "{}"
    assert text_of(plan(call, templates.QWEN_3)).endswith("<think>\n\n</think>\n\n")
    harmony = plan(call, templates.HARMONY)
    assert text_of(harmony).endswith("<|start|>assistant<|channel|>final<|message|>")
    assert reply_to(harmony, "{}").content == "{}"


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
    named = tags_of(plan(with_tools(ToolMode.REQUIRED, "now"), templates.QWEN_3))
    assert named.required
    [tag] = named.tags
    assert '"now"' in tag.begin


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
