import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError, RequestError
from engine.tokenizer.chat_template import ChatTemplate
from server.chat.adapter_tags import SHIPPED
from server.chat.adapters import Adapter, load_adapter, shipped_adapter
from tests.server.chat import templates
from tests.server.chat.templates import Messages, assistant, result, system, user

CHAT = [system("Be terse."), user("Hi"), assistant("Yes?"), user("Go")]

PARTS = [{"type": "text", "text": "a"}, {"type": "image_url"}, "b"]


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        (
            "Alpaca",
            "\n### Instruction:\nBe terse.\n### Instruction:\nHi\n### Response:\nYes?"
            "\n### Instruction:\nGo\n### Response:\n",
        ),
        (
            "command-r.json",
            "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be terse.<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Yes?<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Go<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        ),
        (
            "HARMONY",
            "<|start|>developer<|message|># Instructions\n\nBe terse.<|end|><|start|>user<|message|>Hi<|end|>"
            "<|start|>assistant<|channel|>final<|message|>Yes?<|end|><|start|>user<|message|>Go<|end|>"
            "<|start|>assistant",
        ),
        (
            "Phi-4",
            "<|im_start|>system<|im_sep|>Be terse.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
            "<|im_start|>assistant<|im_sep|>Yes?<|im_end|><|im_start|>user<|im_sep|>Go<|im_end|>"
            "<|im_start|>assistant<|im_sep|>",
        ),
        ("Vicuna", "Be terse.\n\nUSER: Hi\nASSISTANT: Yes?</s>\nUSER: Go\nASSISTANT:"),
        ("metharme", "<|system|>Be terse.<|user|>Hi<|model|>Yes?<|user|>Go<|model|>"),
    ],
)
def test_prompts_of_shipped_adapters(name: str, prompt: str) -> None:
    adapter = load_adapter(name)
    assert adapter is not None
    assert adapter.prompt(CHAT) == prompt


@pytest.mark.parametrize(
    ("name", "source", "bos"),
    [
        ("chatml", templates.CHATML, ""),
        ("llama-3", templates.LLAMA_3, "<s>"),
        ("mistral-v7", templates.MISTRAL, "<s>"),
        ("glm-4", templates.GLM, ""),
    ],
)
def test_shipped_adapters_write_what_the_models_templates_write(name: str, source: str, bos: str) -> None:
    template = ChatTemplate(source, bos_token=bos, eos_token="</s>")
    assert bos + shipped_adapter(name).prompt(CHAT) == template.render(CHAT)


def test_all_promised_adapters_are_there() -> None:
    promised = (
        "Alpaca ChatML Command-R Gemma-2 Llama-2-Chat Llama-3 Llama-4 Metharme Mistral-V1 Mistral-V2-V3 "
        "Mistral-V3-Tekken Mistral-V7 Phi-3 Phi-4 Vicuna Gemma-3 GLM-4 Granite-3 "
        "DeepSeek-V2.5 DeepSeek-V3 Harmony"
    )
    loaded = {name: load_adapter(name) for name in promised.split()}
    assert None not in loaded.values()
    assert {name.lower() for name in loaded} == SHIPPED.keys()
    assert load_adapter("AutoGuess") is load_adapter("autoguess.json") is None


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([], "A:"),
        ([{"role": "narrator", "content": "Night falls."}], "Night falls.A:"),
        ([user("a"), {"role": "user", "content": None}, {"role": "user"}], "U:a;A:"),
        ([{"role": "developer", "content": PARTS}], "S:ab;A:"),
        ([user("a"), assistant("b")], "U:a;A:b"),
        ([assistant("")], "A:"),
        ([user("a"), result("42", "c1")], "U:a;T:\nReceived results of function call c1:\n42;A:"),
        ([{"role": "function", "content": "42"}], "T:\nReceived results of function call :\n42;A:"),
        (
            [assistant(None, ("c1", "weather", '{"city": "Bonn"}')), user("a")],
            'A:\n(Called function weather with {"city": "Bonn"} as c1)\n;U:a;A:',
        ),
        ([assistant("Look", ("c1", "weather", "{}")), user("a")], "A:Look;U:a;A:"),
    ],
)  # fmt: skip
def test_the_rules_of_prompts(messages: Messages, prompt: str) -> None:
    adapter = Adapter("", "S:", ";", "U:", ";", "A:", ";", None, "T:", ";")
    assert adapter.prompt(messages) == prompt


def test_a_last_reply_is_answered_if_that_is_wanted() -> None:
    adapter = Adapter("<s>", "S:", ";", "U:", ";", "A:", ";", "A!", "T:", ";")
    assert adapter.prompt([assistant("b")], continue_last=False) == "<s>A:b;A!"
    assert adapter.prompt([assistant("b")], continue_last=True) == "<s>A:b"


@pytest.mark.parametrize(
    "message",
    [
        {"content": "a"},
        {"role": 1, "content": "a"},
        {"role": "user", "content": 7},
        {"role": "assistant", "tool_calls": {}},
        {"role": "assistant", "tool_calls": [{"function": {"name": 1}}]},
    ],
)
def test_messages_of_another_shape_are_the_clients_fault(message: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="message 1"):
        Adapter().prompt([user("a"), message])


def test_stop_strings_are_tags_without_blanks() -> None:
    assert Adapter().stop == ("### Instruction:", "### Response:")
    assert shipped_adapter("llama-2-chat").stop == ("[INST]",)
    # the reply itself goes through the header of the final channel
    assert shipped_adapter("harmony").stop == ("<|start|>user<|message|>",)
    assert Adapter(user_start=" x ", assistant_start="x").stop == ("x",)


def test_missing_tags_are_alpacas_and_other_keys_are_ignored() -> None:
    adapter = Adapter.from_mapping({"user_start": "U:", "user_end": None, "temperature": 1, "name": "mine"})
    assert adapter == Adapter(user_start="U:")


def test_adapters_are_read_from_files_and_json(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"assistant_gen": "", "user_start": "Ü:"}), encoding="utf-8")
    assert load_adapter(str(path)) == load_adapter(path.read_text(encoding="utf-8"))
    assert load_adapter(str(path)) == Adapter(assistant_gen="", user_start="Ü:")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "no chat adapter '': give a JSON file or one of AutoGuess, alpaca, "),
        ("ChatGPT", "no chat adapter 'ChatGPT'"),
        ("no\0where", "no chat adapter|is no UTF-8"),
        ("{", "the chat adapter is not JSON"),
        ('{"user_end": 1}', "the chat adapter is refused: the adapter's user_end must be text"),
        ('{"user_end": "' + "x" * 5000 + '"}', "at most 4096"),
        ("[" * 100_000, "no chat adapter|cannot read"),
        ('{"a":' * 100_000, "is not JSON"),
    ],
)
def test_bad_adapters_are_told_in_one_line(value: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refusal:
        load_adapter(value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    ("content", "reason"), [(b"[1]", "object of tags"), (b"\xff", "no UTF-8"), (b"{}" * 2**20, "larger")]
)
def test_bad_files_are_told(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        load_adapter(str(path))
