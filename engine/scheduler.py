"""Decides which sequences advance in a step, and by how many tokens. Knows no torch.

One token budget a step; running sequences come first, those that need a single token before those
that still read their prompt; what is left admits waiting ones, first come, first served. When the
blocks run out, the youngest running sequence gives its blocks back and waits at the head of the
queue; its tokens are kept and computed again, as far as the prefix cache has lost them.

A new sequence takes its keys and values from the prefix cache, then from an earlier context that it is a
part of (`engine.context_shift`), and computes the rest.
"""

from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, replace

from engine.block_manager import BlockManager
from engine.context_shift import ContextShift, Match, Move
from engine.metrics import Counters
from engine.sequence import Sequence, SequenceState


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `start` to `start + count` of a sequence, to be computed in this step.

    `draft`: tokens that may come next and are computed behind them on trial. They are not the sequence's.
    """

    sequence: Sequence
    start: int
    count: int
    draft: tuple[int, ...] = ()

    @property
    def completes(self) -> bool:
        """Whether the sequence has caught up after this chunk, so that a token can be drawn."""
        return self.start + self.count == len(self.sequence.tokens)


Plan = list[Chunk]


class Scheduler:
    """Owns the waiting and the running sequences."""

    def __init__(
        self,
        blocks: BlockManager,
        *,
        max_sequences: int,
        token_budget: int,
        counters: Counters,
        shift: ContextShift | None = None,
    ) -> None:
        """`shift`: where earlier contexts are looked for; None: nowhere."""
        self.blocks = blocks
        self.shift = shift
        self.max_sequences = max_sequences
        self.token_budget = token_budget
        self.counters = counters
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._moves: list[Move] = []

    @property
    def has_work(self) -> bool:
        """Whether a plan would hold anything."""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence. The whole cache must be able to hold its longest state."""
        sequence.state = SequenceState.WAITING
        self.waiting.append(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Take the sequence out, wherever it is, and its blocks back."""
        if sequence.state is SequenceState.RUNNING:
            self.running.remove(sequence)
        elif sequence.state is SequenceState.WAITING:
            self.waiting.remove(sequence)
        sequence.state = SequenceState.FINISHED
        self._free(sequence)

    def plan(self) -> Plan:
        """Chunks for the next step, with blocks for every token of them. Empty without work.

        They are to be computed after the moves that `take_moves` has.
        """
        budget = self.token_budget
        preemptions = self.counters.preemptions
        plan: Plan = []
        # Sorting is stable: within the two groups the older sequence goes first.
        for sequence in sorted(self.running, key=lambda s: s.remaining > 1):
            count = min(sequence.missing, budget)
            if count and self._make_room(sequence, count, plan):
                plan.append(Chunk(sequence, sequence.computed, count))
                budget -= count
        # Where blocks are so short that a running sequence had to go, none is let in.
        crowded = self.counters.preemptions > preemptions
        while self.waiting and budget and not crowded and len(self.running) < self.max_sequences:
            count = self._admit(self.waiting[0], budget, plan)
            if count == 0:
                break
            sequence = self.waiting.popleft()
            sequence.state = SequenceState.RUNNING
            self.running.append(sequence)
            plan.append(Chunk(sequence, sequence.computed, count))
            budget -= count
        return plan

    def extend(self, plan: Plan, drafts: Mapping[Sequence, Tokens[int]]) -> None:
        """Put drafts behind the chunks of a plan that complete their sequences.

        Each is cut to the budget that the plan has left and to the blocks that are free: no sequence waits or
        goes because of one.
        """
        spare = self.token_budget - sum(chunk.count for chunk in plan)
        for place, chunk in enumerate(plan):
            sequence = chunk.sequence
            if not chunk.completes or not drafts.get(sequence):
                continue
            end = chunk.start + chunk.count
            room = (len(sequence.block_table) + self.blocks.num_free) * self.blocks.block_size - end
            draft = tuple(drafts[sequence][: min(spare, room)])
            spare -= len(draft)
            self.blocks.grow(sequence, end + len(draft))
            plan[place] = replace(chunk, draft=draft)

    def take_moves(self) -> list[Move]:
        """What the last plan has to find moved in the cache before it is computed, all at the same time.

        A source may be a target at once: every source must be read before any target is written.
        """
        moves, self._moves = self._moves, []
        return moves

    def advance(self, plan: Plan) -> None:
        """Note that the plan has been computed."""
        for chunk in plan:
            chunk.sequence.advance(chunk.count)
            self.blocks.register(chunk.sequence)

    def accept(self, sequence: Sequence) -> None:
        """Note that the sequence's newest token was drafted and has been computed in this step."""
        sequence.advance(1)
        self.blocks.register(sequence)

    def restart(self) -> None:
        """Forget all keys and values: those of cached prefixes, of earlier contexts and of running sequences.

        Running sequences keep their tokens, go back to the head of the queue in their order, and are
        computed again.
        """
        for sequence in self.running[::-1]:
            self._send_back(sequence)
        self.blocks.forget_prefixes()
        if self.shift is not None:
            self.shift.forget()

    def check_integrity(self) -> None:
        """Raise `AssertionError` if queues and blocks disagree."""
        for sequence in self.running:
            assert sequence.state is SequenceState.RUNNING
        for sequence in self.waiting:
            assert sequence.state is SequenceState.WAITING
            assert not sequence.block_table, "a waiting sequence holds blocks"
        self.blocks.check_integrity(self.running)

    def _admit(self, sequence: Sequence, budget: int, plan: Plan) -> int:
        """Give a waiting sequence what the cache has of it and blocks for a first chunk; 0 without room."""
        cached = 0 if sequence.anew else self.blocks.take_prefix(sequence)
        match = self._match(sequence)
        if match is not None:
            match.apply(sequence)
        count = min(sequence.missing, budget)
        covered = sequence.computed + count if sequence.moved is None else sequence.moved.stop
        if not self._grow(sequence, covered, plan):
            self.blocks.free(sequence)
            return 0
        shifted = 0
        if match is not None:
            self._moves.append(match.move(sequence.block_table, self.blocks.block_size))
            shifted = len(match.sources)
        if not sequence.admitted:
            sequence.admitted = True
            sequence.cached_tokens = cached + shifted
            self.counters.prompt_tokens_cached += cached
            self.counters.prompt_tokens_shifted += shifted
        return count

    def _match(self, sequence: Sequence) -> Match | None:
        """What a waiting sequence may take over from an earlier context.

        One that has made tokens goes on as it was: preemption must not change a reply.
        """
        if self.shift is None or sequence.anew or sequence.generated > 0:
            return None
        return self.shift.find(sequence)

    def _make_room(self, sequence: Sequence, count: int, plan: Plan) -> bool:
        """Blocks for the next tokens of a running sequence, taken from younger ones if need be."""
        while sequence.state is SequenceState.RUNNING:
            if self._grow(sequence, sequence.computed + count, plan):
                return True
            victim = self.running[-1]
            self._preempt(victim)
            # A victim that was planned already loses its place in the step.
            plan[:] = [chunk for chunk in plan if chunk.sequence is not victim]
        return False

    def _grow(self, sequence: Sequence, tokens: int, plan: Plan) -> bool:
        """Blocks for so many tokens, if need be those of rejected drafts; False without room."""
        return self.blocks.grow(sequence, tokens) or (
            self._reclaim(plan) and self.blocks.grow(sequence, tokens)
        )

    def _reclaim(self, plan: Plan) -> bool:
        """Take back blocks that sequences were given for drafts, since rejected; whether there were any.

        Until blocks run out they stay where they are: each one that is handed out anew costs a cached prefix.
        """
        free = self.blocks.num_free
        ends = {chunk.sequence: chunk.start + chunk.count for chunk in plan}
        for sequence in self.running:
            end = ends.get(sequence, sequence.computed)
            # One that waits for its moved tokens has had no draft yet.
            if sequence.moved is None and len(sequence.block_table) > self.blocks.blocks_for(end):
                self.blocks.truncate(sequence, end)
        return self.blocks.num_free > free

    def _preempt(self, sequence: Sequence) -> None:
        self._send_back(sequence)
        self.counters.preemptions += 1

    def _send_back(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._free(sequence)
        sequence.state = SequenceState.WAITING
        self.waiting.appendleft(sequence)

    def _free(self, sequence: Sequence) -> None:
        if self.shift is not None:
            self.shift.remember(sequence)
        self.blocks.free(sequence)
