"""Each format: what its models write, what they are held to, and how its template is known."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings

from server.chat.call import Tool
from server.chat.message import ToolCallDelta
from server.chat.tools import formats
from server.chat.tools.format import ToolFormat
from server.chat.tools.parser import ToolCallParser
from tests.server.chat import templates
from tests.server.chat.cuttings import cuttings, of_words

WEATHER = Tool(
    "get_weather",
    "The weather.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "units": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city"],
    },
)
TIME = Tool("time.now", parameters={"type": "object", "properties": {"zone": {"type": "string"}}})
TOOLS = (WEATHER, TIME)
Calls = list[tuple[str, Any]]


def parse(format: ToolFormat, *pieces: str) -> tuple[str, Calls]:
    """The text and the calls of a whole answer, arguments as values."""
    text, calls = raw_parse(format, *pieces)
    return text, [(name, json.loads(arguments)) for name, arguments in calls]


def raw_parse(format: ToolFormat, *pieces: str) -> tuple[str, list[tuple[str, str]]]:
    parser = ToolCallParser(format, TOOLS)
    found = [part for piece in pieces for part in parser.push(piece)] + parser.flush()
    text, calls, ids = "", dict[int, tuple[str, str]](), set()
    for part in found:
        if isinstance(part, str):
            text += part
        elif part.index not in calls:
            calls[part.index] = (part.name, part.arguments)
            ids.add(part.id)
        else:
            assert part.id == part.name == ""
            calls[part.index] = (calls[part.index][0], calls[part.index][1] + part.arguments)
    assert list(calls) == list(range(parser.calls))
    assert len(ids) == parser.calls
    return text, list(calls.values())


BONN = {"city": "Bonn {}", "days": 3}
ONE: Calls = [("get_weather", BONN)]
TWO: Calls = [*ONE, ("time.now", {})]

REPLIES: Mapping[str, tuple[ToolFormat, str, Calls]] = {
    "hermes": (
        formats.HERMES,
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bonn {}", "days": 3}}\n</tool_call>\n'
        '<tool_call>\n{"name": "time.now", "arguments": {}}\n</tool_call>',
        TWO,
    ),
    "hermes, other layout": (
        formats.HERMES,
        '<tool_call>[{"arguments":{"city":"Bonn {}","days":3},"id":7,"name":"get_weather"}, '
        '{"name": "time.now"}]</tool_call>',
        TWO,
    ),
    "hermes, arguments as text": (
        formats.HERMES,
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Bonn {}\\", \\"days\\": 3}"}'
        '</tool_call><tool_call>{"name": "time.now", "arguments": null}</tool_call>',
        TWO,
    ),
    "llama": (
        formats.LLAMA,
        ' {"name": "get_weather", "parameters": {"city": "Bonn {}", "days": "3"}}; '
        '{"name": "time.now", "parameters": {}}',
        TWO,
    ),
    "llama with its tag": (
        formats.LLAMA,
        '<|python_tag|>{"type": "function", "name": "get_weather", '
        '"parameters": {"city": "Bonn {}", "days": 3}}',
        ONE,
    ),
    "mistral, list": (
        formats.MISTRAL_LIST,
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Bonn {}", "days": 3}}, '
        '{"name": "time.now", "arguments": {}}]',
        TWO,
    ),
    "mistral": (
        formats.MISTRAL,
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Bonn {}", "days": 3}'
        "[TOOL_CALLS]time.now[CALL_ID]abcdef123[ARGS]{}",
        TWO,
    ),
    "granite": (
        formats.GRANITE,
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Bonn {}", "days": 3}}]',
        ONE,
    ),
    "apriel": (
        formats.APRIEL,
        '<tool_calls>[{"name": "get_weather", "arguments": {"city": "Bonn {}", "days": 3}}]</tool_calls>',
        ONE,
    ),
    "cohere": (
        formats.COHERE,
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": '
        '{"city": "Bonn {}", "days": 3}},\n    {"tool_call_id": "1", "tool_name": "time.now", '
        '"parameters": {}}\n]<|END_ACTION|>',
        TWO,
    ),
    "deepseek v3": (
        formats.DEEPSEEK_FENCED,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Bonn {}", "days": 3}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function'
        "<｜tool▁sep｜>time.now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        TWO,
    ),
    "deepseek v3.1": (
        formats.DEEPSEEK,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
        '{"city": "Bonn {}", "days": 3}<｜tool▁call▁end｜><｜tool▁call▁begin｜>time.now<｜tool▁sep｜>{}'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        TWO,
    ),
    "kimi": (
        formats.KIMI,
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
        '<|tool_call_argument_begin|>{"city": "Bonn {}", "days": 3}<|tool_call_end|>'
        "<|tool_call_begin|>functions.time.now:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
        TWO,
    ),
    "harmony": (
        formats.HARMONY,
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        '{"city": "Bonn {}", "days": 3}<|call|>',
        ONE,
    ),
    "qwen coder": (
        formats.QWEN_CODER,
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nBonn {}\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=time.now>\n</function>\n</tool_call>",
        TWO,
    ),
    "minimax": (
        formats.MINIMAX,
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Bonn {}</parameter>\n'
        '<parameter name="days">3</parameter>\n</invoke>\n<invoke name="time.now">\n</invoke>\n'
        "</minimax:tool_call>",
        TWO,
    ),
    "glm": (
        formats.GLM,
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Bonn {}</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>time.now\n</tool_call>",
        TWO,
    ),
    "gemma": (
        formats.GEMMA,
        '<|tool_call>call:get_weather{city:<|"|>Bonn {}<|"|>,days:3}<tool_call|>'
        "<|tool_call>call:time.now{}<tool_call|>",
        TWO,
    ),
    "function gemma": (
        formats.FUNCTION_GEMMA,
        "<start_function_call>call:get_weather{city:<escape>Bonn {}<escape>, days:3}<end_function_call>",
        ONE,
    ),
}


@pytest.mark.parametrize(("format", "reply", "calls"), REPLIES.values(), ids=REPLIES)
def test_calls_as_models_write_them(format: ToolFormat, reply: str, calls: Calls) -> None:
    assert parse(format, reply) == ("", calls)
    assert parse(format, *reply) == ("", calls)
    if not format.bare:
        assert parse(format, f"Let me look.\n\n{reply}\nDone. ") == ("Let me look.Done. ", calls)


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


SPELLED = {name: format for name, (format, _, _) in REPLIES.items() if format.spelling is not None}


@pytest.mark.parametrize("format", SPELLED.values(), ids=SPELLED)
@pytest.mark.parametrize("required", [False, True])
def test_what_the_grammar_admits_is_a_call(format: ToolFormat, required: bool) -> None:
    grammar = format.grammar(TOOLS, required=required, several=True)
    if grammar is None:
        assert format.bare
        assert not required
        return
    assert grammar.required is required
    for tool, tag in zip(TOOLS, grammar.tags, strict=True):
        assert tag.begin.startswith(grammar.trigger)
        assert json.loads(tag.schema) == tool.parameters
        reply = f'{tag.begin}{{"city": "}}<"}}{tag.end}'
        assert parse(format, reply) == ("", [(tool.name, {"city": "}<"})])
        if grammar.several:
            assert len(parse(format, reply + reply)[1]) == 2


def test_several_calls_only_where_they_are_wanted() -> None:
    for format in SPELLED.values():
        single = format.grammar(TOOLS, required=True, several=False)
        assert single is not None
        assert not single.several


def test_formats_without_json_bind_nothing() -> None:
    for name, (format, _, _) in REPLIES.items():
        if name not in SPELLED:
            assert format.grammar(TOOLS, required=True, several=True) is None


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


def test_a_call_after_what_was_none_is_found() -> None:
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert parse(formats.HERMES, f"In <tool_call> you write: {call}") == (
        "In <tool_call> you write:",
        [("f", {})],
    )


@pytest.mark.parametrize(
    ("braces", "value"),
    [
        ("a:{b:[1,-2.5,true,null]}", {"a": {"b": [1, -2.5, True, None]}}),
        ('a:{<|"|>c d<|"|>:<|"|>x, }<|"|>}', {"a": {"c d": "x, }"}}),
        ('"a":"b\\n", c:plain text', {"a": "b\n", "c": "plain text"}),
        ("a:[],b:{}", {"a": [], "b": {}}),
    ],
)
def test_gemmas_braces(braces: str, value: object) -> None:
    assert parse(formats.GEMMA, f"<|tool_call>call:f{{{braces}}}<tool_call|>") == ("", [("f", value)])


@pytest.mark.parametrize(
    ("template", "format"),
    [
        (templates.QWEN_3, formats.HERMES),
        (templates.HARMONY, formats.HARMONY),
        (templates.MISTRAL_TOOLS, formats.MISTRAL_LIST),
        (templates.GLM_TOOLS, formats.GLM),
        (templates.CHATML, None),
        (None, None),
        ("{{ tools }} in some unheard-of way", None),
        ("{{ tools }}[TOOL_CALLS]name[ARGS]", formats.MISTRAL),
        ("{{ tools }}<tool_call>\n<function=f>\n<parameter=x>", formats.QWEN_CODER),
        ("{{ tools }}<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json", formats.DEEPSEEK_FENCED),
        ("{{ tools }}<｜tool▁call▁begin｜>f<｜tool▁sep｜>", formats.DEEPSEEK),
        ("{{ tools }}<|start_header_id|>ipython<|python_tag|>", formats.LLAMA),
        ('{{ tools }}<|start_header_id|>{"name": function name, "parameters": {}}', formats.LLAMA),
        ("{{ tools }}<|tool_call|>", formats.GRANITE),
        ("{{ tools }}<|START_ACTION|>", formats.COHERE),
        ("{{ tools }}<|tool_call_argument_begin|>", formats.KIMI),
        ("{{ tools }}<minimax:tool_call>", formats.MINIMAX),
        ("{{ tools }}<|tool_call>", formats.GEMMA),
        ("{{ tools }}<start_function_call>", formats.FUNCTION_GEMMA),
        ("{{ tools }}<tool_calls>", formats.APRIEL),
        # repeats calls of earlier turns, but shows no tools
        ("{{ message.tool_calls }}<｜tool▁sep｜>", None),
    ],
)
def test_the_template_tells_the_format(template: str | None, format: ToolFormat | None) -> None:
    assert formats.format_of(template) is format
