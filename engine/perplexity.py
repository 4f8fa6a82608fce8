"""Perplexity by llama.cpp's definition, so that figures can be checked against another program.

The text is tokenised once with the model's own BOS rule and cut into windows. Each window is evaluated
on its own, its first token replaced by BOS where the model adds one, and only the second half of it is
scored: every token there but the first is predicted from all that stand in front of it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from engine.engine import Engine
from engine.errors import RequestError


@dataclass(frozen=True, slots=True)
class Perplexity:
    """The result over the windows so far.

    `perplexity` = exp(mean negative log likelihood); `error` is its standard error; `tokens` are the
    scored ones.
    """

    perplexity: float
    error: float
    windows: int
    total_windows: int
    tokens: int
    context: int


def measure_perplexity(
    engine: Engine, text: str, *, context: int = 512, windows: int | None = None
) -> Iterator[Perplexity]:
    """Yield the result after each window; the last one is the answer.

    `windows`: at most so many, from the start of the text; None: all. Raises `RequestError` for a text
    shorter than one window and for a window that the engine cannot hold.
    """
    if not 8 <= context <= engine.info.context_length:
        raise RequestError(f"windows must have 8 to {engine.info.context_length} tokens, not {context}")
    tokenizer = engine.tokenizer
    ids = tokenizer.encode(text)
    total = len(ids) // context
    if windows is not None:
        total = min(total, windows)
    if total < 1:
        raise RequestError(f"the text has {len(ids)} tokens; one window needs {context}")
    half = context // 2
    count, losses, squares = 0, 0.0, 0.0
    for number in range(total):
        window = ids[number * context : (number + 1) * context]
        if tokenizer.add_bos and tokenizer.bos_id is not None:
            window[0] = tokenizer.bos_id
        loss = -engine.log_likelihoods(window, half + 1).double()
        count += len(loss)
        losses += float(loss.sum())
        squares += float((loss * loss).sum())
        yield _result(count, losses, squares, number + 1, total, context)


def _result(count: int, losses: float, squares: float, windows: int, total: int, context: int) -> Perplexity:
    mean = losses / count
    variance = max(0.0, squares / count - mean * mean)
    perplexity = math.exp(mean)
    error = perplexity * math.sqrt(variance / max(1, count - 1))
    return Perplexity(perplexity, error, windows, total, count, context)
