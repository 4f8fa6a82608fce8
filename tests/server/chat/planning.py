"""Plans of single turns, made with a template or an adapter and no engine."""

import asyncio
from typing import Any

from engine.types import Event, FinishReason, GenerationRequest, TaggedGrammar, TextPrompt, Usage
from server.chat.adapters import Adapter
from server.chat.call import ChatCall, Tool, ToolChoice, ToolMode
from server.chat.message import Message
from server.chat.planner import ChatPlan, ChatPlanner
from server.chat.turn import collect
from tests.server.chat import templates
from tests.server.chat.templates import Renderer, model, refuse, user

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
