"""Token probabilities in the shapes that clients know."""

import codecs
import math
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from engine.types import TokenLogprob

LOWEST = -9999.0
"""What is written for a probability of zero, whose logarithm JSON cannot say."""


def chat_logprobs(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """OpenAI's form for chats, the value of `content`; with KoboldCpp's `token_id` beside it."""
    return [
        _entry(token) | {"top_logprobs": [_entry(other) for other in token.alternatives]} for token in tokens
    ]


def completion_logprobs(tokens: Iterable[TokenLogprob], offset: int = 0) -> dict[str, Any]:
    """OpenAI's older form for completions. `offset`: characters of the text in front of the first token."""
    listed = list(tokens)
    offsets = []
    for token in listed:
        offsets.append(offset)
        offset += len(_text(token))
    return _older(listed, offsets)


def echo_logprobs(tokens: Iterable[TokenLogprob], length: int) -> dict[str, Any]:
    """The same for a prompt that is given back, of `length` characters, which the tokens end together with.

    They may be fewer than the text, which was cut to fit, or more, with a BOS or memory in front: those lie
    at its beginning. The first token has no probability: null.
    """
    listed = list(tokens)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    ends = list(accumulate(len(decoder.decode(token.raw)) for token in listed))
    total = ends[-1] + len(decoder.decode(b"", final=True)) if ends else 0
    return _older(listed, [max(0, length - total + end) for end in [0, *ends[:-1]]][: len(listed)])


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two of the older form, one behind the other."""
    return {name: first[name] + second[name] for name in first}


def _older(listed: list[TokenLogprob], offsets: list[int]) -> dict[str, Any]:
    return {
        "tokens": [_text(token) for token in listed],
        "token_logprobs": [_finite(token.logprob) for token in listed],
        "top_logprobs": [
            None
            if math.isnan(token.logprob)
            else {_text(other): _finite(other.logprob) for other in token.alternatives}
            for token in listed
        ],
        "text_offset": offsets,
    }


def kobold_logprobs(tokens: tuple[TokenLogprob, ...]) -> dict[str, Any] | None:
    """KoboldCpp's object: both of OpenAI's forms in one. None if there is nothing to tell."""
    if not tokens:
        return None
    ids = {"token_ids": [token.token_id for token in tokens]}
    return {"content": chat_logprobs(tokens)} | completion_logprobs(tokens) | ids


def _entry(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": _text(token),
        "token_id": token.token_id,
        "logprob": _finite(token.logprob),
        "bytes": list(token.raw),
    }


def _text(token: TokenLogprob) -> str:
    return token.raw.decode(errors="replace")


def _finite(logprob: float) -> float | None:
    if math.isnan(logprob):
        return None
    return logprob if math.isfinite(logprob) else LOWEST
