"""The only translator between the Anthropic wire and the server's messages. Pure."""

import json
from dataclasses import replace

from engine.types import GenerationRequest, JsonGrammar, TextPrompt
from server.chat.call import ChatCall
from server.dialects.anthropic.schemas import ConversationBody, MessagesBody
from server.dialects.anthropic.turns import to_messages
from server.wire.generation_fields import to_request
from server.wire.tool_choice import read_choice
from server.wire.tools import Tell, read_tools

EFFORTS = {None: "", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def chat_call(body: ConversationBody, tell: Tell) -> ChatCall:
    """The turn that is asked for. Raises `RequestError` for blocks that the model cannot read.

    `tell` hears of what is left out: tools that run elsewhere, blocks of unknown types.

    A model that can think does so only when asked, as at Anthropic: many clients take the first block
    of a reply for its text.
    """
    output = body.output_config
    offer = read_tools(body.tools, tell, function="custom", schema="input_schema")
    choice = read_choice(body.tool_choice, offer, tell)
    alone = isinstance(body.tool_choice, dict) and body.tool_choice.get("disable_parallel_tool_use") is True
    thinking = body.thinking if shows_thinking(body) else None
    budget = None if thinking is None else thinking.budget_tokens
    effort = EFFORTS[output.effort] if budget is None else ""
    return ChatCall(
        messages=to_messages(body.system, body.messages, tell),
        tools=offer.tools,
        tool_choice=choice,
        parallel_tool_calls=False if alone else None,
        grammar=None if output.format is None else JsonGrammar(json.dumps(output.format.json_schema)),
        reasoning_effort="none" if thinking is None else effort,
        thinking_budget=budget,
    )


def base_request(body: MessagesBody, request_id: str) -> GenerationRequest:
    """The request without its prompt, which is planned."""
    stop = body.stop_sequences or None
    request = to_request(body, request_id, TextPrompt(""), max_tokens=body.max_tokens, stop=stop)
    return replace(request, prompt_first=True)


def shows_thinking(body: ConversationBody) -> bool:
    """Whether the reply has blocks of thinking."""
    return body.thinking is not None and body.thinking.type != "disabled"
