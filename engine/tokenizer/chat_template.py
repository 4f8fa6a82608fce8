"""Chat messages to prompt text, by the template in the model file."""

import json
import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

from jinja2 import Template

from engine.errors import ModelFileError, RequestError
from engine.tokenizer.metadata import read
from engine.tokenizer.template_sandbox import TemplateLimitError, compile_template, render_template

logger = logging.getLogger(__name__)

MAX_SOURCE = 256 << 10
"""Characters of a template; the longest in use have some 30 000."""

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
    """A Jinja template of Hugging Face's kind, run in a sandbox (`template_sandbox` tells its limits).

    It is compiled when it is first used. One that does not compile is then logged, and each use raises
    ModelFileError.
    """

    source: str

    def __init__(
        self, source: str, *, tool_source: str | None = None, bos_token: str = "", eos_token: str = ""
    ) -> None:
        """`tool_source` is used instead where there are tools; the tokens are variables of both."""
        self.source = source
        self._tool_source = tool_source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    @cached_property
    def _template(self) -> Template | ModelFileError:
        return _compiled(self.source)

    @cached_property
    def _tool_template(self) -> Template | ModelFileError:
        return self._template if self._tool_source is None else _compiled(self._tool_source)

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, Any], *, bos_token: str, eos_token: str
    ) -> "ChatTemplate | None":
        """The file's template, or None where it has none. Raises ModelFileError for what is no text."""
        source = read(metadata, "tokenizer.chat_template", str)
        tool_source = read(metadata, "tokenizer.chat_template.tool_use", str)
        if source is None:
            return None
        return cls(source, tool_source=tool_source, bos_token=bos_token, eos_token=eos_token)

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
    ) -> str:
        """The prompt for `messages` (mappings with `role`, `content`, ...), to encode with specials parsed.

        Content may be text, None or a list of parts, whose texts are joined. With `continue_last` a
        last message of the assistant is left open: the prompt ends with its content.

        Messages that the template refuses, mostly for the order of roles, are tried again with runs of
        one role merged, later system messages given to the user, and a user to begin with; and once
        more with the system's text put before the first user's.

        Raises RequestError where no attempt succeeds, ModelFileError where the template itself is
        broken. `arguments` are further variables, which cannot replace the template's own.
        """
        template = self._tool_template if tools else self._template
        if isinstance(template, ModelFileError):
            raise template
        clean = [_clean(message, i) for i, message in enumerate(messages)]
        marked = continue_last and bool(clean) and clean[-1]["role"] == "assistant"
        if marked:
            clean[-1]["content"] += _MARK
        variables = {
            **arguments,
            **self._tokens,
            "add_generation_prompt": add_generation_prompt and not marked,
            "tools": [dict(tool) for tool in tools] or None,
            "documents": None,
        }
        text = _render_leniently(template, clean, variables)
        if not marked:
            return text
        end = text.rfind(_MARK)
        if end < 0:
            raise RequestError("the model's chat template does not show the last message, so it cannot go on")
        return text[:end]


def _compiled(source: str) -> Template | ModelFileError:
    if len(source) > MAX_SOURCE:
        reason = f"is {len(source)} characters long; at most {MAX_SOURCE} are accepted"
    else:
        try:
            return compile_template(source)
        # a hostile source may break Jinja or Python's own compiler in any way it likes
        except Exception as error:
            reason = f"is broken: {_line(error)}"
    broken = ModelFileError(f"the model file's chat template {reason}")
    logger.warning("%s", broken)
    return broken


def _render_leniently(template: Template, messages: list[Message], variables: Mapping[str, Any]) -> str:
    refusal: Exception | None = None
    for attempt in (_as_they_are, _alternating, _without_system):
        try:
            return render_template(template, {**variables, "messages": attempt(messages)})
        except TemplateLimitError as error:
            raise RequestError(f"the model's chat template was stopped: {error}") from None
        # the template's code may raise anything
        except Exception as error:
            refusal = refusal or error
    raise RequestError(f"the model's chat template refuses these messages: {_line(refusal)}")


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
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _as_they_are(messages: list[Message]) -> list[Message]:
    return messages


def _alternating(messages: list[Message]) -> list[Message]:
    """At most one system message, at the start; then user and assistant in turn."""
    leading = next((i for i, message in enumerate(messages) if message["role"] not in _SYSTEM), len(messages))
    system = [_join("system", messages[:leading])] if leading else []
    turns: list[Message] = [] if messages[leading:] else [_join("user", [])]
    for message in messages[leading:]:
        role = "assistant" if message["role"] == "assistant" else "user"
        if not turns and role == "assistant":
            turns.append(_join("user", []))
        if turns and turns[-1]["role"] == role:
            turns[-1] = _join(role, [turns[-1], message])
        else:
            turns.append({**message, "role": role})
    return system + turns


def _without_system(messages: list[Message]) -> list[Message]:
    """The same for templates that know no system."""
    system, *turns = _alternating(messages)
    if system["role"] != "system":
        return [system, *turns]
    return [_join("user", [system, turns[0]]), *turns[1:]]


_SYSTEM = ("system", "developer")


def _join(role: str, messages: Iterable[Message]) -> Message:
    texts = [message["content"] for message in messages]
    return {"role": role, "content": "\n\n".join(text for text in texts if text)}


def _line(error: Exception | None) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
