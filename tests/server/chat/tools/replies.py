"""Replies with calls as the models of each format write them, and what they mean."""

import json
from collections.abc import Mapping
from typing import Any

from server.chat.call import Tool
from server.chat.tools import formats
from server.chat.tools.format import ToolFormat
from server.chat.tools.parser import ToolCallParser

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
    "nemotron": (
        formats.NEMOTRON,
        '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Bonn {}", "days": 3}}, '
        '{"name": "time.now", "arguments": {}}]</TOOLCALL>',
        TWO,
    ),
    "apertus": (
        formats.APERTUS,
        '<|tools_prefix|>[{"get_weather": {"city": "Bonn {}", "days": 3}}, {"time.now": {}}]<|tools_suffix|>',
        TWO,
    ),
    "command r": (
        formats.COMMAND_R,
        'Action: ```json\n[\n    {\n        "tool_name": "get_weather",\n        "parameters": '
        '{"city": "Bonn {}", "days": 3}\n    },\n    {"tool_name": "time.now", "parameters": {}}\n]\n```',
        TWO,
    ),
    "command r, in another layout": (
        formats.COMMAND_R,
        'Action:\n```json\n[{"tool_name": "directly-answer", "parameters": {}}]\n```'
        'Action:```json\n[{"tool_name": "get_weather", "parameters": {"city": "Bonn {}", "days": 3}}]```',
        ONE,
    ),
    "lfm2": (
        formats.PYTHON,
        "<|tool_call_start|>[get_weather(city='Bonn {}', days=3), time.now()]<|tool_call_end|>",
        TWO,
    ),
    "lfm2, as JSON": (
        formats.PYTHON,
        '<|tool_call_start|>[{"name": "get_weather", "arguments": {"city": "Bonn {}", "days": 3}}]'
        "<|tool_call_end|>",
        ONE,
    ),
    "minicpm 3": (
        formats.PYTHON,
        '<|tool_call_start|>\n```python\nget_weather(city="Bonn {}", days=3)\ntime.now()\n```\n'
        "<|tool_call_end|>",
        TWO,
    ),
    "minicpm 5": (
        formats.MINICPM,
        '<function name="get_weather"><param name="city">Bonn {}</param><param name="days">3</param>'
        "</function>\n"
        '<function name="time.now"></function>',
        TWO,
    ),
    "solar": (
        formats.SOLAR,
        "<|tool_calls|><|tool_call:begin|>a1b2<|tool_call:name|>get_weather<|tool_call:args|>"
        '{"city": "Bonn {}", "days": 3}<|tool_call:end|><|tool_call:begin|><|tool_call:name|>time.now'
        "<|tool_call:args|>{}<|tool_call:end|><|calls|>",
        TWO,
    ),
    "gigachat 3": (
        formats.GIGACHAT,
        "<|message_sep|>\n\nfunction call<|role_sep|>\n"
        '{"name": "get_weather", "arguments": {"city": "Bonn {}", "days": 3}}<|message_sep|>',
        ONE,
    ),
    "gigachat 3.5": (
        formats.GIGACHAT_MARKUP,
        '<｜GCML｜tool_calls>\n<｜GCML｜invoke name="get_weather">\n'
        '<｜GCML｜parameter name="city" string="true">Bonn {}</｜GCML｜parameter>\n'
        '<｜GCML｜parameter name="days" string="false">3</｜GCML｜parameter>\n</｜GCML｜invoke>\n'
        '<｜GCML｜invoke name="time.now">\n</｜GCML｜invoke>\n</｜GCML｜tool_calls>',
        TWO,
    ),
    "deepseek v3.2": (
        formats.DEEPSEEK_MARKUP,
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n'
        '<｜DSML｜parameter name="city" string="true">Bonn {}</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        '<｜DSML｜invoke name="time.now">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        TWO,
    ),
    "kimi k3": (
        formats.KIMI_3,
        '<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|>'
        '<|open|>argument key="city" type="string"<|sep|>Bonn {}<|close|>argument<|sep|>'
        '<|open|>argument key="days" type="number"<|sep|>3<|close|>argument<|sep|><|close|>call<|sep|>'
        '<|open|>call tool="time.now" index="2"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>',
        TWO,
    ),
    "kimi k3, as JSON": (
        formats.KIMI_3,
        '<|open|>call tool="get_weather" index="1"<|sep|><|open|>json type="object"<|sep|>'
        '{"city": "Bonn {}", "days": 3}<|close|>json<|sep|><|close|>call<|sep|>',
        ONE,
    ),
    "hunyuan": (
        formats.HUNYUAN,
        "<tool_calls>\n<tool_call>get_weather<tool_sep>\n<arg_key>city</arg_key>\n"
        "<arg_value>Bonn {}</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n"
        "<tool_call>time.now<tool_sep></tool_call>\n</tool_calls>",
        TWO,
    ),
    "hunyuan, open edition": (
        formats.HUNYUAN_OPEN,
        "<tool_calls:opensource><tool_call:opensource>get_weather<tool_sep:opensource>"
        "<arg_key:opensource>city</arg_key:opensource><arg_value:opensource>Bonn {}</arg_value:opensource>"
        "<arg_key:opensource>days</arg_key:opensource><arg_value:opensource>3</arg_value:opensource>"
        "</tool_call:opensource></tool_calls:opensource>",
        ONE,
    ),
}
