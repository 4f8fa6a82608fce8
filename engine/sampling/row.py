"""What the engine asks of the sampler, and what it gets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.types import TokenLogprob


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence that wants a token.

    `tokens`: the whole context so far, prompt and reply. `banned`: never at this position, whatever the
    biases say. `allowed`: uint32 [ceil(vocab / 32)], token i may come if bit i % 32 of word i // 32 is
    set; None allows all. `forced`: this very token comes, whatever the logits say, and no random number
    is drawn for it.
    """

    request_id: str
    tokens: Sequence[int]
    banned: frozenset[int] = frozenset()
    allowed: npt.NDArray[np.uint32] | None = None
    forced: int | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """A token, and how likely it and others were if the request asks for that."""

    token: int
    logprobs: TokenLogprob | None = None


NO_DRAW = Draw(-1)
"""What logits come to that are no numbers: there is no token."""


class NotFiniteError(ArithmeticError):
    """A model's logits hold NaN or infinity, or exclude every token: nothing can be drawn from them."""
