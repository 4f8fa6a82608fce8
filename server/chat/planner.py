"""From what a client asks of a chat to one request, and to the reader of its reply."""

import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from engine.errors import ModelFileError, RequestError, TemplateCostError
from engine.types import ChatPrompt, GenerationRequest, Grammar, ModelInfo, TextPrompt, ThinkingBudget
from server.chat.adapters import Adapter
from server.chat.budget import thinking_tokens
from server.chat.call import ChatCall, Tool, ToolMode
from server.chat.client_header import without_headers
from server.chat.fitting import fit
from server.chat.history import SYSTEM, text_of
from server.chat.quoting import Quoter
from server.chat.reasoning import family_of
from server.chat.tools.format import ToolFormat
from server.chat.tools.formats import FUNCTIONARY, HARMONY, HERMES, format_of
from server.chat.tools.parser import ToolCallParser
from server.chat.tools.telling import Messages, describe_tools, shorten_ids, template_tools, write_tools
from server.chat.turn import TurnReader

logger = logging.getLogger(__name__)

Render = Callable[[ChatPrompt], Awaitable[str]]
"""The model's own chat template. May raise `RequestError` and `ModelFileError`."""


class Sizes(Protocol):
    """How long texts are."""

    async def fits(self, text: str, tokens: int) -> bool:
        """Whether a text has at most so many tokens."""

    async def size(self, text: str) -> int:
        """How many tokens a text has."""


_OTHER = "\u2026"
"""A message that no chat begins with: up to it prompts are the same."""
_LEAST_ROOM = 16
"""Tokens of the context that a reply cannot take from the prompt: the engine's own rule."""

MAX_TOOLS = 256
MAX_SCHEMA_DEPTH = 64

_NAME = re.compile(r"[\w./:-]{1,128}")
_SHORT_IDS = re.compile(r"length\s*!=\s*9")
"""How Mistral's templates refuse ids that are not nine characters long."""
_END_TOKENS = frozenset(
    (
        *(
            "<|im_end|>",
            "<|eot_id|>",
            "<|eom_id|>",
            "<|eot|>",
            "<|eom|>",
            "<|end|>",
            "<|return|>",
            "<|call|>",
        ),
        *("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<end_of_turn>", "<end_of_utterance>"),
        *("<turn|>", "<|tool_response>", "<start_function_response>", "<|END_OF_TURN_TOKEN|>"),
        *(
            "<｜end▁of▁sentence｜>",
            "<|user|>",
            "<|observation|>",
            "<EOT>",
            "_<EOT>",
            "[EOT]",
            "[EOS]",
            "[e~[",
        ),
        *("<|calls|>", "<|flush|>"),
    )
)


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """What to ask of the engine, and how to read what it says.

    A plan may be carried out several times: each generation has a reader of its own.
    """

    request: GenerationRequest
    new_reader: Callable[[], TurnReader]

    @property
    def text(self) -> str:
        """The prompt, which is always text, with the memory in front."""
        prompt = self.request.prompt
        assert isinstance(prompt, TextPrompt)
        return prompt.memory + prompt.text

    def reader(self) -> TurnReader:
        """A reader for the events of one generation."""
        return self.new_reader()


def counting_request() -> GenerationRequest:
    """The base of a request whose prompt is only counted."""
    return GenerationRequest("count", TextPrompt(""), max_tokens=0)


class ChatPlanner:
    """Plans the turns of chats with one model. Holds no state of a chat.

    `adapter` is the settings' own; with None the model's template writes the prompts. `fallback` does
    where there is no template or it refuses the messages, and is Alpaca's if not given;
    `adapter_guess.guess_adapter` finds the best one. `sizes` says how long prompts are;
    without it nothing is left out, however long the chat. `special`: control tokens that messages spell are
    read as such, unless a call says otherwise.
    """

    def __init__(
        self,
        info: ModelInfo,
        adapter: Adapter | None = None,
        fallback: Adapter | None = None,
        sizes: Sizes | None = None,
        *,
        special: bool = False,
    ) -> None:
        template = info.chat_template
        self._info = info
        self._sizes = sizes
        self._adapter = adapter
        self._fallback = Adapter() if fallback is None else fallback
        self._has_template = template is not None
        self._family = family_of(template)
        self._thinks = template is not None and self._family.marked_in(template)
        self._format = format_of(template)
        self._short_ids = template is not None and _SHORT_IDS.search(template) is not None
        ends = {info.eos_token, self._fallback.assistant_end.strip()}
        self._hidden_ends = (_END_TOKENS | ends) - {""}
        self._special = special
        self._quoter = Quoter(info.control_tokens, self._marks(info.control_tokens))
        self._warned = False
        """Whether the log has said that the model's template refuses messages."""

    async def plan(self, call: ChatCall, base: GenerationRequest, render: Render) -> ChatPlan:
        """The plan for one turn; `base` has everything that does not depend on the chat.

        The prompt is written by the call's adapter, else the settings', else the model's template, else
        the fallback. Where tools may be called, the reply is bound to their format, so that
        `call.grammar` counts only if there are none. A reply that a grammar binds from its first letter
        on has no thoughts.

        Raises `RequestError` for tools or messages that are not of OpenAI's shape, for a tool choice
        that cannot be met, and for a grammar together with tools that must be called; `TemplateCostError`
        where the template exceeds its limits; what else `render` raises.

        Headers in front of the system prompt are left out (`client_header`). Of a chat that has outgrown the
        context parts are left out (`fitting`), unless `base.whole_only`; if what must stay is too long, the
        end of the system prompt and the beginning of the rest go.
        """
        tools = _offered(call)
        named = call.tool_choice.name
        required = bool(tools) and (call.tool_choice.mode is ToolMode.REQUIRED or named is not None)
        if required and call.grammar is not None:
            raise RequestError("a response format and a tool that must be called exclude each other")
        several = not required if call.parallel_tool_calls is None else call.parallel_tool_calls
        special = self._special if call.special is None else call.special
        messages = await self.quoted(without_headers(call.messages), special)
        shown = tools if special else await self._quoter.quoted_tools(tools)
        call = replace(call, parallel_tool_calls=several, messages=messages)

        adapter = self._adapter if call.adapter is None else Adapter.from_mapping(call.adapter)
        bound = required or (call.grammar is not None and not tools)

        forms: list[_Written] = []

        async def write(messages: Messages) -> _Written:
            turn = replace(call, messages=tuple(messages))
            found = await self._from_template(turn, shown, bound, render) if adapter is None else None
            if found is None:
                tags = self._fallback if adapter is None else adapter
                found = _Written(self._from_adapter(tags, turn, shown), HERMES, tags.stop)
            forms.append(found)
            return found

        fitting: dict[str, bool] = {}

        async def fits(written: _Written) -> bool:
            text = call.memory + written.text
            if text not in fitting:
                fitting[text] = base.whole_only or await self._fits(text, base)
            return fitting[text]

        written = await fit(call.messages, write, fits)
        continued = _continued(call)
        text = written.text
        if bound:
            text = self._family.close(text, continued, tools=required)
        prompt = self._prompt(text, call.memory)
        if not await fits(written):
            prompt = await self._keeping_beginning(prompt, call, write, base)
        sent_tokens = 0
        if self._sizes is not None and written is not forms[0]:
            sent_tokens = await self._sizes.size(call.memory + forms[0].text)
        format = HERMES if required and written.format.spelling is None else written.format
        chosen = [tool for tool in tools if call.tool_choice.admits(tool)]
        grammar: Grammar | None = call.grammar
        if tools:
            grammar = format.grammar(chosen, required=required, several=several and named is None)
        tagged = bool(tools) or self._thinks
        request = replace(
            base,
            prompt=prompt,
            sent_tokens=sent_tokens,
            stop=tuple(dict.fromkeys((*base.stop, *written.stop))),
            trim_stop=True,
            render_special=base.render_special or tagged,
            grammar=grammar,
            thinking=None if bound else self._budget(call, base, bool(tools)),
        )

        def new_reader() -> TurnReader:
            return TurnReader(
                self._family.splitter(
                    text,
                    continued,
                    keep_tags=not call.split_reasoning,
                    tools=bool(tools) and format in (HARMONY, FUNCTIONARY),
                ),
                ToolCallParser(format, tools) if tools else None,
                split_reasoning=call.split_reasoning,
                hidden_ends=self._hidden_ends if tagged and not base.render_special else (),
            )

        return ChatPlan(request, new_reader)

    def _marks(self, names: Iterable[str]) -> frozenset[str]:
        """Control tokens round thoughts and calls, which an assistant's message may hold."""
        family, format = self._family, HERMES if self._format is None else self._format
        marks = "\n".join(
            (
                *(family.opening, family.closing, *family.silent),
                *(*format.openers, *format.closers, *format.sections),
            )
        )
        return frozenset(name for name in names if name in marks) - self._hidden_ends

    async def quoted(self, messages: Messages, special: bool | None = None) -> Messages:
        """The messages as prompts have them: with marks where they spell control tokens, unless `special`."""
        if self._special if special is None else special:
            return messages
        return await self._quoter.quoted(messages)

    async def _fits(self, text: str, base: GenerationRequest) -> bool:
        """Whether a prompt leaves room for the reply."""
        return await self._has_at_most(text, self._room(base))

    async def _has_at_most(self, text: str, tokens: int) -> bool:
        # No token has less than a byte, but a BOS that the tokenizer puts in front.
        return (
            self._sizes is None
            or len(text.encode("utf-8", "replace")) < tokens
            or await self._sizes.fits(text, tokens)
        )

    def _room(self, base: GenerationRequest) -> int:
        """Tokens of the prompt that leave room for the reply."""
        context = self._context(base)
        return max(_LEAST_ROOM, context - base.reply_room(context))

    async def _keeping_beginning(
        self,
        prompt: TextPrompt,
        call: ChatCall,
        write: Callable[[Messages], Awaitable["_Written"]],
        base: GenerationRequest,
    ) -> TextPrompt:
        """A prompt that is too long, of which the beginning of the system prompt stays when it is cut.

        As much of the system prompt stays as half of the room holds.
        """
        first = next(
            (at for at, message in enumerate(call.messages) if message.get("role") not in SYSTEM), None
        )
        if not first or prompt.memory:
            return prompt
        other = await write((*call.messages[:first], {"role": "user", "content": _OTHER}))
        pairs = zip(prompt.text, other.text, strict=False)
        length = next((at for at, (one, two) in enumerate(pairs) if one != two), 0)
        most = self._room(base) // 2
        low, high = 0, length + 1
        while low + 1 < high:
            middle = (low + high) // 2 if high <= length else length
            if await self._has_at_most(prompt.text[:middle], most):
                low = middle
            else:
                high = middle
        return TextPrompt(prompt.text[low:], prompt.text[:low])

    async def _from_template(
        self, call: ChatCall, tools: tuple[Tool, ...], bound: bool, render: Render
    ) -> "_Written | None":
        """The prompt that the model's template writes; None where it has none or refuses."""
        if not self._has_template:
            return None
        messages: Messages = call.messages
        if self._format is None:
            told = describe_tools(tools, call.parallel_tool_calls is not False) if tools else ""
            messages = write_tools(messages, told, keep_results=False)
        elif self._short_ids:
            messages = shorten_ids(messages)
        prompt = ChatPrompt(
            messages=messages,
            tools=template_tools(tools) if self._format is not None else (),
            template_args=_template_args(call, bound),
            continue_last=call.continue_last,
        )
        try:
            text = await render(prompt)
        except TemplateCostError:
            # An adapter could answer, but every message would cost as much again.
            raise
        except (RequestError, ModelFileError) as error:
            level = logging.INFO if self._warned else logging.WARNING
            self._warned = True
            logger.log(level, "the tags of an adapter write the prompt: %s", error)
            return None
        return _Written(text, HERMES if self._format is None else self._format)

    @staticmethod
    def _from_adapter(adapter: Adapter, call: ChatCall, tools: tuple[Tool, ...]) -> str:
        messages: Messages = call.messages
        if tools:
            told = describe_tools(tools, call.parallel_tool_calls is not False)
            messages = write_tools(messages, told, keep_results=True)
        return adapter.prompt(messages, call.continue_last)

    def _prompt(self, text: str, memory: str) -> TextPrompt:
        """A BOS that the template writes stays in front, also of memory."""
        bos = self._info.bos_token
        if memory and bos and text.startswith(bos):
            return TextPrompt(text.removeprefix(bos), bos + memory)
        return TextPrompt(text, memory)

    def _context(self, base: GenerationRequest) -> int:
        """Tokens that prompt and reply may span."""
        context = self._info.context_length
        return context if base.context_length is None else min(context, base.context_length)

    def _budget(self, call: ChatCall, base: GenerationRequest, tools: bool) -> ThinkingBudget | None:
        longest = min(base.max_tokens, self._context(base))
        tokens = thinking_tokens(call.reasoning_effort, call.thinking_budget, longest)
        return None if tokens is None else self._family.budget(tokens, tools=tools)


@dataclass(frozen=True, slots=True)
class _Written:
    """A prompt's text, how a reply to it calls tools, and what ends the reply."""

    text: str
    format: ToolFormat
    stop: tuple[str, ...] = ()


def _offered(call: ChatCall) -> tuple[Tool, ...]:
    """The tools that the model is told of, if any of them may be called.

    Raises `RequestError` as `ChatPlanner.plan` says.
    """
    choice = call.tool_choice
    if choice.mode is ToolMode.NONE:
        return ()
    if not call.tools and (choice.mode is ToolMode.REQUIRED or choice.name is not None):
        raise RequestError("tool_choice asks for a call, but there are no tools")
    if len(call.tools) > MAX_TOOLS:
        raise RequestError(f"there are {len(call.tools)} tools; at most {MAX_TOOLS} are accepted")
    for tool in call.tools:
        if _NAME.fullmatch(tool.name) is None:
            raise RequestError(
                f"bad tool name {tool.name[:100]!r}: up to 128 letters, digits and . _ - / : are allowed"
            )
        _check_schema(tool)
    if choice.name is not None and choice.name not in {tool.name for tool in call.tools}:
        raise RequestError(f"tool_choice names the tool {choice.name[:100]!r}, which is not among the tools")
    if any(map(choice.admits, call.tools)):
        return call.tools
    if choice.mode is ToolMode.REQUIRED:
        raise RequestError("tool_choice asks for a call, but allows none of the tools")
    return ()


def _check_schema(tool: Tool) -> None:
    """Raises `RequestError` for parameters that are no JSON or nested beyond reason."""
    level: Sequence[Any] = [tool.parameters]
    for _ in range(MAX_SCHEMA_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            break
    else:
        raise RequestError(
            f"the parameters of tool {tool.name!r} are nested more than {MAX_SCHEMA_DEPTH} deep"
        )
    try:
        json.dumps(tool.parameters if isinstance(tool.parameters, dict) else dict(tool.parameters))
    except (TypeError, ValueError):
        raise RequestError(f"the parameters of tool {tool.name!r} are not JSON") from None


def _children(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list | tuple) else ()


def _template_args(call: ChatCall, bound: bool) -> dict[str, Any]:
    """Variables for the template; the client's own win."""
    arguments: dict[str, Any] = {}
    if call.reasoning_effort:
        arguments["reasoning_effort"] = call.reasoning_effort
    if bound or call.reasoning_effort == "none":
        arguments["enable_thinking"] = False
    return arguments | dict(call.template_args)


def _continued(call: ChatCall) -> str:
    """The beginning of the reply, where the last message is the assistant's and goes on."""
    if not call.continue_last or not call.messages or call.messages[-1].get("role") != "assistant":
        return ""
    return text_of(call.messages[-1], len(call.messages) - 1) or ""
