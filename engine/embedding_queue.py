"""Inputs that wait for their vector, and what has been pooled of the one under way. Knows no torch.

One input at a time is a sequence among the others in the scheduler: it takes its turn, shares the token
budget and may be preempted like them, and however many inputs wait, a generation that arrives later finds
no more than one in front of it. Its tokens all go through the model, cached or not, for a cache holds no
hidden states.
"""

from collections import deque
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from engine.embedding import Embedding, EmbeddingRequest
from engine.errors import RequestError
from engine.sequence import Sequence
from engine.types import GenerationRequest, TokenPrompt


def fit_embedding(request: EmbeddingRequest, *, context_length: int, vocab_size: int) -> EmbeddingRequest:
    """The request with an input that the model can take.

    Raises `RequestError` for an empty input, for token ids that the model does not have, and for an input
    longer than the context that may not be cut.
    """
    count = len(request.ids)
    if count == 0:
        raise RequestError("there is nothing to embed: the input has no tokens")
    if any(not 0 <= token < vocab_size for token in request.ids):
        raise RequestError(f"token ids must lie between 0 and {vocab_size - 1}")
    if count > context_length and not request.truncate:
        raise RequestError(
            f"the input has {count} tokens, the context {context_length}: shorten it, or allow to truncate it"
        )
    return replace(request, ids=request.ids[:context_length])


class EmbeddingQueue:
    """First come, first served. Belongs to the engine thread."""

    def __init__(self) -> None:
        self._waiting: deque[EmbeddingRequest] = deque()
        self._request: EmbeddingRequest | None = None
        self.sequence: Sequence | None = None
        """The input under way."""
        self._pooled: npt.NDArray[np.float64] = np.zeros(1)
        """Sum of the hidden states so far, [width]; of any width at first."""
        self._ended: list[Embedding] = []

    @property
    def has_work(self) -> bool:
        """Whether an input waits or is under way, or an answer is still to be taken."""
        return bool(self._waiting or self._ended) or self.sequence is not None

    def holds(self, request_id: str) -> bool:
        """Whether a request of that id waits or is under way."""
        requests = [*self._waiting, self._request] if self._request is not None else self._waiting
        return any(request.request_id == request_id for request in requests)

    def add(self, request: EmbeddingRequest) -> None:
        """Queue a request that `fit_embedding` has made."""
        self._waiting.append(request)

    def start(self) -> Sequence | None:
        """The next input as a sequence for the scheduler, unless one is under way or none waits."""
        if self.sequence is not None or not self._waiting:
            return None
        self._request = request = self._waiting.popleft()
        prompt = TokenPrompt(request.ids)
        wanted = GenerationRequest(request.request_id, prompt, max_tokens=0, client=request.client)
        self.sequence = Sequence.from_request(wanted)
        self.sequence.anew = True
        return self.sequence

    def rows(self, start: int, count: int) -> range:
        """Which of the tokens `start` to `start + count` are pooled, counted from `start`."""
        assert self._request is not None
        if self._request.pooling == "mean":
            return range(count)
        last = len(self._request.ids) - 1 - start
        return range(last, last + 1) if last < count else range(0)

    def pool(self, start: int, states: npt.NDArray[np.float32]) -> None:
        """Take the hidden states in, float32 [rows, width], that `rows` asked for.

        Row by row and in double precision, so that it does not matter how the input was cut into chunks. One
        that was preempted begins again with its first token.
        """
        if start == 0:
            self._pooled = np.zeros(states.shape[1])
        for row in states:
            self._pooled += row

    def finish(self) -> None:
        """The input under way has been computed: have its answer ready."""
        # The mean of the states has the direction of their sum.
        norm = float(np.linalg.norm(self._pooled))
        if np.isfinite(norm):
            vector = (self._pooled / (norm or 1.0)).astype("<f4").tobytes()
            self._end(vector)
        else:
            self._end(None, "the model's hidden states are not finite: its file may be damaged")

    def abort(self, request_id: str) -> Sequence | None:
        """Take a request out, if it waits or is under way; its sequence, if the scheduler has one."""
        for request in self._waiting:
            if request.request_id == request_id:
                self._waiting.remove(request)
                self._ended.append(Embedding(request_id, len(request.ids), None))
                return None
        sequence = self.sequence
        if sequence is None or sequence.id != request_id:
            return None
        self._end(None)
        return sequence

    def take_ended(self) -> list[Embedding]:
        """The answers since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def _end(self, vector: bytes | None, error: str | None = None) -> None:
        assert self._request is not None
        self._ended.append(Embedding(self._request.request_id, len(self._request.ids), vector, error))
        self._request = self.sequence = None
