"""Says in each step which sequences get drafts, and how long ones."""

from collections.abc import Mapping

from engine.config import EngineConfig
from engine.metrics import Counters
from engine.models import Model
from engine.plan import Chunk, Plan
from engine.sequence import Sequence
from engine.speculation.draft_length import DraftLength
from engine.speculation.drafter import Drafter
from engine.speculation.model_drafter import ModelDrafter
from engine.speculation.ngram_drafter import NgramDrafter

_MOST_SEQUENCES = 4
"""In a larger batch the rows of other sequences make use of weights that are read anyway."""


class Speculator:
    """A drafter, and for each sequence how well it guesses. Knows nothing of blocks and budgets."""

    def __init__(self, drafter: Drafter, most: int, counters: Counters) -> None:
        """`most` >= 1: tokens of the longest draft."""
        self._drafter = drafter
        self._most = most
        self._counters = counters
        self._lengths: dict[str, DraftLength] = {}

    def draft(self, plan: Plan) -> Mapping[Sequence, list[int]]:
        """Drafts for sequences that make another token in this step and may make more."""
        if len(plan) > _MOST_SEQUENCES:
            return {}
        counts = [(chunk.sequence, self._count(chunk)) for chunk in plan]
        wanted = [(sequence, count) for sequence, count in counts if count > 0]
        drafts = self._drafter.draft(wanted)
        return {sequence: draft for (sequence, _), draft in zip(wanted, drafts, strict=True)}

    def learn(self, sequence: Sequence, drafted: int, accepted: int) -> None:
        """Of `drafted` >= 1 tokens that were computed for the sequence, the first `accepted` were drawn."""
        for counts in (sequence, self._counters):
            counts.drafted_tokens += drafted
            counts.accepted_tokens += accepted
        self._lengths[sequence.id].learn(drafted, accepted)

    def take_back(self, sequence: Sequence) -> None:
        """The sequence has lost tokens at its end."""
        self._drafter.take_back(sequence)

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended."""
        self._lengths.pop(sequence.id, None)
        self._drafter.forget(sequence)

    def check_integrity(self, alive: Mapping[str, Sequence]) -> None:
        """Raise `AssertionError` if books are wrong, or kept for others than these, which have their ids."""
        assert self._lengths.keys() <= alive.keys(), "a sequence is left behind"
        self._drafter.check_integrity(alive)

    def _count(self, chunk: Chunk) -> int:
        sequence = chunk.sequence
        # The first token is waited for: no draft makes it later, nor a draft model that reads the prompt.
        if not chunk.completes or sequence.drawn == 0 or sequence.anew:
            return 0
        # A draft of all that is left would have its last token for nothing: nothing is drawn behind it.
        useful = sequence.request.max_tokens - sequence.drawn - 1
        if useful < 1:
            return 0
        length = self._lengths.setdefault(sequence.id, DraftLength(self._most, self._drafter.worth))
        return min(length.next(), useful)


def start_speculation(
    config: EngineConfig, context_length: int, model: Model | None, counters: Counters
) -> Speculator | None:
    """What the settings ask for: drafts of `model` if there is one, else look-up, or None for no drafts.

    Raises `ConfigError` where the memory for the draft model's cache is short.
    """
    most = config.drafted_tokens
    if most == 0:
        return None
    drafter = NgramDrafter() if model is None else ModelDrafter.of(config, model, context_length)
    return Speculator(drafter, most, counters)
