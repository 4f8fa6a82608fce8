"""Drafts by a second, smaller model of the same vocabulary."""

from collections.abc import Container, Mapping
from collections.abc import Sequence as Wanted
from dataclasses import dataclass
from typing import Self

from engine.batch_builder import BatchBuilder, batch_builder
from engine.block_manager import BlockManager
from engine.config import EngineConfig
from engine.loading import cache_slots
from engine.model_runner import ModelRunner
from engine.models import Model
from engine.paged_batch_builder import PagedBatchBuilder
from engine.plan import Chunk, Plan
from engine.sequence import Sequence
from engine.speculation.drafter import Drafter


@dataclass(slots=True)
class _Follower:
    """The draft model's own view of a sequence: its tokens, and behind them those of the last draft.

    `copy.tokens[:confirmed]` are the sequence's. Only these are ever registered as a prefix.
    """

    copy: Sequence
    confirmed: int = 0


class ModelDrafter(Drafter):
    """Follows each sequence in a KV cache of its own, and guesses its likeliest continuation token by token.

    Tokens that were accepted, or drawn without it, are caught up with at the next draft: at most
    `token_budget` of them in one step, so that a long prompt does not keep the others waiting; there is no
    draft for a sequence before that is done.
    """

    worth = 0.4
    """To the row's own cost, see `NgramDrafter.worth`, comes that of a model of about a tenth of the size."""

    def __init__(
        self,
        runner: ModelRunner,
        batches: BatchBuilder | PagedBatchBuilder,
        blocks: BlockManager,
        token_budget: int,
    ) -> None:
        self._runner = runner
        self._batches = batches
        self._blocks = blocks
        self._token_budget = token_budget
        self._followers: dict[str, _Follower] = {}

    @classmethod
    def of(cls, config: EngineConfig, model: Model, context_length: int) -> Self:
        """One with a cache as large as the main model's. Raises `ConfigError` where the memory is short."""
        return cls(
            ModelRunner.of(config, model, context_length),
            batch_builder(model.kernels, config.block_size),
            BlockManager(cache_slots(config, context_length) // config.block_size, config.block_size),
            config.token_budget,
        )

    def draft(self, wanted: Wanted[tuple[Sequence, int]]) -> list[list[int]]:
        """See `Drafter.draft`. All sequences go through the model together."""
        followers = [self._follow(sequence) for sequence, _ in wanted]
        lengths = {sequence.id: len(sequence.tokens) + count for sequence, count in wanted}
        plan = self._catch_up([follower.copy for follower in followers], lengths)
        while plan:
            logits = self._runner.run(self._batches.build(plan))
            drafting = [chunk.sequence for chunk in plan if chunk.completes]
            for chunk in plan:
                chunk.sequence.advance(chunk.count)
            for copy, token in zip(drafting, logits.argmax(-1).tolist(), strict=True):
                copy.tokens.append(token)
            plan = [
                Chunk(copy, copy.computed, 1)
                for copy in drafting
                if len(copy.tokens) < lengths[copy.id] and self._grow(copy, len(copy.tokens), lengths)
            ]
        return [follower.copy.tokens[follower.confirmed :] for follower in followers]

    def take_back(self, sequence: Sequence) -> None:
        """See `Drafter.take_back`."""
        follower = self._followers.get(sequence.id)
        if follower is not None:
            follower.confirmed = min(follower.confirmed, len(sequence.tokens))

    def forget(self, sequence: Sequence) -> None:
        """See `Drafter.forget`."""
        follower = self._followers.pop(sequence.id, None)
        if follower is not None:
            self._confirm(follower, sequence)
            self._blocks.free(follower.copy)

    def check_integrity(self, alive: Mapping[str, Sequence]) -> None:
        """See `Drafter.check_integrity`."""
        assert self._followers.keys() <= alive.keys(), "a follower is left behind"
        for name, follower in self._followers.items():
            confirmed = slice(follower.confirmed)
            assert follower.copy.tokens[confirmed] == alive[name].tokens[confirmed], "it has other tokens"
        self._blocks.check_integrity([follower.copy for follower in self._followers.values()])

    def _follow(self, sequence: Sequence) -> _Follower:
        """The sequence's follower with its very tokens, of which at least one is still to be computed."""
        follower = self._followers.get(sequence.id)
        if follower is None:
            copy = Sequence(sequence.request, list(sequence.tokens), sequence.prompt_length)
            self._blocks.take_prefix(copy)
            follower = self._followers[sequence.id] = _Follower(copy, len(copy.tokens))
            return follower
        self._confirm(follower, sequence)
        copy = follower.copy
        copy.tokens += sequence.tokens[follower.confirmed :]
        follower.confirmed = len(copy.tokens)
        if copy.computed == len(copy.tokens):
            self._blocks.truncate(copy, len(copy.tokens) - 1)
        return follower

    def _confirm(self, follower: _Follower, sequence: Sequence) -> None:
        """Keep what was drafted and drawn, give up what was drafted in vain, and let others find the rest."""
        copy, same = follower.copy, follower.confirmed
        for ours, theirs in zip(copy.tokens[same:], sequence.tokens[same:], strict=False):
            if ours != theirs:
                break
            same += 1
        del copy.tokens[same:]
        self._blocks.truncate(copy, same)
        self._blocks.register(copy)
        follower.confirmed = same

    def _catch_up(self, copies: list[Sequence], busy: Container[str]) -> Plan:
        """Chunks with the tokens that the draft model has not seen, as far as budget and blocks go."""
        budget = self._token_budget
        plan: Plan = []
        for copy in copies:
            count = min(copy.remaining, budget)
            if count > 0 and self._grow(copy, copy.computed + count, busy):
                plan.append(Chunk(copy, copy.computed, count))
                budget -= count
        return plan

    def _grow(self, copy: Sequence, tokens: int, busy: Container[str]) -> bool:
        """Blocks for so many tokens, if need be those of sequences that want no draft now."""
        if self._blocks.grow(copy, tokens):
            return True
        for idle in [name for name in self._followers if name not in busy]:
            self._blocks.free(self._followers.pop(idle).copy)
        return self._blocks.grow(copy, tokens)
