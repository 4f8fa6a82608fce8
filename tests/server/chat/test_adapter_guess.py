import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.architectures import open_model
from engine.errors import RequestError
from engine.tokenizer import Tokenizer
from engine.tokenizer.chat_template import ChatTemplate
from server.chat.adapter_guess import derive_adapter, guess_adapter
from server.chat.adapters import Adapter, shipped_adapter
from tests.server.chat import templates
from tests.server.chat.templates import assistant, rendering, system, user

CHAT = [system("Be terse."), user("Hi"), assistant("Yes?"), user("Go")]
EXACT = ("CHATML", "LLAMA_3", "MISTRAL", "GLM", "DEEPSEEK_R1", "QWEN_3")


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("with_system", [True, False])
def test_derived_tags_write_what_the_template_writes(name: str, length: int, with_system: bool) -> None:
    render = rendering(getattr(templates, name))
    adapter = derive_adapter(render)
    assert adapter is not None
    messages = CHAT[:length] if with_system else CHAT[1 : length + 1]
    assert adapter.prompt(messages, continue_last=False) == render(messages, True)


def test_tags_are_cut_where_turns_meet() -> None:
    assert derive_adapter(rendering(templates.CHATML)) == Adapter(
        "",
        "<|im_start|>system\n",
        "<|im_end|>\n",
        "<|im_start|>user\n",
        "<|im_end|>\n",
        "<|im_start|>assistant\n",
        "<|im_end|>\n",
        None,
        "<|im_start|>tool\n",
        "<|im_end|>\n",
    )
    thinking = derive_adapter(rendering(templates.DEEPSEEK_R1))
    assert thinking is not None
    assert (thinking.assistant_start, thinking.assistant_gen) == (
        "<｜Assistant｜>",
        "<｜Assistant｜><think>\n",
    )


def test_a_template_without_system_gets_the_users_tags() -> None:
    adapter = derive_adapter(rendering(templates.GEMMA))
    assert adapter is not None
    assert adapter == Adapter(
        chat_start="<s>",
        system_start="<start_of_turn>user\n",
        system_end="<end_of_turn>\n",
        user_start="<start_of_turn>user\n",
        user_end="<end_of_turn>\n",
        assistant_start="<start_of_turn>model\n",
        assistant_end="<end_of_turn>\n",
        tools_start="<start_of_turn>user\n",
        tools_end="<end_of_turn>\n",
    )


def test_harmonys_reply_is_opened_by_its_role() -> None:
    adapter = derive_adapter(rendering(templates.HARMONY))
    assert adapter is not None
    assert adapter.assistant_start == "<|start|>assistant<|channel|>final<|message|>"
    assert adapter.reply_start == "<|start|>assistant"
    assert "<|start|>assistant" not in adapter.stop


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages | length }}",
        "{{ raise_exception('no') }}",
        "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
    ],
)
def test_templates_that_show_no_turns_give_nothing(source: str) -> None:
    assert derive_adapter(rendering(source)) is None
    assert guess_adapter(rendering(source), chatml=True) == shipped_adapter("chatml")
    assert guess_adapter(rendering(source), chatml=False) == Adapter()


def test_without_a_template_the_vocabulary_decides() -> None:
    assert guess_adapter(None, chatml=True) == shipped_adapter("chatml")
    assert guess_adapter(None, chatml=False) == Adapter()
    assert guess_adapter(rendering(templates.LLAMA_3), chatml=True).user_end == "<|eot_id|>"


def test_other_errors_are_not_hidden() -> None:
    def broken(messages: Sequence[Mapping[str, Any]], opened: bool) -> str:
        raise ZeroDivisionError

    def refused(messages: Sequence[Mapping[str, Any]], opened: bool) -> str:
        raise RequestError("no")

    with pytest.raises(ZeroDivisionError):
        derive_adapter(broken)
    assert derive_adapter(refused) is None


def test_smollm2s_own_template(smollm2: Path) -> None:
    template = Tokenizer.from_metadata(open_model(smollm2).file.metadata).chat_template
    assert isinstance(template, ChatTemplate)
    adapter = derive_adapter(lambda messages, opened: template.render(messages, add_generation_prompt=opened))
    assert adapter is not None
    assert adapter.prompt(CHAT) == template.render(CHAT)
    # the template has a system's text of its own, which is no tag
    assert template.render(CHAT[1:]).endswith(adapter.prompt(CHAT[1:]))
    assert re.fullmatch(r"<\|im_start\|>user", adapter.stop[0])
