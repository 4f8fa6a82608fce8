"""Chat messages to prompt text, by the template in the model file."""

import json
import logging
from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from engine.errors import ModelFileError, RequestError
from engine.templates.limits import MAX_SOURCE
from engine.templates.pool import TemplatePool, shared_pool
from engine.templates.wire import Kind
from engine.tokenizer.metadata import read

logger = logging.getLogger(__name__)

_MARK = "\uf8fe\uf8ff"
"""Private characters that show where the last message ends in the rendered text."""

_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_ALPACA = (
    "{% for message in messages %}"
    "{{ '\\n### Response:\\n' if message['role'] == 'assistant' else '\\n### Instruction:\\n' }}"
    "{{ message['content'] }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n### Response:\\n' }}{% endif %}"
)

Message = dict[str, Any]


class ChatTemplate:
    """A Jinja template of Hugging Face's kind, rendered in a process of its own (`engine.templates`).

    What it costs is bounded (`engine.templates.limits`): CPU time, time by the clock, memory, and the sizes
    of the template, the messages and the prompt. It is compiled when it is first used. One that does not
    compile is then logged, and each use raises ModelFileError.
    """

    source: str

    def __init__(
        self,
        source: str,
        *,
        tool_source: str | None = None,
        bos_token: str = "",
        eos_token: str = "",
        other_tokens: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`tool_source` is used instead where there are tools; the tokens are variables of both.

        `other_tokens`: more of them by variable, such as `pad_token`.
        """
        self.source = source
        self._tool_source = tool_source
        self._tokens = {**other_tokens, "bos_token": bos_token, "eos_token": eos_token}
        self._broken: dict[str, ModelFileError] = {}

    @classmethod
    def from_metadata(
        cls,
        metadata: Mapping[str, Any],
        *,
        bos_token: str,
        eos_token: str,
        other_tokens: Mapping[str, str] = MappingProxyType({}),
    ) -> "ChatTemplate | None":
        """The file's template, or None where it has none. Raises ModelFileError for what is no text."""
        source = read(metadata, "tokenizer.chat_template", str)
        tool_source = read(metadata, "tokenizer.chat_template.tool_use", str)
        if source is None:
            return None
        return cls(
            source,
            tool_source=tool_source,
            bos_token=bos_token,
            eos_token=eos_token,
            other_tokens=other_tokens,
        )

    @classmethod
    def fallback(
        cls, vocabulary: Container[str], *, bos_token: str = "", eos_token: str = ""
    ) -> "ChatTemplate":
        """ChatML where the vocabulary has its tokens, else Alpaca as KoboldCpp writes it."""
        chatml = "<|im_start|>" in vocabulary and "<|im_end|>" in vocabulary
        return cls(_CHATML if chatml else _ALPACA, bos_token=bos_token, eos_token=eos_token)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_last: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
        arguments: Mapping[str, Any] = MappingProxyType({}),
        pool: TemplatePool | None = None,
    ) -> str:
        """The prompt for `messages` (mappings with `role`, `content`, ...), to encode with specials parsed.

        Content may be text, None or a list of parts, whose texts are joined. With `continue_last` a
        last message of the assistant is left open: the prompt ends with its content.

        Messages that the template refuses, or does not show, are tried again in other forms: the arguments
        of calls as JSON text instead of an object, contents as lists of parts. Those that it still
        refuses, mostly for the order of roles, are tried with runs of one role merged, later system messages
        given to the user, and a user to begin with; and once more with the system's text put before the first
        user's.

        Raises RequestError where no attempt succeeds, TemplateCostError where the limits end them, BusyError
        where too many render, ModelFileError where the template itself is broken. `arguments` are further
        variables, which cannot replace the template's own. `pool` has the processes that render; None
        stands for those that all share.
        """
        source = self._tool_source if tools and self._tool_source is not None else self.source
        clean = [_clean(message, i) for i, message in enumerate(messages)]
        marked = continue_last and bool(clean) and clean[-1]["role"] == "assistant"
        if marked:
            clean[-1]["content"] += _MARK
        variables = {
            "documents": None,
            **arguments,
            **self._tokens,
            "add_generation_prompt": add_generation_prompt and not marked,
            "tools": [dict(tool) for tool in tools] or None,
        }
        text = self._rendered(source, clean, variables, shared_pool() if pool is None else pool)
        if not marked:
            return text
        end = text.rfind(_MARK)
        if end < 0:
            raise RequestError("the model's chat template does not show the last message, so it cannot go on")
        return text[:end]

    def _rendered(
        self, source: str, messages: list[Message], variables: Mapping[str, Any], pool: TemplatePool
    ) -> str:
        if len(source) > MAX_SOURCE:
            raise self._unusable(
                source, f"is {len(source)} characters long; at most {MAX_SOURCE} are accepted"
            )
        if source in self._broken:
            raise self._broken[source]
        kind, text = pool.render(source, messages, variables)
        match kind:
            case Kind.TEXT:
                return text
            case Kind.BROKEN:
                raise self._unusable(source, f"is broken: {_line(text)}")
            case Kind.STOPPED:
                raise RequestError(f"the model's chat template was stopped: {_line(text)}")
            case _:
                raise RequestError(f"the model's chat template refuses these messages: {_line(text)}")

    def _unusable(self, source: str, reason: str) -> ModelFileError:
        """Log it once: every chat with the model meets it."""
        known = self._broken.get(source)
        if known is not None:
            return known
        broken = self._broken[source] = ModelFileError(f"the model file's chat template {reason}")
        logger.warning("%s", broken)
        return broken


def _clean(message: Mapping[str, Any], index: int) -> Message:
    """A copy with text as content, and arguments of tool calls as objects, which templates expect."""
    role = message.get("role")
    if not isinstance(role, str):
        raise RequestError(f"message {index} has no role")
    clean = {**message, "content": _text(message.get("content"), index)}
    calls = message.get("tool_calls")
    if isinstance(calls, list | tuple):
        clean["tool_calls"] = [_call(call) for call in calls]
    return clean


def _text(content: object, index: int) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list | tuple):
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        return "".join(text for text in texts if isinstance(text, str))
    raise RequestError(f"message {index} has a content that is neither text nor a list of parts")


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return call
    return {**call, "function": {**function, "arguments": _arguments(function.get("arguments"))}}


def _arguments(value: Any) -> Mapping[str, Any]:
    """The arguments of a call as an object, whatever a model wrote; other values become its only member."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = value.strip()
    if isinstance(value, Mapping):
        return value
    return {} if value is None or value == "" else {"arguments": value}


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
