import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engine.errors import ModelFileError, RequestError, TemplateCostError
from engine.templates.limits import Limits
from engine.templates.pool import TemplatePool
from engine.tokenizer import ChatTemplate, Tokenizer
from tests.engine.tokenizer.vocabularies import byte_pairs

Messages = list[dict[str, Any]]

CHATML = ChatTemplate.fallback(["<|im_start|>", "<|im_end|>"])
STRICT = ChatTemplate(
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ message['role'][0] }}:{{ message['content'] | trim }};{% endfor %}",
    bos_token="<s>",
)
NO_SYSTEM = ChatTemplate(
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for message in messages %}{{ message.role }}:{{ message.content }};{% endfor %}"
)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def render(source: str, **arguments: Any) -> str:
    return ChatTemplate(source).render([user("hi")], arguments=arguments)


def test_chatml_and_alpaca_for_files_without_a_template() -> None:
    messages = [user("Hi"), assistant("Yes?"), user("Go")]
    assert CHATML.render(messages) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n"
        "<|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ChatTemplate.fallback(["<s>"]).render(messages) == (
        "\n### Instruction:\nHi\n### Response:\nYes?\n### Instruction:\nGo\n### Response:\n"
    )
    assert CHATML.render([user("Hi")], add_generation_prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ([{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}], "ab"),
        (["a", "b"], "ab"),
        ("a", "a"),
    ],
)
def test_contents_become_text(content: Any, text: str) -> None:
    assert CHATML.render([user(content)], add_generation_prompt=False) == CHATML.render(
        [user(text)], add_generation_prompt=False
    )


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user("a"), assistant("b")], "<s>u:a;a:b;"),
        ([user("a"), user("b")], "<s>u:a\n\nb;"),
        ([assistant("a"), user("b")], "<s>u:;a:a;u:b;"),
        ([user("a"), system("b"), user("c"), user("d")], "<s>u:a\n\nb\n\nc\n\nd;"),
        ([user("a"), *[{"role": "tool", "content": "b"}] * 2], "<s>u:a\n\nb\n\nb;"),
    ],
)
def test_orders_that_a_template_refuses_are_put_right(messages: Messages, expected: str) -> None:
    assert STRICT.render(messages) == expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([system("s"), user("a")], "user:s\n\na;"),
        ([system("s"), system("t"), user("a"), assistant("b")], "user:s\n\nt\n\na;assistant:b;"),
        ([system("s")], "user:s;"),
    ],
)
def test_a_system_that_a_template_does_not_know_goes_to_the_user(messages: Messages, expected: str) -> None:
    assert NO_SYSTEM.render(messages) == expected


def test_what_a_template_takes_is_not_touched() -> None:
    messages = [user("a"), system("b"), user("c")]
    assert CHATML.render(messages, add_generation_prompt=False).count("<|im_start|>") == 3


@pytest.mark.parametrize("content", ["Sure, ", "end", "", "e", "<|im_end|>"])
def test_a_last_message_can_be_left_open(content: str) -> None:
    prompt = CHATML.render([user("Hi"), assistant(content)], continue_last=True)
    assert prompt == f"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{content}"


def test_only_a_message_of_the_assistant_is_left_open() -> None:
    assert CHATML.render([user("Hi")], continue_last=True) == CHATML.render([user("Hi")])
    assert CHATML.render([], continue_last=True) == "<|im_start|>assistant\n"


def test_a_message_that_is_not_shown_cannot_be_left_open() -> None:
    with pytest.raises(RequestError, match="does not show the last message"):
        ChatTemplate("nothing").render([assistant("a")], continue_last=True)


def test_variables_blocks_and_filters_of_chat_templates() -> None:
    assert render("{{ messages[0] | tojson }}") == '{"role": "user", "content": "hi"}'
    assert render("{{ tools is none }}{{ x }}", x="é<&>") == "Trueé<&>"
    assert render("{{ x | tojson }}{{ x | tojson(indent=1) }}", x=["é<"]) == '["é<"][\n "é<"\n]'
    assert render("{% generation %}a{{ 1 }}{% endgeneration %}") == "a1"
    assert render("{% for i in range(9) %}{% if i > 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "012"
    assert render("{{ strftime_now('%Y') }}") == time.strftime("%Y")
    assert render("{{ 'a' ~ 1 ~ none }}{{ ['a', 'b'] | join('-') }}{{ 'aa'.replace('a', 'b') }}") == (
        "a1Nonea-bbb"
    )
    assert render("{{ '-'.join(['a', 'b']) }}{{ 'a\nb' | indent(2) }}{{ 7 % 4 }}{{ 2 ** 3 }}") == (
        "a-ba\n  b38"
    )
    assert render("{{ '%s is %02d' % ('a', 1) }}{{ '%.3f' | format(0.5) }}") == "a is 010.500"
    assert render("{% for m in messages %}{{ loop.last }}{{ loop.length }}{% endfor %}") == "True1"
    assert render("{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(1) }}{{ f('a') }}") == "[1][a]"
    assert render("{%- set ns = namespace(n=0) %}\n  {% if true %}\nx\n  {% endif %}\n") == "x\n"
    assert render("{{ 'a  b'.split()[1] }}{{ messages[0].get('name', 'no') }}{{ 'x' * 3 }}") == "bnoxxx"


def test_tokens_are_variables_that_arguments_cannot_replace() -> None:
    template = ChatTemplate("{{ bos_token }}{{ eos_token }}", bos_token="<s>", eos_token="</s>")
    everything = dict.fromkeys(("self", "messages", "tools", "bos_token", "add_generation_prompt"), "x")
    assert template.render([], arguments=everything) == "<s></s>"


def test_tools_select_their_template_and_calls_get_objects() -> None:
    template = ChatTemplate("plain", tool_source="{{ tools[0].name }}{{ messages[0].tool_calls | tojson }}")
    call = {"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert template.render([message]) == "plain"
    assert template.render([message], tools=[{"name": "f"}]) == (
        'f[{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}]'
    )
    assert call["function"] == {"name": "f", "arguments": '{"a": 1}'}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"content": "a"}, "message 0 has no role"),
        ({"role": 1, "content": "a"}, "message 0 has no role"),
        (user(7), "message 0 has a content"),
        (user({"text": "a"}), "message 0 has a content"),
    ],
)
def test_messages_that_are_none(message: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        CHATML.render([message])


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ 1 | of_tomorrow }}",
        "{% include 'x' %}{% endfor %}",
        "{{" + "(" * 50_000,
        "x" * (1 << 19),
    ],
    ids=["syntax", "filter", "block", "nesting", "size"],
)
def test_a_broken_template_fails_when_used(source: str, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = Tokenizer.from_metadata({**byte_pairs(), "tokenizer.chat_template": source})
    assert tokenizer.chat_template is not None
    for _ in range(2):
        with caplog.at_level(logging.WARNING), pytest.raises(ModelFileError, match="chat template") as caught:
            tokenizer.chat_template.render([user("a")])
        assert "\n" not in str(caught.value)
    assert caplog.text.count("chat template") == 1


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('no\nway') }}",
        "{{ nothing.at.all }}",
        "{{ 1 / 0 }}",
        "{% include 'x' %}",
        "{{ range(1000000) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{{ (''|attr('__class__')).mro() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{{ (1).to_bytes(1000000000, 'big') }}",
        "{{ lipsum(n=1000) }}",
        "{% for i in 5 %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_what_a_template_must_not_do_is_refused(source: str) -> None:
    with pytest.raises(RequestError, match="refuses these messages") as caught:
        render(source)
    assert "\n" not in str(caught.value)


@pytest.fixture
def hasty() -> Iterator[TemplatePool]:
    pool = TemplatePool(Limits(cpu_seconds=0.1))
    yield pool
    pool.close()


def test_long_errors_are_shortened() -> None:
    with pytest.raises(RequestError, match="refuses these messages: xxx") as caught:
        render("{{ raise_exception('x' * 100000) }}")
    assert len(str(caught.value)) < 300
    with pytest.raises(ModelFileError, match=r"is broken: .*xxx") as broken:
        render("{{ 1 | " + "x" * 100_000 + " }}")
    assert len(str(broken.value)) < 300


GROW = "{% set ns = namespace(x='a' * 1000) %}{% for i in range(60) %}"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 1000000000 }}",
        "{{ 1000000000 * [1] }}",
        "{{ 9 ** 1000000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%(a)-9.1000000000d' % {'a': 1} }}",
        "{{ '%*d' | format(1000000000, 1) }}",
        "{{ 'a' | indent(1000000000) }}",
        "{{ 'a'.ljust(1000000000) }}{{ 'a'.center(width=1) }}",
        "{{ 'a'.zfill(1000000000) }}",
        "{{ '\t'.expandtabs(1000000000) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ [1] | batch(1000000000, 0) | list }}",
        "{{ [1] | slice(1000000000) | list }}",
        "{{ 1.5 | round(1000000000, 'floor') }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 1000000000) }}",
        "{{ '{:>999}'.format_map({}) }}",
        "{{ ('{0}' * 1000).format('a' * 1000000) }}",
        "{{ [1] | tojson(indent=1000000000) }}",
        "{{ (range(100000) | list) | join('a' * 1000000) }}",
        "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
        "{{ ('a' * 1000000).join(range(100000)) }}",
        GROW + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
        GROW + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        GROW + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        GROW + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        GROW + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | string | length }}",
        GROW + "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
        "{% for i in range(100000) %}" + "x" * 1000 + "{% endfor %}",
        "{% set y %}{% for i in range(100000) %}" + "x" * 1000 + "{% endfor %}{% endset %}",
    ],
)
def test_what_a_template_may_cost_is_bounded(source: str) -> None:
    started = time.process_time()
    with pytest.raises(RequestError, match="was stopped: it"):
        render(source)
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{% set _ = f(n - 1) ~ f(n - 1) %}{% endif %}{% endmacro %}{{ f(90) }}",
    ],
)
def test_time_is_bounded(source: str, hasty: TemplatePool) -> None:
    with pytest.raises(TemplateCostError, match=r"was stopped: it takes longer than 0\.1 seconds"):
        ChatTemplate(source).render([user("hi")], pool=hasty)


def test_a_template_that_begins_with_bos_does_not_double_it() -> None:
    tokenizer = Tokenizer.from_metadata(
        {**byte_pairs(add_bos_token=True), "tokenizer.chat_template": "{{ bos_token }}he"}
    )
    assert tokenizer.chat_template is not None
    ids = tokenizer.encode(tokenizer.chat_template.render([]))
    assert ids[0] == tokenizer.bos_id
    assert ids.count(ids[0]) == 1


def test_a_file_without_a_template_has_none_but_a_fallback() -> None:
    tokenizer = Tokenizer.from_metadata(byte_pairs())
    assert tokenizer.chat_template is None
    assert "### Instruction" in tokenizer.fallback_chat_template().source
