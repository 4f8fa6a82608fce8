"""Functionary's replies, with the planner that reads them."""

from typing import Any

import pytest

from engine.types import Event, FinishReason, Usage
from server.chat.call import ToolMode
from server.chat.message import Message
from server.chat.planner import ChatPlan
from server.chat.turn import collect
from tests.server.chat.planning import HI, plan, reply_to, tags_of, text_of, with_tools

TEMPLATE = (
    "{% if tools %}<|start_header_id|>system<|end_header_id|>\n\n{{ tools | tojson }}<|eot_id|>{% endif %}"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if m.role == 'assistant' %}{% if m.content %}{{ '>>>all\n' + m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ '>>>' + c.function.name + '\n' + c.function.arguments }}{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n>>>{% endif %}"
)
CITY = '{"city": "Bonn >>> {}"}'


def read(planned: ChatPlan, reply: str) -> tuple[str, list[tuple[str, str]]]:
    """What is read of a reply in one piece, which must be what is read of its letters."""
    reader = planned.reader()
    letters = [delta for letter in reply for delta in reader.push(Event("1", letter))]
    last = reader.push(Event("1", "", finish=FinishReason.EOS, usage=Usage(1, 1)))
    whole, streamed = told(reply_to(planned, reply)), told(collect([*letters, *last]))
    assert streamed == whole
    return whole


def told(message: Message) -> tuple[str, list[tuple[str, str]]]:
    return message.content, [(call.name, call.arguments) for call in message.tool_calls]


@pytest.mark.parametrize(
    ("reply", "content", "calls"),
    [
        ("all\nHi, you.", "Hi, you.", []),
        (f"weather\n{CITY}", "", [("weather", CITY)]),
        (
            f"all\nLet me see.>>>weather\n{CITY}>>>now\n{{}}",
            "Let me see.",
            [("weather", CITY), ("now", "{}")],
        ),
        ("all\n>>> print(1)\n>>>", ">>> print(1)\n>>>", []),
        ("Hi there", "Hi there", []),
        ("all", "all", []),
        ("", "", []),
    ],
)
def test_replies(reply: str, content: str, calls: list[Any]) -> None:
    planned = plan(with_tools(), TEMPLATE)
    assert text_of(planned).endswith(">>>")
    assert planned.request.grammar is None
    assert read(planned, reply) == (content, calls)


def test_without_tools_other_recipients_are_text() -> None:
    planned = plan(HI, TEMPLATE)
    assert read(planned, "all\nHi") == ("Hi", [])
    assert read(planned, "python\nprint(1)") == (">>>python\nprint(1)", [])


def test_a_call_that_must_come_is_forced_in_another_format() -> None:
    planned = plan(with_tools(ToolMode.REQUIRED), TEMPLATE)
    tag = tags_of(planned).tags[1]
    assert read(planned, f"{tag.begin}{{}}{tag.end}") == ("", [("now", "{}")])
