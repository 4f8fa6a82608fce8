"""The messages that pass between the server and the engine.

All are frozen and picklable, so that the worker thread can become a process without touching
either side. Nothing here knows HTTP, torch or a tokenizer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FinishReason(StrEnum):
    """Why a generation ended."""

    EOS = "eos"
    """The model made an end-of-generation token."""
    STOP = "stop"
    """A stop string, or a stop string that is one special token, was met."""
    LENGTH = "length"
    """The token limit or the end of the context was reached."""
    ABORT = "abort"
    """Somebody asked for the end."""
    ERROR = "error"
    """The engine failed, or refuses to go on with this request; `Event.error` says why."""


class Sampler(StrEnum):
    """The stages of the sampler chain, in KoboldCpp's numbering where it has one."""

    TOP_K = "top_k"
    TOP_A = "top_a"
    TOP_P = "top_p"
    TFS = "tfs"
    TYPICAL = "typical"
    TEMPERATURE = "temperature"
    REP_PEN = "rep_pen"


DEFAULT_SAMPLER_ORDER = (
    Sampler.REP_PEN,
    Sampler.TOP_K,
    Sampler.TOP_A,
    Sampler.TFS,
    Sampler.TYPICAL,
    Sampler.TOP_P,
    Sampler.TEMPERATURE,
)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. The defaults are neutral: plain sampling from the model.

    No number is NaN; all but seeds and counts may be infinite, which means what large ones come to.
    `temperature` <= 1e-8 is greedy. `top_k` < 1, `top_p` >= 1, `min_p` <= 0, `top_a` <= 0, `tfs` >= 1,
    `typical` >= 1, `nsigma` <= 0 and `rep_pen` == 1 are off. `rep_pen_range` counts tokens at the end of the
    context; `rep_pen_slope` in (0, 1] weakens the penalty for the older half of them. `presence_penalty` is
    subtracted once from each token seen in that window, `frequency_penalty` once per occurrence.
    `dynatemp_range` != 0 lets the temperature follow the entropy; `smoothing_factor` <= 0 is off.
    `mirostat` 1 or 2 takes the place of the chain. `dry_multiplier` <= 0, `xtc_probability` <= 0,
    `xtc_threshold` > 0.5 and `adaptive_target` <= 0 are off; `dry_penalty_last_n` <= 0 looks at the whole
    context. `logit_bias` maps token ids to what is added to their logits, `text_bias` texts to what is added
    to the logits of each of their tokens. `seed` None draws a fresh one.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    top_a: float = 0.0
    tfs: float = 1.0
    typical: float = 1.0
    nsigma: float = 0.0
    rep_pen: float = 1.0
    rep_pen_range: int = 320
    rep_pen_slope: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    smoothing_factor: float = 0.0
    smoothing_curve: float = 1.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 320
    dry_sequence_breakers: tuple[str, ...] = ()
    xtc_threshold: float = 0.2
    xtc_probability: float = 0.0
    adaptive_target: float = -1.0
    adaptive_decay: float = 0.9
    logit_bias: tuple[tuple[int, float], ...] = ()
    text_bias: tuple[tuple[str, float], ...] = ()
    order: tuple[Sampler, ...] = DEFAULT_SAMPLER_ORDER
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class GbnfGrammar:
    """What the whole reply must be, in llama.cpp's grammar notation with a rule `root`."""

    text: str


@dataclass(frozen=True, slots=True)
class JsonGrammar:
    """The whole reply is JSON that a schema admits."""

    schema: str
    """A JSON schema as JSON text; `{}` admits any value."""


@dataclass(frozen=True, slots=True)
class Tag:
    """`begin`, JSON that `schema` (JSON text) admits, `end`.

    Of a schema that no grammar can hold, the parts that one can count. `name`: what the log calls the tag.
    """

    begin: str
    schema: str
    end: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class TaggedGrammar:
    """Free text in which, from `trigger` on, one of the tags must follow; the way of tool calls.

    Every tag's `begin` starts with the trigger. `required`: the reply is tags and nothing else, at least
    one of them. `several`: more than one tag may come, else the reply ends with the first.
    """

    trigger: str
    tags: tuple[Tag, ...]
    required: bool = False
    several: bool = True


Grammar = GbnfGrammar | JsonGrammar | TaggedGrammar


@dataclass(frozen=True, slots=True)
class ThinkingBudget:
    """At most `tokens` tokens of thought; then `closing` is written in the model's place.

    Thought begins with `opening`, in the prompt or in the reply, and ends with `end`, which `closing` holds.
    """

    tokens: int
    opening: str = "<think>"
    end: str = "</think>"
    closing: str = "\n(Reasoning budget exceeded)\n</think>"


QUOTE = "\ufdd0"
"""Behind the first character of a control token's name in a prompt, it makes the name plain text.

One of the code points that mean no character; it is no part of the prompt itself.
"""


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Text to continue. `memory` is put in front and survives when an over-long `text` is cut."""

    text: str
    memory: str = ""


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids to continue, used as they are (BOS included where the model wants one)."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Messages for the model's own chat template: plain dicts with `role`, `content`, ...

    `continue_last`: a last message of the assistant is continued rather than answered. `open_reply`: the
    prompt ends with the beginning of a reply.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    template_args: Mapping[str, Any] = field(default_factory=dict)
    continue_last: bool = True
    open_reply: bool = True


Prompt = TextPrompt | TokenPrompt | ChatPrompt


UNTIL_END = 2**31 - 1
"""As `max_tokens`: as many as the context holds behind the whole prompt."""

_PROMPT_RESERVE = 16
"""Tokens of the context that a reply may not take away from the prompt."""
_REPLY_PART = 4
"""The part of the context, one in so many, that a prompt which goes first leaves to the reply."""
_REPLY_RESERVE = 16
"""Tokens of the context that the prompt may not take away from a reply that goes on to the end."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation, as every dialect says it to the engine.

    `max_tokens` is clamped to what the context leaves; <= 0 asks for nothing and gets empty text, `UNTIL_END`
    ends with the context at the latest.
    `context_length` lowers the model's context for this request. Prompts that do not fit lose their
    oldest part. `stop` strings end the text, which keeps the string unless `trim_stop`.
    `ban_eos` never lets an end token be drawn; `ignore_eos` lets it be drawn, hides it and goes on.
    `render_special` shows the text of special tokens. `banned_phrases` never appear in the text, in
    whatever case: the sequence goes back and takes another way. `logprobs`: so many alternatives are
    reported with each token (0: the token alone); None reports nothing. Probabilities are the model's own,
    or with `final_logprobs` those behind all samplers. `client`: who asks; crowded steps are shared fairly
    among clients, and all that say nothing are one. `theta`: whether theta counts; None leaves it to the
    engine. `prompt_logprobs`: the model's own probabilities are reported of the prompt's tokens, too, if
    `logprobs` is set. `prompt_first`: where the context does not hold both, the reply is shortened before the
    prompt is. `whole_only`: a prompt that does not fit is refused instead of cut. `sent_tokens`: those of the
    prompt before parts of it were left out; 0: of `prompt`. `report_progress`: after each step that reads a
    part of the prompt an event says how far it is.
    """

    request_id: str
    prompt: Prompt
    max_tokens: int
    sampling: SamplingParams = SamplingParams()
    context_length: int | None = None
    stop: tuple[str, ...] = ()
    trim_stop: bool = True
    ban_eos: bool = False
    ignore_eos: bool = False
    render_special: bool = False
    grammar: Grammar | None = None
    banned_phrases: tuple[str, ...] = ()
    logprobs: int | None = None
    final_logprobs: bool = False
    thinking: ThinkingBudget | None = None
    client: str = ""
    theta: bool | None = None
    prompt_logprobs: bool = False
    prompt_first: bool = False
    whole_only: bool = False
    report_progress: bool = False
    sent_tokens: int = 0

    def reply_room(self, context: int) -> int:
        """Tokens of a context of so many that are kept for the reply when the prompt is cut to fit."""
        if self.whole_only or (self.max_tokens >= UNTIL_END and not self.prompt_first):
            return max(0, min(self.max_tokens, _REPLY_RESERVE, context // 2))
        room = max(0, min(self.max_tokens, context - max(1, min(context - 4, _PROMPT_RESERVE))))
        return min(room, max(1, context // _REPLY_PART)) if self.prompt_first else room

    def reply_length(self, context: int, prompt: int) -> int:
        """Most tokens of the reply to a prompt of so many, which was cut to fit a context of so many."""
        if self.whole_only or self.prompt_first or self.max_tokens >= UNTIL_END:
            return min(self.max_tokens, context - prompt)
        return min(self.max_tokens, self.reply_room(context))


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability."""

    token_id: int
    raw: bytes
    """What the token adds to the text; not always whole characters."""
    logprob: float
    """NaN for the first token of a prompt, which nothing stands in front of."""
    alternatives: tuple["TokenLogprob", ...] = ()
    """The likeliest tokens at this place, the chosen one included where it is among them."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one finished generation cost. Times are seconds of wall clock."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt tokens, those whose keys and values came from an earlier request."""
    prompt_seconds: float = 0.0
    """From the first step that worked on the request to its first token."""
    decode_seconds: float = 0.0
    """From its first token to its last."""
    seed: int = -1
    left_out_tokens: int = 0
    """Tokens that the client sent and the context could not hold."""

    def left_out(self, name: str) -> dict[str, int]:
        """These as a field of that name, if there are any."""
        return {name: self.left_out_tokens} if self.left_out_tokens else {}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a prompt has been read, in tokens, and for how many seconds it has been in work."""

    total: int
    cached: int
    read: int
    """The cached ones included."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Event:
    """News of one request. The last event of a request has `finish` and `usage` set.

    `text` is decided text, never half a character and never the beginning of a stop string that may
    still be cut. The texts of all events of a request, joined, are the reply.
    """

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of `token_ids`, if the request asks for them."""
    finish: FinishReason | None = None
    usage: Usage | None = None
    error: str | None = None
    refused: bool = False
    """Whether the error is the request's own: it takes too much, and others go on."""
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """One for each token of the prompt, all in one event, if the request asks for them."""
    progress: Progress | None = None
    """While the prompt is read, if the request asks for it."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What clients may ask about the loaded model."""

    name: str
    """File name without extension."""
    architecture: str
    quantization: str
    """The commonest tensor type of the file, for example `Q4_1`."""
    parameters: int
    context_length: int
    """The context that the server runs with, in tokens."""
    trained_context_length: int
    vocab_size: int
    chat_template: str | None
    bos_token: str
    eos_token: str
    control_tokens: tuple[str, ...] = ()
    """Names that a prompt's text spells them by."""


@dataclass(frozen=True, slots=True)
class Backend:
    """What the model computes with."""

    device: str
    """`cpu` or `cuda:N`; of a split model all of them with their layers, `cpu=9,cuda:0=24`."""
    kernels: str
    """`avx2`, `portable`, `reference`, `triton`, ...; of a split model several, joined by `+`."""
    threads: int
    """Threads of the processor that compute."""


@dataclass(frozen=True, slots=True)
class ThetaStatus:
    """Theta of the loaded model."""

    enabled: bool
    gamma: float
    rank: int
    """The largest of all tensors."""
