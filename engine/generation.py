"""One request under way: its tokens, its text, and all that binds its next token."""

from functools import partial

import numpy as np
import numpy.typing as npt

from engine.grammar import GrammarState
from engine.output import Output, Verdict
from engine.prompt_scores import PromptScores
from engine.sampling import Draw, Row
from engine.sequence import Sequence
from engine.thinking import ThinkingLimit
from engine.tokenizer import Tokenizer
from engine.types import FinishReason, GenerationRequest

_NONE: frozenset[int] = frozenset()


class Generation:
    """Takes drawn tokens in and gives verdicts. Knows nothing of blocks, queues and other requests."""

    def __init__(
        self, request: GenerationRequest, tokenizer: Tokenizer, grammar: GrammarState | None
    ) -> None:
        """`grammar`: at the beginning of the reply; None where nothing binds it."""
        self.sequence = Sequence.from_request(request)
        self.scores: PromptScores | None = None
        """Of the prompt, where they are wanted."""
        if request.prompt_logprobs and request.logprobs is not None:
            piece = partial(tokenizer.piece, render_special=True)
            count = min(request.logprobs, tokenizer.vocab_size)
            self.scores = PromptScores(self.sequence, count, piece)
        self._output = Output(request, tokenizer)
        self._grammar = grammar
        self._thinking: ThinkingLimit | None = None
        if request.thinking is not None:
            self._thinking = ThinkingLimit(request.thinking, tokenizer, self.sequence.tokens)

    @property
    def row(self) -> Row:
        """What binds the next token, beside the model's logits."""
        sequence = self.sequence
        allowed = None if self._grammar is None else self._grammar.mask()
        # The sampler knows by identity that nothing has changed.
        here = sequence.banned_at.get(len(sequence.tokens))
        banned = _NONE if here is None else frozenset(here)
        forced = None if self._thinking is None else self._thinking.forced
        if forced is not None and (forced in banned or not _allows(allowed, forced)):
            forced = None
        return Row(sequence.id, sequence.tokens, banned, allowed, forced)

    @property
    def refusal(self) -> str | None:
        """Why the engine does not go on with the request; None: it does."""
        return None if self._grammar is None else self._grammar.refusal

    @property
    def foreseeable(self) -> bool:
        """Whether what binds a token does not depend on the one before, and no token is ever taken back."""
        bound = self._grammar is not None or self._thinking is not None
        return not bound and not self.sequence.request.banned_phrases

    def accept(self, draw: Draw) -> Verdict:
        """Append a token, and judge the text: it goes on, goes back, or ends.

        Tokens that go back stay counted in `Sequence.drawn`, so that no text goes back for ever. A request
        that is refused ends without the token.
        """
        sequence = self.sequence
        if self.refusal is not None:
            return self._output.flush(FinishReason.ERROR)
        sequence.tokens.append(draw.token)
        sequence.drawn += 1
        if self._grammar is not None:
            self._grammar.accept(draw.token)
        if self._thinking is not None:
            self._thinking.push(draw.token)
        verdict = self._output.push(draw.token, draw.logprobs)
        if verdict.rewind:
            self._take_back(verdict.rewind)
        if verdict.finish is not None:
            return verdict
        if self.refusal is not None:
            return verdict + self._output.flush(FinishReason.ERROR)
        if self._grammar is not None and self._grammar.finished:
            return verdict + self._output.flush(FinishReason.EOS)
        if sequence.drawn >= sequence.request.max_tokens:
            return verdict + self._output.flush(FinishReason.LENGTH)
        return verdict

    def flush(self, reason: FinishReason) -> Verdict:
        """What was held back, at an end that comes from elsewhere."""
        return self._output.flush(reason)

    def _take_back(self, count: int) -> None:
        self.sequence.take_back(count)
        if self._grammar is not None:
            self._grammar.rollback(count)
        if self._thinking is not None:
            self._thinking.take_back(count)


def _allows(mask: npt.NDArray[np.uint32] | None, token: int) -> bool:
    """Whether a grammar's mask, uint32 [vocab / 32], lets a token come."""
    return mask is None or bool(int(mask[token // 32]) >> token % 32 & 1)
