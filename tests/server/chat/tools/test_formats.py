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
        # repeats calls of earlier turns, but shows no tools
        ("{{ message.tool_calls }}<｜tool▁sep｜>", None),
    ],
)
def test_the_template_tells_the_format(template: str | None, format: ToolFormat | None) -> None:
    assert formats.format_of(template) is format
