"""Decides which sequences advance in a step, and by how many tokens. Knows no torch.

One token budget a step. Replies under way come first, each with its one token. What is left, or what
`engine.pace` grants beside replies, goes to prompts: `engine.fair_share` divides it among running sequences
and those that `engine.queue` would let in next. One is let in when it gets a share and all its tokens find
free blocks, beside those that the running ones still need for theirs. When the blocks run out all the same,
the youngest running sequence gives its blocks back and goes to the head of the queue; its tokens are kept and
computed again, as far as the prefix cache has lost them.

A new sequence takes its keys and values from the prefix cache, then from an earlier context that it is a
part of (`engine.context_shift`), and computes the rest.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Tokens
from dataclasses import replace

from engine.block_manager import BlockManager
from engine.context_shift import ContextShift, Match, Move
from engine.fair_share import FairShare, Grant
from engine.metrics import Counters
from engine.pace import Load, Pace
from engine.plan import Chunk, Plan
from engine.queue import Queue, follows, gives_way
from engine.sequence import Sequence, SequenceState

_MOST_TRIED = 4
"""Waiting sequences that are tried in a step where one after the other finds too few blocks."""


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
        pace: Pace | None = None,
    ) -> None:
        """`shift`: where earlier contexts are looked for; None: nowhere.

        `pace`: how many prompt tokens may go beside replies; None: as many as the budget holds.
        """
        self.blocks = blocks
        self.shift = shift
        self.max_sequences = max_sequences
        self.token_budget = token_budget
        self.counters = counters
        self.waiting = Queue()
        self.running: list[Sequence] = []
        self.load = Load()
        """What the last plan holds."""
        self._pace = pace
        self._shares = FairShare()
        self._moves: list[Move] = []

    @property
    def has_work(self) -> bool:
        """Whether a plan would hold anything."""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence. The whole cache must be able to hold its longest state."""
        self.waiting.add(sequence)

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
        preemptions = self.counters.preemptions
        plan: Plan = []
        budget = self.token_budget
        # Sorting is stable: within the two groups the older sequence goes first.
        for sequence in sorted(self.running, key=lambda s: s.remaining > 1):
            count = 0 if self._reads(sequence) else min(sequence.missing, budget)
            if count and self._make_room(sequence, count, plan):
                plan.append(Chunk(sequence, sequence.computed, count))
                budget -= count
        if plan and self._pace is not None:
            budget = min(budget, self._pace.room(len(plan)))
        # Where blocks are so short that a running sequence had to go, none is let in.
        self._read(budget, plan, crowded=self.counters.preemptions > preemptions)
        prompts = [chunk.count for chunk in plan if self._reads(chunk.sequence)]
        self.load = Load(len(plan) - len(prompts), sum(prompts))
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
        for sequence in list(self.running):
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

    def _reads(self, sequence: Sequence) -> bool:
        """Whether a sequence has a prompt to read; a few tokens behind one that was taken back are none."""
        return sequence.remaining > (1 if sequence.drawn == 0 else self.blocks.block_size)

    def _read(self, budget: int, plan: Plan, *, crowded: bool) -> None:
        """Spend a budget on prompts, and let those in that get a share of it. `crowded`: let none in."""
        if budget and not crowded and len(self.running) == self.max_sequences:
            self._make_place()
        readers = [sequence for sequence in self.running if self._reads(sequence)]
        if not readers and not len(self.waiting):
            self._shares.note((), ())  # most steps only decode
            return
        newcomers, grants = self._grants(budget, readers, plan, crowded=crowded)
        served = []
        for sequence, count in grants:
            if self._make_room(sequence, count, plan):
                plan.append(Chunk(sequence, sequence.computed, count))
                served.append(sequence)
        self._shares.note([*readers, *newcomers], served)

    def _grants(
        self, budget: int, readers: list[Sequence], plan: Plan, *, crowded: bool
    ) -> tuple[list[Sequence], list[Grant]]:
        """Share a budget among `readers` and newcomers, who are let in with their first share.

        The newcomers, also those that have no place yet, and the shares.
        """
        let_in: list[Sequence] = []
        stuck: list[Sequence] = []
        following: list[Sequence] = []
        while True:
            places = 0 if crowded or len(stuck) >= _MOST_TRIED else self.max_sequences - len(self.running)
            newcomers = self.waiting.next(self.running, places, stuck=stuck, following=following)
            grants = self._shares.grant(budget, [*readers, *let_in, *newcomers])
            shared = {one for one, _ in grants}
            # In the queue's order, so that one without room is seen to be passed.
            first = next((one for one in newcomers if one in shared), None)
            if first is None:
                return [*let_in, *newcomers], grants
            if follows(first, [*readers, *let_in], self.blocks.block_size):
                following.append(first)
            elif self._admit(first, plan):
                let_in.append(first)
                for one in stuck:
                    one.passed += 1
            else:
                stuck.append(first)

    def _admit(self, sequence: Sequence, plan: Plan) -> bool:
        """Let a waiting sequence in with what the cache has of it, if blocks are free for all its tokens."""
        cached = 0 if sequence.anew else self.blocks.take_prefix(sequence)
        match = self._match(sequence)
        if match is not None:
            match.apply(sequence)
        needed = sum(map(self._lacking, [sequence, *self.running]))
        if needed > self.blocks.num_free and not (self._reclaim(plan) and needed <= self.blocks.num_free):
            self.blocks.free(sequence)
            return False
        shifted = 0
        if match is not None:
            self.blocks.grow(sequence, sequence.computed if sequence.moved is None else sequence.moved.stop)
            self._moves.append(match.move(sequence.block_table, self.blocks.block_size))
            shifted = len(match.sources)
        if not sequence.admitted:
            sequence.cached_tokens = cached + shifted
            self.counters.prompt_tokens_cached += cached
            self.counters.prompt_tokens_shifted += shifted
        sequence.admitted = True
        self.waiting.remove(sequence)
        sequence.state = SequenceState.RUNNING
        self.running.append(sequence)
        return True

    def _lacking(self, sequence: Sequence) -> int:
        """Blocks that a sequence needs for the tokens that it knows and does not have yet."""
        return max(0, self.blocks.blocks_for(len(sequence.tokens)) - len(sequence.block_table))

    def _make_place(self) -> None:
        """Have a place given up for a client that has none, if one waits."""
        if self.waiting.has_newcomer(self.running):
            victim = gives_way(self.running, filter(self._reads, self.running))
            if victim is not None:
                victim.sent_back += 1
                self._send_back(victim)

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
        self.waiting.put_back(sequence)

    def _free(self, sequence: Sequence) -> None:
        if self.shift is not None:
            self.shift.remember(sequence)
        self.blocks.free(sequence)
