"""The sandbox renders what plain Jinja renders, and messages come in the form that a template takes."""

from collections.abc import Iterator
from typing import Any

import pytest

from engine.errors import RequestError
from engine.templates.limits import Limits
from engine.templates.pool import TemplatePool
from engine.tokenizer import ChatTemplate, Tokenizer
from tests.engine.templates.plain import MESSAGES, TEMPLATES, TOOLS, VARIABLES, plain
from tests.engine.tokenizer.vocabularies import byte_pairs


@pytest.fixture(scope="module")
def pool() -> Iterator[TemplatePool]:
    pool = TemplatePool(Limits(cpu_seconds=60))
    yield pool
    pool.close()


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_sandbox_renders_what_plain_jinja_renders(name: str, pool: TemplatePool) -> None:
    arguments = {key: VARIABLES[key] for key in ("documents", "enable_thinking", "date_string")}
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "other_tokens": {"pad_token": "<pad>"}}
    template = ChatTemplate(TEMPLATES[name], **tokens)  # type: ignore[arg-type]
    text = template.render(MESSAGES, tools=TOOLS, arguments=arguments, pool=pool)
    assert text == plain(TEMPLATES[name])
    assert text


def test_documents_are_the_requests_own(pool: TemplatePool) -> None:
    template = ChatTemplate("{{ messages[0].content }}{% for d in documents or [] %}{{ d.text }}{% endfor %}")
    said = [{"role": "user", "content": "hi"}]
    assert template.render(said, pool=pool) == "hi"
    assert template.render(said, arguments={"documents": [{"text": "x"}]}, pool=pool) == "hix"


def test_more_tokens_of_the_file_are_variables() -> None:
    metadata = byte_pairs() | {
        "tokenizer.ggml.padding_token_id": 64,
        "tokenizer.ggml.mask_token_id": 10**9,
        "tokenizer.chat_template": "{{ pad_token + messages[0].content }}{{ mask_token is defined }}",
    }
    tokenizer = Tokenizer.from_metadata(metadata)
    assert tokenizer.chat_template is not None
    text = tokenizer.chat_template.render([{"role": "user", "content": "hi"}])
    assert text == f"{tokenizer.text(64)}hiFalse"


LOOP = "{% for m in messages %}"
CALLS = LOOP + "{{ m.content }}{% for c in m.tool_calls or [] %}"
ENDS = "{% endfor %}{% endfor %}"
PARTS = "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}"
FORMS = {
    "objects": (CALLS + "{{ c.function.arguments | tojson }}" + ENDS, 'Time?{"z": 1}'),
    "text": (CALLS + "{{ 'x' + c.function.arguments }}" + ENDS, 'Time?x{"z": 1}'),
    "text, silently": (CALLS + "{{ c.function.arguments }}" + ENDS, 'Time?{"z": 1}'),
    "members": (
        CALLS + "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %}" + ENDS,
        "Time?z=1",
    ),
    "parts": (LOOP + PARTS + "{% endfor %}", "Time?"),
    "first part": (LOOP + "{{ (m.content | first).text }}{% endfor %}{# type #}", "Time?"),
    "either": (LOOP + "{{ m.content if m.content is string else m.content[0].type }}{% endfor %}", "Time?"),
    "parts and text": (
        LOOP + PARTS + "{% for c in m.tool_calls or [] %}{{ 'x' + c.function.arguments }}" + ENDS,
        'Time?x{"z": 1}',
    ),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("arguments", ['{"z": 1}', {"z": 1}])
def test_messages_come_in_the_form_that_a_template_takes(
    name: str, arguments: Any, pool: TemplatePool
) -> None:
    source, expected = FORMS[name]
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    assert ChatTemplate(source).render(messages, pool=pool) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", "0{}"),
        (" \n", "0{}"),
        ("null", "0{}"),
        (None, "0{}"),
        ("{}", "0{}"),
        ('{"a": 1}', '1{"a": 1}'),
        ({"a": 1}, '1{"a": 1}'),
        ('{"room": "kit', '1{"arguments": "{\\"room\\": \\"kit"}'),
        ("[1]", '1{"arguments": [1]}'),
        ("7", '1{"arguments": 7}'),
        (7, '1{"arguments": 7}'),
    ],
)
def test_arguments_of_earlier_calls_are_objects(arguments: Any, expected: str, pool: TemplatePool) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    source = (
        "{% for c in messages[0].tool_calls %}{% set found = c.function.arguments %}"
        "{{ found.items() | list | length }}{{ found | tojson }}{% endfor %}"
    )
    assert ChatTemplate(source).render(messages, pool=pool) == expected


def test_a_refusal_of_all_forms_is_the_first_ones(pool: TemplatePool) -> None:
    template = ChatTemplate("{{ raise_exception('no') }}{# type #}")
    with pytest.raises(RequestError, match="refuses these messages: no"):
        template.render([{"role": "user", "content": "x"}], pool=pool)
