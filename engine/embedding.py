"""The messages that pass between the server and the engine when a vector is wanted instead of text.

Frozen and picklable, like those of `engine.types`. Nothing here knows HTTP, torch or a tokenizer.
"""

from dataclasses import dataclass
from typing import Literal

Pooling = Literal["mean", "last"]
"""How one vector comes of the hidden states: the mean over all tokens, or that of the last token."""


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """One text, as token ids used as they are, for which a vector is wanted.

    `truncate`: an input longer than the context loses its end, rather than being refused. `client`: who asks,
    as in `GenerationRequest`.
    """

    request_id: str
    ids: tuple[int, ...]
    pooling: Pooling = "mean"
    truncate: bool = True
    client: str = ""


@dataclass(frozen=True, slots=True)
class Embedding:
    """The answer to one `EmbeddingRequest`, the first and the last that comes."""

    request_id: str
    prompt_tokens: int
    """Tokens of the input, those that were cut off not counted."""
    vector: bytes | None
    """float32, little-endian, of the model's width and of length 1 in the sense of L2 (all 0 if the hidden
    states are); None for a request that was aborted or failed."""
    error: str | None = None
    """Why it failed; None for an abort, and where there is a vector."""
