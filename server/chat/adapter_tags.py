"""The tags of the adapters that come with the server, by lower-case name.

Each set follows the chat format that the named models were trained on, as far as tags round the turns
can say it. What a set does not name is empty here: Alpaca's tags stand in for missing ones only in sets
that users write. `assistant_gen` is given where a reply is opened with another tag than earlier replies.
"""

from collections.abc import Mapping

Tags = Mapping[str, str]


def _turns(
    system: str,
    user: str,
    assistant: str,
    end: str,
    *,
    chat_start: str = "",
    tools: str | None = None,
    assistant_gen: str | None = None,
) -> Tags:
    """Tags of a format whose turns all end alike; results of tools are the user's unless `tools` is given."""
    tags = {
        "chat_start": chat_start,
        "system_start": system,
        "system_end": end,
        "user_start": user,
        "user_end": end,
        "assistant_start": assistant,
        "assistant_end": end,
        "tools_start": user if tools is None else tools,
        "tools_end": end,
    }
    return tags if assistant_gen is None else tags | {"assistant_gen": assistant_gen}


def _instructions(start: str, end: str, reply: str, reply_end: str, system: tuple[str, str]) -> Tags:
    """Tags of a format that wraps what the user says and leaves replies bare."""
    return {
        "chat_start": "",
        "system_start": system[0],
        "system_end": system[1],
        "user_start": start,
        "user_end": end,
        "assistant_start": reply,
        "assistant_end": reply_end,
        "assistant_gen": "",
        "tools_start": start,
        "tools_end": end,
    }


_COHERE = "<|START_OF_TURN_TOKEN|><|{}_TOKEN|>"
_GEMMA = _turns("<start_of_turn>user\n", "<start_of_turn>user\n", "<start_of_turn>model\n", "<end_of_turn>\n")
_DEEPSEEK: Tags = {
    "chat_start": "<｜begin▁of▁sentence｜>",
    "system_start": "",
    "system_end": "",
    "user_start": "<｜User｜>",
    "user_end": "",
    "assistant_start": "<｜Assistant｜>",
    "assistant_end": "<｜end▁of▁sentence｜>",
    "tools_start": "<｜User｜>",
    "tools_end": "",
}

SHIPPED: Mapping[str, Tags] = {
    "alpaca": {},
    "chatml": _turns("<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n"),
    "command-r": _turns(
        _COHERE.format("SYSTEM"),
        _COHERE.format("USER"),
        _COHERE.format("CHATBOT"),
        "<|END_OF_TURN_TOKEN|>",
        tools=_COHERE.format("SYSTEM"),
    ),
    "deepseek-v2.5": _DEEPSEEK,
    "deepseek-v3": _DEEPSEEK,
    "gemma-2": _GEMMA,
    "gemma-3": _GEMMA,
    "glm-4": _turns(
        "<|system|>\n",
        "<|user|>\n",
        "<|assistant|>\n",
        "",
        chat_start="[gMASK]<sop>",
        tools="<|observation|>\n",
    ),
    "granite-3": _turns(
        "<|start_of_role|>system<|end_of_role|>",
        "<|start_of_role|>user<|end_of_role|>",
        "<|start_of_role|>assistant<|end_of_role|>",
        "<|end_of_text|>\n",
        tools="<|start_of_role|>tool<|end_of_role|>",
    ),
    "harmony": _turns(
        "<|start|>developer<|message|># Instructions\n\n",
        "<|start|>user<|message|>",
        "<|start|>assistant<|channel|>final<|message|>",
        "<|end|>",
        assistant_gen="<|start|>assistant",
    ),
    # The system's text stands inside the first instruction there, which turns cannot say: it has its own.
    "llama-2-chat": _instructions(
        "[INST] ", " [/INST]", " ", " </s>", ("[INST] <<SYS>>\n", "\n<</SYS>>\n\n[/INST]")
    ),
    "llama-3": _turns(
        "<|start_header_id|>system<|end_header_id|>\n\n",
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
        tools="<|start_header_id|>ipython<|end_header_id|>\n\n",
    ),
    "llama-4": _turns(
        "<|header_start|>system<|header_end|>\n\n",
        "<|header_start|>user<|header_end|>\n\n",
        "<|header_start|>assistant<|header_end|>\n\n",
        "<|eot|>",
        tools="<|header_start|>ipython<|header_end|>\n\n",
    ),
    "metharme": _turns("<|system|>", "<|user|>", "<|model|>", ""),
    "mistral-v1": _instructions(" [INST] ", " [/INST]", " ", "</s>", (" [INST] ", " [/INST]")),
    "mistral-v2-v3": _instructions("[INST] ", "[/INST]", " ", "</s>", ("[INST] ", "[/INST]")),
    "mistral-v3-tekken": _instructions("[INST]", "[/INST]", "", "</s>", ("[INST]", "[/INST]")),
    "mistral-v7": _instructions("[INST]", "[/INST]", "", "</s>", ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")),
    "phi-3": _turns("<|system|>\n", "<|user|>\n", "<|assistant|>\n", "<|end|>\n"),
    "phi-4": _turns(
        "<|im_start|>system<|im_sep|>",
        "<|im_start|>user<|im_sep|>",
        "<|im_start|>assistant<|im_sep|>",
        "<|im_end|>",
    ),
    "vicuna": {
        "chat_start": "",
        "system_start": "",
        "system_end": "\n\n",
        "user_start": "USER: ",
        "user_end": "\n",
        "assistant_start": "ASSISTANT: ",
        "assistant_end": "</s>\n",
        "assistant_gen": "ASSISTANT:",
        "tools_start": "USER: ",
        "tools_end": "\n",
    },
}
