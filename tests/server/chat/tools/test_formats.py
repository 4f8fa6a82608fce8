"""Each format: what its models write, what they are held to, and how its template is known."""

import json

import pytest

from server.chat.tools import formats
from server.chat.tools.format import ToolFormat
from tests.server.chat import templates
from tests.server.chat.tools.replies import REPLIES, TOOLS, Calls, parse


@pytest.mark.parametrize(("format", "reply", "calls"), REPLIES.values(), ids=REPLIES)
def test_calls_as_models_write_them(format: ToolFormat, reply: str, calls: Calls) -> None:
    assert parse(format, reply) == ("", calls)
    assert parse(format, *reply) == ("", calls)
    if not format.bare:
        assert parse(format, f"Let me look.\n\n{reply}\nDone. ") == ("Let me look.Done. ", calls)


NESTED = {"x": {"y": [], "2": 3}}
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
    one_section = required and format.spelling is not None and format.spelling.section[0] != ""
    assert grammar.several is not (format.bare or one_section)
    for tool, tag in zip(TOOLS, grammar.tags, strict=True):
        assert tag.begin.startswith(grammar.trigger)
        assert json.loads(tag.schema) == tool.parameters
        # in a reply that may begin with text the model opens the section itself
        opening = "" if required or format.spelling is None else format.spelling.section[0]
        reply = f'{opening}{tag.begin}{{"city": "}}<"}}{tag.end}'
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
    ("arguments", "value"),
    [
        ("a='it's', b=\"x\", c=-1.5", {"a": "it's", "b": "x", "c": -1.5}),
        (r"a='l\n\'q\' \u00e9'", {"a": "l\n'q' é"}),
        ("a=True, b=None, c=false, d=null", {"a": True, "b": None, "c": False, "d": None}),
        (
            "a=[1, 'b', (2, 3)], d={'x': {\"y\": [], 2: 3}}",
            {"a": [1, "b", [2, 3]], "d": {"x": {"y": [], "2": 3}}},
        ),
        ("a=word, b = 'f(x), g(y)'", {"a": "word", "b": "f(x), g(y)"}),
        ("", {}),
    ],
)
def test_pythons_arguments(arguments: str, value: object) -> None:
    reply = f"<|tool_call_start|>[f({arguments})]<|tool_call_end|>"
    assert parse(formats.PYTHON, reply) == ("", [("f", value)])


@pytest.mark.parametrize(
    ("format", "reply"),
    [
        (formats.PYTHON, "<|tool_call_start|>[f(" + "a=[" * 500 + "<|tool_call_end|>"),
        (formats.PYTHON, "<|tool_call_start|>no call<|tool_call_end|>"),
        (formats.APERTUS, "<|tools_prefix|>[{]<|tools_suffix|>"),
        (formats.MINICPM, "<function name=f></function>"),
        (formats.KIMI_3, "<|open|>call tool=f<|close|>call<|sep|>"),
        (formats.DEEPSEEK_MARKUP, "<｜DSML｜invoke name=f></｜DSML｜invoke>"),
    ],
)
def test_what_is_no_call_is_text(format: ToolFormat, reply: str) -> None:
    assert parse(format, reply) == (reply, [])


def test_values_in_tags() -> None:
    block = (
        '<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">3 & "4"'
        '</｜DSML｜parameter>\n<｜DSML｜parameter name="units" string="false">["C"]</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="days">2</｜DSML｜parameter>'
    )
    found = {"city": '3 & "4"', "units": ["C"], "days": 2}
    assert parse(formats.DEEPSEEK_MARKUP, block) == ("", [("get_weather", found)])
    cdata = '<function name="get_weather"><param name="city"><![CDATA[a < b]]></param></function>'
    assert parse(formats.MINICPM, cdata) == ("", [("get_weather", {"city": "a < b"})])
    attributes = (
        '<|open|>call tool="a&amp;b" index="1"<|sep|>'
        '<|open|>argument key="k&quot;" type="object"<|sep|>{"x": 1}'
        "<|close|>argument<|sep|><|close|>call<|sep|>"
    )
    assert parse(formats.KIMI_3, attributes) == ("", [("a&b", {'k"': {"x": 1}})])


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
        ('{{ tools }}Answer with {"name": function name, "parameters": values}', formats.LLAMA),
        ("{{ tools }}<|tool_call|>", formats.GRANITE),
        ("{{ tools }}<|START_ACTION|>", formats.COHERE),
        ("{{ tools }}<|tool_call_argument_begin|>", formats.KIMI),
        ("{{ tools }}<minimax:tool_call>", formats.MINIMAX),
        ("{{ tools }}<|tool_call>", formats.GEMMA),
        ("{{ tools }}<start_function_call>", formats.FUNCTION_GEMMA),
        ("{{ tools }}<tool_calls>", formats.APRIEL),
        ("{{ tools }}<TOOLCALL>[{{ call }}]</TOOLCALL>", formats.NEMOTRON),
        ("{{ tools }}{% set prefix = '<|tools_prefix|>' %}", formats.APERTUS),
        ("{{ tools }}List of tools: <|tool_list_start|>[<|tool_list_end|>", formats.PYTHON),
        ("{{ tools }}<|tool_call_start|>[<|tool_call_end|>", formats.PYTHON),
        ('{{ tools }}<function name="f"><param name="k">v</param></function>', formats.MINICPM),
        ("{{ tools }}<|tool_call:begin|>1<|tool_call:name|>f<|tool_call:args|>", formats.SOLAR),
        ("{{ tools }}{% set sep = '<|role_sep|>' %}'role': 'function call'", formats.GIGACHAT),
        ("{{ tools }}<|role_sep|>'function call' <｜GCML｜invoke", formats.GIGACHAT_MARKUP),
        ("{{ tools }}{% set mark = '｜DSML｜' %}<{{ mark }}invoke name=", formats.DEEPSEEK_MARKUP),
        ("{{ tools }}'<|open|>' + tag '<|sep|>' '<|close|>'", formats.KIMI_3),
        ("{{ tools }}<tool_calls><tool_call>f<tool_sep><arg_key>", formats.HUNYUAN),
        ("{{ tools }}<tool_calls:opensource><arg_key:opensource>", formats.HUNYUAN_OPEN),
        ("{{ tools }}Action:```json [{'tool_name': ...}]```", formats.COMMAND_R),
        ("{{ tools }}'>>>all\n' + m.content", formats.FUNCTIONARY),
        # repeats calls of earlier turns, but shows no tools
        ("{{ message.tool_calls }}<｜tool▁sep｜>", None),
    ],
)
def test_the_template_tells_the_format(template: str | None, format: ToolFormat | None) -> None:
    assert formats.format_of(template) is format
