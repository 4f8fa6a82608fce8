import json

import pytest

from engine.errors import RequestError
from server.chat.call import Tool
from server.chat.tools import formats
from server.chat.tools.telling import describe_tools, shorten_ids, template_tools, write_tools
from tests.server.chat.templates import assistant, result, system, user
from tests.server.chat.tools.replies import parse

TOOLS = (Tool("weather", "Tells it.", {"type": "object", "properties": {"city": {}}}), Tool("now"))
CALL = ("call_012345678", "weather", '{"city": "Bonn"}')
SPELLED = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'


def test_tools_have_openais_shape_for_templates() -> None:
    [weather, now] = template_tools(TOOLS)
    assert weather["type"] == now["type"] == "function"
    assert weather["function"] == {
        "name": "weather",
        "description": "Tells it.",
        "parameters": {"type": "object", "properties": {"city": {}}},
    }
    assert now["function"]["parameters"] == {"type": "object", "properties": {}}


def test_the_description_has_all_tools_and_the_form() -> None:
    told = describe_tools(TOOLS, parallel=True)
    listed = told.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert [json.loads(line) for line in listed] == [tool["function"] for tool in template_tools(TOOLS)]
    form = told[told.index("<tool_call>") : told.index("</tool_call>") + len("</tool_call>")]
    assert parse(formats.HERMES, form.replace("{ARGUMENTS}", "{}")) == ("", [("NAME", {})])
    assert describe_tools(TOOLS, parallel=False) != told


def test_calls_and_results_become_text() -> None:
    messages = (
        user("Hi"),
        assistant(None, CALL, ("call_2", "now", "")),
        result("sunny"),
        result("noon"),
        assistant("Sunny."),
        user("Thanks"),
    )
    assert write_tools(messages, "", keep_results=False) == (
        user("Hi"),
        assistant(f'{SPELLED}\n<tool_call>\n{{"name": "now", "arguments": {{}}}}\n</tool_call>'),
        user("<tool_response>\nsunny\n</tool_response>\n<tool_response>\nnoon\n</tool_response>"),
        assistant("Sunny."),
        user("Thanks"),
    )
    kept = write_tools(messages, "", keep_results=True)
    assert kept[2:4] == messages[2:4]


def test_a_users_own_words_are_not_mixed_with_results() -> None:
    written = write_tools((user("Hi"), result("sunny")), "", keep_results=False)
    assert written == (user("Hi"), user("<tool_response>\nsunny\n</tool_response>"))


def test_a_reply_keeps_its_words_before_its_calls() -> None:
    assert write_tools((assistant("Let me look.", CALL),), "", keep_results=False) == (
        assistant(f"Let me look.\n{SPELLED}"),
    )


@pytest.mark.parametrize(
    ("messages", "first"),
    [
        ((user("Hi"),), system("TOLD")),
        ((), system("TOLD")),
        ((system("Be terse."), user("Hi")), system("Be terse.\n\nTOLD")),
        (({"role": "developer", "content": None}, user("Hi")), {"role": "developer", "content": "TOLD"}),
    ],
)
def test_instructions_join_the_system_message(messages: tuple[dict[str, str], ...], first: object) -> None:
    written = write_tools(messages, "TOLD", keep_results=False)
    assert written[0] == first
    assert written[1:] == tuple(message for message in messages if message["role"] == "user")


def test_ids_become_nine_letters_and_digits() -> None:
    messages = (user("Hi"), assistant("", CALL, ("x-1", "now", "{}")), result("sunny"), result("noon", "x-1"))
    shortened = shorten_ids(messages)
    assert shortened[0] == messages[0]
    assert [call["id"] for call in shortened[1]["tool_calls"]] == ["012345678", "0000000x1"]
    assert [message["tool_call_id"] for message in shortened[2:]] == ["012345678", "0000000x1"]
    assert shortened[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Bonn"}'}


def test_messages_of_another_shape_are_the_clients_fault() -> None:
    with pytest.raises(RequestError, match="message 0"):
        write_tools(({"role": "assistant", "tool_calls": [7]},), "", keep_results=False)
