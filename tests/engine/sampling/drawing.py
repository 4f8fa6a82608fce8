"""A sampler over 64 words, as the engine calls it, for tests of the samplers."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engine.sampling import Draw, Row, Sampler
from engine.types import SamplingParams
from tests.engine.sampling.rows import request

VOCABULARY = 64
END = 2


class Words:
    """A tokenizer of 64 words, the third of which ends a reply."""

    vocab_size = VOCABULARY
    end_ids = frozenset({END})

    def piece(self, token_id: int, *, render_special: bool) -> bytes:
        assert render_special
        return b"w%d" % token_id

    def encode(self, text: str, *, add_bos: bool) -> list[int]:
        return [len(text) % VOCABULARY]


def make_sampler(*requests: Any) -> Sampler:
    words: Any = Words()
    sampler = Sampler(words)
    for one in requests:
        sampler.prepare(one)
        sampler.add(one)
    return sampler


def noise(seed: int, count: int = 1, spread: float = 2.0) -> torch.Tensor:
    return spread * torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def mask(*tokens: int) -> npt.NDArray[np.uint32]:
    words = [sum(1 << token % 32 for token in tokens if token // 32 == word) for word in range(2)]
    return np.array(words, np.uint32)


def draw(logits: torch.Tensor, params: SamplingParams, row: Row | None = None, **others: Any) -> Draw:
    sampler = make_sampler(request(params, **others))
    return sampler.sample(logits[None], [Row("x", [1, 4]) if row is None else row])[0]
