# ruff: noqa: E501 - the templates read better in whole lines
"""Templates that use what the templates of models use, and what plain Jinja makes of them.

The environment is that in which transformers renders.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "now", "arguments": {"zone": "Köln", "n": [1, None]}},
}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be <b>brief</b> & kind."},
    {"role": "user", "content": "  What's the time?\nExactly. "},
    {"role": "assistant", "content": "<think>hm</think>\n\nLet me see.", "tool_calls": [CALL]},
    {"role": "tool", "content": '{"time": "12:00"}', "tool_call_id": "call00001", "name": "now"},
    {"role": "assistant", "content": "Noon."},
    {"role": "user", "content": "Thanks, é 日本!"},
]
PROPERTIES = {"zone": {"type": "string", "enum": ["a", "b"]}, "n": {"type": ["array", "null"]}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "Tells 'it'.",
            "parameters": {"type": "object", "properties": PROPERTIES, "required": ["zone"]},
        },
    }
]
VARIABLES: dict[str, Any] = {
    "tools": TOOLS,
    "documents": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "enable_thinking": False,
    "date_string": "2024-01-01",
}

TEMPLATES: Mapping[str, str] = {
    "ChatML": """{% for m in messages %}
{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>' + '\n' }}{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\n' }}
{% endif %}
""",
    "blocks and lines": """
{%- for m in messages -%}
  {%- if m.role == 'user' %}
[U]{{ m.content }}
  {% elif loop.last -%}
 x
 {%- else %}
\t{{ m.role }}
{% endif %}
{% endfor %}
end
""",
    "alternating roles": """
{%- set ns = namespace(i=0) %}{{ bos_token }}
{%- for m in messages if m.role in ['user', 'assistant'] and not m.tool_calls %}
    {%- if (m.role == 'user') != (ns.i % 2 == 0) %}{{ raise_exception('odd') }}{% endif %}
    {%- set ns.i = ns.i + 1 %}
    {{- '[INST] ' ~ m.content.strip() ~ ' [/INST]' if m.role == 'user' else m.content + eos_token }}
{%- endfor %}""",
    "system first": """
{%- if messages[0]['role'] == 'system' %}
    {%- set loop_messages = messages[1:] %}{% set sys = messages[0].content %}
{%- else %}{% set loop_messages = messages %}{% set sys = '' %}{% endif %}
{{- sys }}|{{ loop_messages | length }}
{%- for m in loop_messages %}
    {%- if loop.index0 == 0 and sys != false %}<<{{ sys }}>>{% endif %}{{ m.content }}
{%- endfor %}""",
    "thoughts cut out": r"""
{%- for m in messages %}
    {%- if m.content is string and '</think>' in m.content %}
        {%- set c = m.content.split('</think>')[-1].lstrip('\n') %}
        {%- set t = m.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {{- '[' ~ t ~ ']' ~ c }}
    {%- else %}{{ m.content }}{% endif %}
{%- endfor %}""",
    "backwards": """
{%- set ns = namespace(multi=true, last=messages|length - 1) %}
{%- for m in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi and m.role == 'user' and not (m.content.startswith('<t>') and m.content.endswith('>')) %}
        {%- set ns.multi = false %}{% set ns.last = index %}
    {%- endif %}
{%- endfor %}{{ ns.last }}""",
    "tools as JSON": """
{%- if tools is iterable and tools | length > 0 %}{{ tools | tojson }}{{ tools | tojson(indent=4) }}
{{- tools[0] | tojson(separators=(',', ':'), ensure_ascii=True, sort_keys=True) }}{% endif %}""",
    "calls": """
{%- for m in messages %}{% if m.tool_calls is defined and m.tool_calls is not none %}
    {%- for call in m.tool_calls %}
        {%- if call.function is defined %}{% set call = call.function %}{% endif %}
        {{- '<call>' ~ ({'name': call.name, 'arguments': call.arguments} | tojson) ~ '</call>' }}
        {%- if not loop.last %},{% endif %}
    {%- endfor %}{% endif %}
{%- endfor %}""",
    "calls with tags": """
{%- for m in messages %}{% for call in m.tool_calls or [] %}<function={{ call.function.name }}>
    {%- for k, v in call.function.arguments | items %}
<parameter={{ k }}>{{ v if v is string else v | tojson | safe }}</parameter>
    {%- endfor %}</function>{% endfor %}{% endfor %}""",
    "typed parameters": """
{%- macro kind(p) %}{% if p.type is string %}{{ p.type }}
    {%- elif p.type is iterable %}{{ p.type | join(' | ') }}{% endif %}
    {%- if p.enum %}{{ ' (' + p.enum | map('tojson') | join(', ') + ')' }}{% endif %}{% endmacro %}
{%- for t in tools %}{% set f = t.function %}// {{ f.description }}
type {{ f.name }} = (_: {
    {%- for name, p in f.parameters.properties.items() %}
{{ name }}{{ '?' if name not in f.parameters.required }}: {{ kind(p) }},
    {%- endfor %}}) => any;{% endfor %}""",
    "dates": "{{ strftime_now('%Y') }}{{ date_string if date_string is defined else strftime_now('%d %b') }}",
    "generation blocks": """
{%- for m in messages %}{% if m.role == 'assistant' %}
{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}
{% else %}{{ m.content }}{% endif %}{% endfor %}""",
    "loop controls": """
{%- for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.role }}
    {%- if loop.index > 3 %}{% break %}{% endif %}
{%- endfor %}""",
    "what is not given": """{% if documents %}{{ documents | length }}{% endif %}{{ documents is none }}
{{ unknown is defined }}{{ unknown | default('d') }}{{ messages[99] is defined }}{{ messages[0].none }}""",
    "tokens": """{{ bos_token }}{{ eos_token }}{{ pad_token }}
{{ '' if enable_thinking is defined and enable_thinking is false else 'x' }}""",
    "text methods": """{{ 'a-b-c'.split('-', 1) }}{{ 'aXbX'.replace('X', '1', 1) }}{{ 'Ab'.upper() ~ 'Ab'.lower() }}
{{ ' x '.strip() ~ 'xx'.lstrip('x') ~ 'ab'.rstrip('b') ~ 'ab'.title() ~ 'ab'.capitalize() }}
{{ 'a\nb'.splitlines() | join('/') }}{{ '/'.join(['a', 'b']) }}{{ 'abc'.find('c') ~ 'abc'.index('b') }}
{{ 'aab'.count('a') }}{{ 'a:b'.partition(':') }}{{ 'ab'.removeprefix('a') }}{{ '12'.isdigit() }}
{{ 'ab'.startswith(('a', 'x')) }}{{ 'é'.isascii() }}{{ 'a b'.rsplit(' ') }}""",
    "text padded": """{{ 'a'.ljust(3) ~ '|' ~ 'a'.rjust(3, '.') ~ '|' ~ 'a'.center(5) ~ '|' ~ '7'.zfill(3) }}
{{ 'a\tb'.expandtabs(4) }}{{ 'x' | center(5) }}""",
    "formats": """{{ '{0} and {1!r:>9} {name[k]:03d}'.format('é', 'b', name={'k': 7}) }}{{ '{}-{}'.format(1, [2]) }}
{{ '%s-%05.1f' % ('a', 2.345) }}{{ '{a}'.format_map({'a': 1}) }}{{ '%s and %s' | format('a', 'b') }}
{{ '{:,}'.format(1234567) }}""",
    "dicts": """{% set d = {'b': 1, 'a': [2]} %}{{ d.items() | list }}{{ d.keys() | list }}{{ d.values() | list }}
{{ d.get('x', 'none') }}{{ d | dictsort }}{{ dict(d, c=3) }}{{ dict(a=1).copy() }}{% for k in d %}{{ k }}{% endfor %}
{{ 'a' in d }}{{ d | length }}""",
    "lists": """{% set l = [3, 1, 2] %}{{ l | sort }}{{ l | sort(reverse=true) | first }}{{ l | last }}{{ l | sum }}
{{ l | max }}{{ l[-1] }}{{ l[:2] }}{{ l + [4] }}{{ l | reverse | list }}{{ l | batch(2, 0) | list }}
{{ l | slice(2) | map('list') | list }}{{ l | select('gt', 1) | list }}{{ l | reject('odd') | list }}
{{ l | unique | list }}{{ l.index(2) }}{{ l | join('-') }}{{ (l | random) in l }}""",
    "attributes": """{{ messages | map(attribute='role') | join(',') }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ messages | rejectattr('role', 'in', ['user', 'tool']) | map(attribute='role') | list }}
{% for role, group in messages | groupby('role') %}{{ role }}{{ group | length }}{% endfor %}""",
    "numbers": """{{ 7 // 2 }}{{ 7 / 2 }}{{ 2 ** 10 }}{{ -7 % 3 }}{{ '12' | int + 1 }}{{ 1.25 | round(1) }}
{{ 1.7 | round | int }}{{ 3 | float }}{{ -3 | abs }}{{ 1234 | filesizeformat }}{{ 'x' | int(5) }}
{{ 2.0.is_integer() }}""",
    "tests": """{{ none is none }}{{ 1 is number }}{{ 'a' is string }}{{ {} is mapping }}{{ [] is sequence }}
{{ x is undefined }}{{ 2 is even }}{{ 4 is divisibleby 2 }}{{ true is boolean }}{{ 1 is integer }}{{ 1.0 is float }}
{{ raise_exception is callable }}{{ 'a' is in 'ab' }}{{ 'A' is upper }}""",
    "text filters": """{{ messages[0].content | escape }}{{ '<a>' | e | upper }}{{ '<i>x</i>' | striptags }}
{{ 'a b c' | wordcount }}{{ 'abc def ghi' | truncate(8, true) }}{{ 'abc def' | wordwrap(4) }}{{ 'a b&c' | urlencode }}
{{ {'id': 1} | xmlattr }}{{ [1, {'a': 2}] | pprint }}{{ 'see example.org' | urlize }}{{ 'a\nb' | indent(2) }}
{{ 'ab' | title }}{{ 'a' | default('x') }}{{ '<' | forceescape }}{{ 5 | string + 'x' }}""",
    "macros": """{% macro show(m, mark='#') -%}
{{ mark }}{{ m.role }}{{ caller() if caller }}{{ varargs }}{{ kwargs }}
{%- endmacro %}
{{ show(messages[0], '!', 1, z=2) }}{% call show(messages[1]) %}inner{% endcall %}""",
    "sets and filters": """{% set text %}a{{ 1 }}{% endset %}{{ text }}{% filter upper %}x{{ text }}{% endfilter %}
{% with a = 5 %}{{ a }}{% endwith %}{% set a, b = 1, 2 %}{{ a ~ b }}{% raw %}{{ x }}{% endraw %}{# not said #}""",
    "helpers": """{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set j = joiner(', ') %}
{% for m in messages %}{{ j() }}{{ m.role }}{% endfor %}
{% for i in range(3) %}{{ loop.cycle('x', 'y') }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.revindex }}
{{ loop.changed(i // 2) }}{% endfor %}""",
    "recursion": """{% for x in [[1, [2]], [3]] recursive %}
{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}""",
    "conditions": """{{ 'a' if false }}{{ (tools or []) | length }}{{ not tools }}{{ 1 if messages else 2 }}
{% if x is not defined %}{% set x = 1 %}{% endif %}{{ x }}{{ 1 < 2 < 3 }}{{ 'a' ~ 1 ~ none ~ true }}""",
    "as Python writes": """{{ [1, 'a', None, True, {'b': 1.0}] }}{{ none }}{{ true }}{{ 1.0 }}{{ 'é' | tojson }}
{{ ('a',) }}{{ {'a': "it's"} | string }}""",
}


def plain(source: str) -> str:
    """What Jinja makes of the template with `MESSAGES` and `VARIABLES`."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = datetime.now().strftime
    return environment.from_string(source).render(messages=MESSAGES, **VARIABLES)


class _Generation(Extension):
    tags = {"generation"}  # noqa: RUF012 - Jinja's interface

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> None:
    raise TemplateError(message)
