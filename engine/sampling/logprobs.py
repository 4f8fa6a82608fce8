"""How likely a token and its alternatives were, as a reply tells it."""

from collections.abc import Callable, Iterable

import numpy as np

from engine.sampling.candidates import MAX_CANDIDATES
from engine.sampling.selection import Selection
from engine.sampling.vocabulary_logits import VocabularyLogits
from engine.types import TokenLogprob

PieceOf = Callable[[int], bytes]
"""The bytes of a token, special ones shown."""

LEAST = -9999.0
"""In place of minus infinity, which JSON cannot say."""
LEAST_FINAL = float(np.log(0.0001))
"""The least that is told of probabilities behind the samplers, as KoboldCpp has it."""


def model_logprobs(raw: VocabularyLogits, token: int, count: int, piece: PieceOf) -> TokenLogprob:
    """The log-softmax of the model's own logits, for the token and the `count` likeliest."""
    total = raw.log_total()
    own = float(raw.take(np.array([token]))[0]) - total
    best = raw.best(min(count, MAX_CANDIDATES))() if count > 0 else None
    pairs: Iterable[tuple[int, float]] = ()
    if best is not None:
        pairs = zip(best.ids.tolist(), (best.logits.astype(np.float64) - total).tolist(), strict=True)
    return told_logprob(token, own, pairs, piece)


def final_logprobs(selection: Selection, count: int, piece: PieceOf) -> TokenLogprob:
    """The logarithms of the probabilities behind all samplers, for the token and up to `count` left ones."""
    ids = selection.candidates.ids[: max(0, count)].tolist()
    log_p = selection.candidates.log_probabilities()
    own = float(log_p[selection.index])
    return told_logprob(selection.token, own, zip(ids, log_p.tolist(), strict=False), piece, LEAST_FINAL)


def told_logprob(
    token: int, own: float, others: Iterable[tuple[int, float]], piece: PieceOf, least: float = LEAST
) -> TokenLogprob:
    """A token's logarithm and those of its alternatives, none below `least`."""
    # not a number: the logits of a model that excludes every token have no logarithm to subtract
    return TokenLogprob(
        token,
        piece(token),
        own if own > least else least,
        tuple(TokenLogprob(other, piece(other), p if p > least else least) for other, p in others),
    )
