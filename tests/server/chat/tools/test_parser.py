import pytest
from hypothesis import given, settings

from server.chat.message import ToolCallDelta
from server.chat.tools import formats
from server.chat.tools.format import ToolFormat
from server.chat.tools.parser import ToolCallParser
from tests.server.chat.cuttings import cuttings, of_words
from tests.server.chat.tools.replies import REPLIES, TOOLS, parse, raw_parse

FORMATS = [format for format, _, _ in REPLIES.values()]
WORDS = (
    *(reply for _, reply, _ in REPLIES.values()),
    *(word for format in FORMATS for word in (*format.openers, *format.closers, *format.sections)),
    *(" ", "\n", "text", "{", "}", '{"name": "', '"get_weather"', "x" * 520, "[ARGS]{", "</parameter>"),
)


@pytest.mark.parametrize("name", REPLIES)
@settings(max_examples=30)
@given(pieces=cuttings(of_words(*WORDS)))
def test_any_cutting_gives_the_same(name: str, pieces: list[str]) -> None:
    format = REPLIES[name][0]
    assert raw_parse(format, *pieces) == raw_parse(format, "".join(pieces))


@pytest.mark.parametrize("name", REPLIES)
@settings(max_examples=30)
@given(pieces=cuttings(of_words("a < b", " ", "\n\n", "tool", "call", "{x}", "[1]", "Bonn", "«é»")))
def test_text_without_calls_passes(name: str, pieces: list[str]) -> None:
    text = "".join(pieces)
    assert raw_parse(REPLIES[name][0], *pieces) == (text, [])


GLM_ARGUMENT = "<arg_key>a</arg_key><arg_value>b</arg_value>"


def test_arguments_stream() -> None:
    parser = ToolCallParser(formats.HERMES, TOOLS)
    assert parser.push("Well. ") == ["Well."]
    assert parser.push('<tool_call>\n{"name": "get_wea') == []
    assert parser.calling
    [first] = parser.push('ther", "argu')
    assert isinstance(first, ToolCallDelta)
    assert (first.index, first.name, first.arguments) == (0, "get_weather", "")
    assert len(first.id) == 14
    assert first.id[:5] == "call_"
    int(first.id[5:], 16)
    assert parser.push('ments": {"ci') == [ToolCallDelta(0, arguments='{"ci')]
    assert parser.push('ty": "Bo') == [ToolCallDelta(0, arguments='ty": "Bo')]
    assert parser.push('nn"}}') == [ToolCallDelta(0, arguments='nn"}')]
    assert not parser.calling
    assert parser.push("\n</tool_call>\n") == []
    assert parser.flush() == []
    assert parser.calls == 1


@pytest.mark.parametrize(
    ("format", "reply", "text", "calls"),
    [
        (formats.HERMES, '<tool_call>\n{"name": "f", "arguments": {"a": [1', "", [("f", '{"a": [1')]),
        (formats.HERMES, '<tool_call>\n{"name": "f", "argum', "", [("f", "")]),
        (formats.HERMES, "Say <tool_call", "Say <tool_call", []),
        (formats.HERMES, '<tool_call>{"name": "f", "arguments": {}}</tool_', "", [("f", "{}")]),
        (formats.MISTRAL, '[TOOL_CALLS]f[ARGS]{"a', "", [("f", '{"a')]),
        (formats.LLAMA, '{"name": "get_weather", "parameters": {"a', "", [("get_weather", '{"a')]),
        (formats.GLM, f"<tool_call>f\n{GLM_ARGUMENT}<arg_key>c</arg_key><arg_val", "", [("f", '{"a": "b"}')]),
        (
            formats.QWEN_CODER,
            "<tool_call><function=f><parameter=a>b</parameter><parameter=c>d",
            "",
            [("f", '{"a": "b"}')],
        ),
    ],
)
def test_of_an_unfinished_call_what_is_known_is_told(
    format: ToolFormat, reply: str, text: str, calls: list[tuple[str, str]]
) -> None:
    assert raw_parse(format, reply) == (text, calls)
    assert raw_parse(format, *reply) == (text, calls)


@pytest.mark.parametrize(
    ("format", "reply"),
    [
        (formats.HERMES, "The tag <tool_call> begins a call."),
        (formats.HERMES, '<tool_call>{"arguments": {}}'),
        (formats.HERMES, '<tool_call>{"name": 7}'),
        (formats.HERMES, "<tool_call>{name: f}"),
        (formats.LLAMA, '{"name": "unknown", "parameters": {}}'),
        (formats.LLAMA, '{"name": "get_weather", "parameters": {"a" 1}}'),
        (formats.LLAMA, '{"answer": 42}'),
        (formats.LLAMA, "[1, 2]"),
        (formats.LLAMA, 'So: {"name": "get_weather", "parameters": {}}'),
        (formats.MISTRAL, "[TOOL_CALLS]two words[ARGS]{}"),
        (formats.MISTRAL, "[TOOL_CALLS]" + "x" * 600 + "[ARGS]{}"),
        (formats.GLM, "<tool_call>{}</tool_call>"),
        (formats.GEMMA, "<|tool_call>call:f{a:<tool_call|>"),
        (formats.GEMMA, "<|tool_call>call:f{a" + ":[" * 100_000 + "<tool_call|>"),
        (formats.GEMMA, "<|tool_call>call:f{a<tool_call|>"),
    ],
)
def test_what_is_no_call_is_text(format: ToolFormat, reply: str) -> None:
    assert raw_parse(format, reply) == (reply, [])
    assert raw_parse(format, *(reply[at : at + 3] for at in range(0, len(reply), 3))) == (reply, [])


def test_a_call_after_what_was_none_is_found() -> None:
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert parse(formats.HERMES, f"In <tool_call> you write: {call}") == (
        "In <tool_call> you write:",
        [("f", {})],
    )
