import asyncio
import logging
from dataclasses import replace

import pytest

from engine.types import (
    Event,
    FinishReason,
    JsonGrammar,
    TextPrompt,
    ThinkingBudget,
)
from server.chat.adapters import Adapter, shipped_adapter
from server.chat.call import ChatCall
from server.chat.planner import ChatPlanner
from tests.server.chat import templates
from tests.server.chat.planning import (
    ALPACA_HI,
    BASE,
    CHATML_HI,
    HI,
    plan,
    reply_to,
    text_of,
    with_tools,
)
from tests.server.chat.templates import Renderer, assistant, model, user


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


def test_a_model_whose_template_refuses_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    refusing = "{{ raise_exception('no way') }}"
    planner = ChatPlanner(model(refusing))
    for _ in range(3):
        asyncio.run(planner.plan(HI, BASE, Renderer(refusing)))
    lines = [
        (line.levelname, "no way" in line.message) for line in caplog.records if "adapter" in line.message
    ]
    assert lines == [("WARNING", True), ("INFO", True), ("INFO", True)]


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
