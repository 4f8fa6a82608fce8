"""The formats of calls that models in use were trained on, and how to tell which a template means."""

import re
from dataclasses import replace

from server.chat.channels import CALL, CHANNEL, call_header
from server.chat.recipients import MARK, USER
from server.chat.tools.blocks import parse_actions, parse_gemma, parse_glm, parse_keyed, parse_xml
from server.chat.tools.format import Spelling, ToolFormat
from server.chat.tools.markup import parse_hunyuan, parse_invoke, parse_kimi_3, parse_params
from server.chat.tools.python_calls import parse_python
from server.chat.tools.readers import BlockReader, EnvelopeReader, NamedReader


def _listed(opener: str, closer: str = "") -> ToolFormat:
    """A JSON list of calls after an opening tag."""
    return ToolFormat(
        openers=(opener,),
        reader=lambda types: EnvelopeReader(),
        closers=(closer,) if closer else (),
        spelling=Spelling(f'{opener}[{{"name": ', ', "arguments": ', f"}}]{closer}", quoted=True),
    )


HERMES_SPELLING = Spelling('<tool_call>\n{"name": ', ', "arguments": ', "}\n</tool_call>", quoted=True)
HERMES = ToolFormat(
    openers=("<tool_call>",),
    reader=lambda types: EnvelopeReader(),
    closers=("</tool_call>",),
    spelling=HERMES_SPELLING,
)
"""Hermes, Qwen, Granite 4 and many more; also what models are told that know no format."""

LLAMA = ToolFormat(
    openers=("<|python_tag|>",),
    reader=EnvelopeReader,
    closers=(";",),
    bare=True,
    spelling=Spelling('{"name": ', ', "parameters": ', "}", quoted=True),
)
MISTRAL_LIST = _listed("[TOOL_CALLS]")
MISTRAL = ToolFormat(
    openers=("[TOOL_CALLS]",),
    reader=lambda types: NamedReader(re.compile(r"(\S+?)(?:\[CALL_ID\]\S*?)?\[ARGS\]")),
    spelling=Spelling("[TOOL_CALLS]", "[ARGS]", ""),
)
GRANITE = _listed("<|tool_call|>")
APRIEL = _listed("<tool_calls>", "</tool_calls>")
COHERE = ToolFormat(
    openers=("<|START_ACTION|>",),
    reader=lambda types: EnvelopeReader(),
    closers=("<|END_ACTION|>",),
    spelling=Spelling(
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": ',
        ', "parameters": ',
        "}\n]<|END_ACTION|>",
        quoted=True,
    ),
)
_DEEPSEEK_SECTION = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
DEEPSEEK_FENCED = ToolFormat(
    openers=("<｜tool▁call▁begin｜>",),
    reader=lambda types: NamedReader(re.compile(r"function<｜tool▁sep｜>(\S+)\s*```(?:json)?")),
    closers=("```", "<｜tool▁call▁end｜>"),
    sections=_DEEPSEEK_SECTION,
    spelling=Spelling(
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        "\n```json\n",
        "\n```<｜tool▁call▁end｜>",
        section=_DEEPSEEK_SECTION,
    ),
)
"""DeepSeek V3 and R1; V3.1 dropped the code fence."""
DEEPSEEK = ToolFormat(
    openers=("<｜tool▁call▁begin｜>",),
    reader=lambda types: NamedReader(re.compile(r"(\S+?)<｜tool▁sep｜>")),
    closers=("<｜tool▁call▁end｜>",),
    sections=_DEEPSEEK_SECTION,
    spelling=Spelling(
        "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", section=_DEEPSEEK_SECTION
    ),
)
_KIMI_SECTION = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
KIMI = ToolFormat(
    openers=("<|tool_call_begin|>",),
    reader=lambda types: NamedReader(
        re.compile(r"(?:functions\.)?(\S+?)(?::\d+)?\s*<\|tool_call_argument_begin\|>")
    ),
    closers=("<|tool_call_end|>",),
    sections=_KIMI_SECTION,
    # the number tells a chat's calls apart and is nothing that a reply depends on
    spelling=Spelling(
        "<|tool_call_begin|>functions.",
        ":0<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        section=_KIMI_SECTION,
    ),
)
_HARMONY_HEADER = call_header("\0").partition("\0")
HARMONY = ToolFormat(
    openers=(_HARMONY_HEADER[0],),
    reader=lambda types: NamedReader(re.compile(r"(\S+)" + re.escape(_HARMONY_HEADER[2]))),
    closers=(CALL,),
    # All channels begin alike, thoughts and answers too: only the text after it tells a call.
    spelling=Spelling(
        _HARMONY_HEADER[0].removeprefix(CHANNEL), _HARMONY_HEADER[2], CALL, section=(CHANNEL, "")
    ),
)
FUNCTIONARY = replace(HARMONY, spelling=None)
"""Functionary 3.2. `recipients` gives calls Harmony's form. No grammar: a reply begins with a bare name."""

QWEN_CODER = ToolFormat(
    openers=("<function=",),
    reader=lambda types: BlockReader("</function>", lambda block: parse_xml(block, types)),
    sections=("<tool_call>", "</tool_call>"),
)
MINIMAX = ToolFormat(
    openers=("<invoke name=",),
    reader=lambda types: BlockReader("</invoke>", lambda block: parse_xml(block, types)),
    sections=("<minimax:tool_call>", "</minimax:tool_call>"),
)
GLM = ToolFormat(
    openers=("<tool_call>",),
    reader=lambda types: BlockReader("</tool_call>", lambda block: parse_glm(block, types)),
)
GEMMA = ToolFormat(
    openers=("<|tool_call>",),
    reader=lambda types: BlockReader("<tool_call|>", lambda block: parse_gemma(block, '<|"|>')),
)
FUNCTION_GEMMA = ToolFormat(
    openers=("<start_function_call>",),
    reader=lambda types: BlockReader("<end_function_call>", lambda block: parse_gemma(block, "<escape>")),
)

NEMOTRON = _listed("<TOOLCALL>", "</TOOLCALL>")
APERTUS = ToolFormat(
    openers=("<|tools_prefix|>",),
    reader=lambda types: BlockReader("<|tools_suffix|>", parse_keyed),
    spelling=Spelling("<|tools_prefix|>[{", ": ", "}]<|tools_suffix|>", quoted=True),
)
COMMAND_R = ToolFormat(
    openers=("Action: ```json", "Action:\n```json", "Action:```json"),
    reader=lambda types: BlockReader("```", parse_actions, may_be_empty=True),
    spelling=Spelling(
        'Action: ```json\n[\n    {\n        "tool_name": ',
        ',\n        "parameters": ',
        "\n    }\n]\n```",
        quoted=True,
    ),
)
"""Command R and R+; R7B and Command A have tokens for it (`COHERE`)."""

PYTHON = ToolFormat(
    openers=("<|tool_call_start|>",),
    reader=lambda types: BlockReader("<|tool_call_end|>", lambda block: parse_python(block, types)),
)
"""LFM2, and MiniCPM 3 and 4."""

MINICPM = ToolFormat(
    openers=("<function name=",),
    reader=lambda types: BlockReader("</function>", lambda block: parse_params(block, types)),
)
_SOLAR_SECTION = ("<|tool_calls|>", "<|calls|>")
SOLAR = ToolFormat(
    openers=("<|tool_call:begin|>",),
    reader=lambda types: NamedReader(re.compile(r"\S*?<\|tool_call:name\|>(\S+?)<\|tool_call:args\|>")),
    closers=("<|tool_call:end|>",),
    sections=_SOLAR_SECTION,
    # the first part tells a chat's calls apart and is nothing that a reply depends on
    spelling=Spelling(
        "<|tool_call:begin|>0<|tool_call:name|>",
        "<|tool_call:args|>",
        "<|tool_call:end|>",
        section=_SOLAR_SECTION,
    ),
)
GIGACHAT = ToolFormat(
    openers=("function call<|role_sep|>",),
    reader=lambda types: EnvelopeReader(),
    closers=("<|message_sep|>",),
    sections=("<|message_sep|>",),
)
"""A call is a message of its own, whose opening has the tokens that end other messages: nothing to bind."""


def _invoked(mark: str) -> ToolFormat:
    """Tags with a mark in them; each argument says whether it is text."""
    return ToolFormat(
        openers=(f"<{mark}invoke name=",),
        reader=lambda types: BlockReader(f"</{mark}invoke>", lambda block: parse_invoke(block, types)),
        sections=tuple(
            f"<{slash}{mark}{name}>" for name in ("function_calls", "tool_calls") for slash in ("", "/")
        ),
    )


DEEPSEEK_MARKUP = _invoked("｜DSML｜")
"""DeepSeek V3.2 and later."""

GIGACHAT_MARKUP = _invoked("｜GCML｜")
"""GigaChat 3.5."""

KIMI_3 = ToolFormat(
    openers=("<|open|>call tool=",),
    reader=lambda types: BlockReader("<|close|>call<|sep|>", lambda block: parse_kimi_3(block, types)),
    sections=("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
)


def _hunyuan(suffix: str) -> ToolFormat:
    return ToolFormat(
        openers=(f"<tool_call{suffix}>",),
        reader=lambda types: BlockReader(f"</tool_call{suffix}>", lambda block: parse_hunyuan(block, types)),
        sections=(f"<tool_calls{suffix}>", f"</tool_calls{suffix}>"),
    )


HUNYUAN = _hunyuan("")
HUNYUAN_OPEN = _hunyuan(":opensource")
"""Of editions whose tokens all end alike."""

_SIGNS: tuple[tuple[tuple[str, ...], ToolFormat], ...] = (
    ((MARK + USER,), FUNCTIONARY),
    (("<|channel|>", "functions."), HARMONY),
    (("｜DSML｜",), DEEPSEEK_MARKUP),
    (("｜GCML｜",), GIGACHAT_MARKUP),
    (("<|open|>", "<|close|>", "<|sep|>"), KIMI_3),
    (("<|tool_call:args|>",), SOLAR),
    (("<|tools_prefix|>",), APERTUS),
    (("<TOOLCALL>",), NEMOTRON),
    (("<|tool_call_start|>",), PYTHON),
    (("<|tool_list_start|>",), PYTHON),
    (("<|role_sep|>", "function call"), GIGACHAT),
    (("<arg_key:opensource>",), HUNYUAN_OPEN),
    (("<tool_sep>", "<arg_key>"), HUNYUAN),
    (("<function name=", "<param name="), MINICPM),
    (("<|tool_call>",), GEMMA),
    (("<start_function_call>",), FUNCTION_GEMMA),
    (("<|tool_call_argument_begin|>",), KIMI),
    (("<｜tool▁sep｜>", "```json"), DEEPSEEK_FENCED),
    (("<｜tool▁sep｜>",), DEEPSEEK),
    (("<minimax:tool_call>",), MINIMAX),
    (("<|START_ACTION|>",), COHERE),
    (("<function=", "<parameter="), QWEN_CODER),
    (("<arg_key>",), GLM),
    (("[TOOL_CALLS]", "[ARGS]"), MISTRAL),
    (("[TOOL_CALLS]",), MISTRAL_LIST),
    (("<tool_calls>",), APRIEL),
    (("<tool_call>",), HERMES),
    (("<|tool_call|>",), GRANITE),
    (("Action:", "tool_name"), COMMAND_R),
    (("<|python_tag|>",), LLAMA),
    (('{"name":', '"parameters":'), LLAMA),
)
"""What a template that shows tools has in its text, the surest signs first."""

_SHOWS_TOOLS = re.compile(r"\btools\b")


def format_of(template: str | None) -> ToolFormat | None:
    """The format that a chat template teaches; None for one that shows no tools or in no known way.

    A template that only repeats earlier calls does not show tools: its variable `tools` must be used.
    """
    if template is None or _SHOWS_TOOLS.search(template) is None:
        return None
    return next((format for signs, format in _SIGNS if all(sign in template for sign in signs)), None)
