"""The sampler under the engine's former calls as well."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from engine.sampling.row import Row
from engine.sampling.sampler import Sampler as _Sampler
from engine.types import GenerationRequest


class Sampler(_Sampler):
    """`_Sampler`, which also takes end ids for a tokenizer, and (request id, tokens) for rows."""

    def __init__(self, tokenizer: Any, pieces: Any = None) -> None:
        self._former = isinstance(tokenizer, frozenset)
        if self._former:
            tokenizer = SimpleNamespace(end_ids=tokenizer, piece=lambda token, **_: b"", vocab_size=0)
        super().__init__(tokenizer, pieces)

    def add(self, request: GenerationRequest) -> None:
        """See `_Sampler.add`; without a tokenizer there are no breakers."""
        if self._former:
            request = replace(request, sampling=replace(request.sampling, dry_sequence_breakers=()))
        super().add(request)

    def sample(self, logits: torch.Tensor, rows: Sequence[Any]) -> list[Any]:
        """See `_Sampler.sample`; the former rows get token ids."""
        if not self._former:
            return super().sample(logits, rows)
        return [draw.token for draw in super().sample(logits, [Row(name, tokens) for name, tokens in rows])]
