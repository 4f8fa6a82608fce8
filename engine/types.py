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
    """The engine failed; `Event.error` says how."""


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

    `temperature` <= 0 is greedy. `top_k` < 1, `top_p` >= 1, `min_p` <= 0 and `rep_pen` == 1 are off.
    `rep_pen_range` counts tokens at the end of the context; `rep_pen_slope` in (0, 1] weakens the
    penalty for the older half of them. `presence_penalty` is subtracted once from each token seen in
    that window, `frequency_penalty` once per occurrence. `logit_bias` maps token ids to what is added
    to their logits. `seed` None draws a fresh one.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    rep_pen: float = 1.0
    rep_pen_range: int = 320
    rep_pen_slope: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    order: tuple[Sampler, ...] = DEFAULT_SAMPLER_ORDER
    seed: int | None = None


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

    `continue_last`: a last message of the assistant is continued rather than answered.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    template_args: Mapping[str, Any] = field(default_factory=dict)
    continue_last: bool = True


Prompt = TextPrompt | TokenPrompt | ChatPrompt


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation, as every dialect says it to the engine.

    `max_tokens` is clamped to what the context leaves; <= 0 asks for nothing and gets empty text.
    `context_length` lowers the model's context for this request. Prompts that do not fit lose their
    oldest part. `stop` strings end the text, which keeps the string unless `trim_stop`.
    `ban_eos` never lets an end token be drawn; `ignore_eos` lets it be drawn, hides it and goes on.
    `render_special` shows the text of special tokens.
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


@dataclass(frozen=True, slots=True)
class Event:
    """News of one request. The last event of a request has `finish` and `usage` set.

    `text` is decided text, never half a character and never the beginning of a stop string that may
    still be cut. The texts of all events of a request, joined, are the reply.
    """

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish: FinishReason | None = None
    usage: Usage | None = None
    error: str | None = None


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
