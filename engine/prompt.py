"""Makes the token ids of a prompt, and fits them to the context.

The rules are KoboldCpp's: memory stays whole, the oldest part of the prompt goes first; but whether a BOS
token comes in front is for the model's file to say.
"""

from dataclasses import replace

from engine.errors import ContextOverflowError, RequestError
from engine.templates.pool import TemplatePool
from engine.tokenizer import Tokenizer
from engine.types import ChatPrompt, GenerationRequest, SamplingParams, TextPrompt, TokenPrompt

_MEMORY_RESERVE = 4
_COUNTED = 1 << 18
"""Characters of a prompt that is counted as a whole where it does not fit: some 60 ms of work."""


class PromptEncoder:
    """Turns requests into requests with token ids. Safe in several threads.

    `templates` renders chats; None stands for the processes that all share.
    """

    def __init__(
        self, tokenizer: Tokenizer, context_length: int, templates: TemplatePool | None = None
    ) -> None:
        self._templates = templates
        self._tokenizer = tokenizer
        self._vocab_size = tokenizer.vocab_size
        self._context_length = context_length

    def prepare(self, request: GenerationRequest) -> GenerationRequest:
        """The request with a `TokenPrompt`, and with limits that the context can keep.

        Raises `RequestError` for token ids that the model does not have, `ContextOverflowError` for a prompt
        that does not fit and may not be cut, and for chat messages what `render` raises.
        """
        context = self._context_length
        if request.context_length is not None:
            context = min(context, max(2, request.context_length))
        prompt, room = request.prompt, context - request.reply_room(context)
        if isinstance(prompt, ChatPrompt):
            prompt = TextPrompt(self.render(prompt))
        whole = self._encode(prompt, room)
        ids = self._cut(whole, room)
        sent = max(request.sent_tokens, sum(map(len, whole)))
        if len(ids) < sent and not request.sent_tokens:
            sent = max(sent, self._size(prompt))
        if request.whole_only and sent > room:
            raise ContextOverflowError(sent, context)
        return replace(
            request,
            prompt=TokenPrompt(tuple(ids)),
            sent_tokens=sent,
            max_tokens=request.reply_length(context, len(ids)),
            sampling=self._known_biases(request.sampling),
        )

    def render(self, chat: ChatPrompt) -> str:
        """The text that the model's chat template makes of messages. Raises as `ChatTemplate.render` does."""
        template = self._tokenizer.chat_template
        if template is None:
            template = self._tokenizer.fallback_chat_template()
        return template.render(
            chat.messages,
            add_generation_prompt=chat.open_reply,
            continue_last=chat.continue_last,
            tools=chat.tools,
            arguments=chat.template_args,
            pool=self._templates,
        )

    def _encode(self, prompt: TextPrompt | TokenPrompt, room: int) -> tuple[list[int], list[int]]:
        """Token ids of memory and text; of long ones more than `room` of the newest."""
        if isinstance(prompt, TokenPrompt):
            ids = list(prompt.ids)
            if any(not 0 <= token < self._vocab_size for token in ids):
                raise RequestError(f"token ids must lie between 0 and {self._vocab_size - 1}")
            return [], ids
        memory = self._tokenizer.encode_end(prompt.memory, room) if prompt.memory else []
        return memory, self._tokenizer.encode_end(prompt.text, room, add_bos=False if memory else None)

    def _cut(self, whole: tuple[list[int], list[int]], room: int) -> list[int]:
        memory, ids = whole
        if len(memory) + len(ids) > room:
            memory = self._keep_newest(memory, room - _MEMORY_RESERVE) if memory else []
            rest = room - len(memory)
            ids = ids[max(0, len(ids) - rest) :] if memory else self._keep_newest(ids, rest)
        # Even an empty prompt needs a token whose logits say how to begin.
        return memory + ids or [self._first_token()]

    def _size(self, prompt: TextPrompt | TokenPrompt) -> int:
        """Tokens of a whole prompt; of texts beyond `_COUNTED` characters by those of their ends."""
        if isinstance(prompt, TokenPrompt):
            return len(prompt.ids)
        size = 0
        for text in filter(None, (prompt.memory, prompt.text)):
            counted = text[-_COUNTED:]
            size += len(self._tokenizer.encode(counted)) * len(text) // len(counted)
        return size

    def _keep_newest(self, ids: list[int], count: int) -> list[int]:
        """The last `count` ids; a BOS at the front keeps its place."""
        count = max(1, count)
        if len(ids) <= count:
            return ids
        kept = ids[len(ids) - count :]
        if ids[0] == self._tokenizer.bos_id and self._tokenizer.add_bos:
            kept[0] = ids[0]
        return kept

    def _first_token(self) -> int:
        for token in (self._tokenizer.bos_id, self._tokenizer.eos_id):
            if token is not None:
                return token
        return 0

    def _known_biases(self, sampling: SamplingParams) -> SamplingParams:
        """With biases of tokens alone, and of the model's own; KoboldCpp skips others."""
        if not sampling.logit_bias and not sampling.text_bias:
            return sampling
        biases = {token: bias for token, bias in sampling.logit_bias if 0 <= token < self._vocab_size}
        for text, bias in sampling.text_bias:
            biases |= dict.fromkeys(self._tokenizer.encode(text, add_bos=False), bias)
        return replace(sampling, logit_bias=tuple(biases.items()), text_bias=())
