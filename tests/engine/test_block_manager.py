from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.block_manager import BlockManager
from engine.sequence import Sequence
from engine.types import GenerationRequest, TokenPrompt

BLOCK = 4
BLOCKS = 10


def sequence_of(tokens: list[int]) -> Sequence:
    return Sequence.from_request(GenerationRequest("x", TokenPrompt(tuple(tokens)), max_tokens=100))


def compute(blocks: BlockManager, sequence: Sequence) -> None:
    """Let a sequence catch up."""
    assert blocks.grow(sequence, len(sequence.tokens))
    sequence.computed = len(sequence.tokens)
    blocks.register(sequence)


class CacheMachine(RuleBasedStateMachine):
    """The manager against a cache whose slots remember the whole prefix they were computed from."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = BlockManager(BLOCKS, BLOCK)
        self.live: list[Sequence] = []
        self.slots: dict[int, tuple[int, ...]] = {}

    def slot(self, sequence: Sequence, position: int) -> int:
        return sequence.block_table[position // BLOCK] * BLOCK + position % BLOCK

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=3 * BLOCK + 2), copy=st.booleans())
    def start(self, tokens: list[int], copy: bool) -> None:
        if copy and self.live:
            tokens = self.live[0].tokens + tokens
        sequence = sequence_of(tokens)
        found = self.blocks.take_prefix(sequence)
        assert found == sequence.computed == len(sequence.block_table) * BLOCK
        assert found < len(tokens)
        self.live.append(sequence)

    @precondition(lambda self: self.live)
    @rule(pick=st.randoms(use_true_random=False), count=st.integers(1, 2 * BLOCK + 1))
    def advance(self, pick: Random, count: int) -> None:
        sequence = pick.choice(self.live)
        count = min(count, sequence.remaining)
        table, free = list(sequence.block_table), self.blocks.num_free
        missing = self.blocks.blocks_for(sequence.computed + count) - len(table)
        if not self.blocks.grow(sequence, sequence.computed + count):
            assert missing > free
            assert (sequence.block_table, self.blocks.num_free) == (table, free)
            return
        assert max(0, missing) == free - self.blocks.num_free
        for position in range(sequence.computed, sequence.computed + count):
            self.slots[self.slot(sequence, position)] = tuple(sequence.tokens[: position + 1])
        sequence.computed += count
        self.blocks.register(sequence)

    @precondition(lambda self: self.live)
    @rule(pick=st.randoms(use_true_random=False), token=st.integers(0, 1))
    def append(self, pick: Random, token: int) -> None:
        pick.choice(self.live).tokens.append(token)

    @precondition(lambda self: self.live)
    @rule(pick=st.randoms(use_true_random=False), back=st.integers(0, 3 * BLOCK), token=st.integers(0, 1))
    def rewind(self, pick: Random, back: int, token: int) -> None:
        sequence = pick.choice(self.live)
        keep = max(0, len(sequence.tokens) - back)
        computed = sequence.computed
        self.blocks.truncate(sequence, keep)
        assert min(computed, keep) - BLOCK < sequence.computed <= min(computed, keep)
        sequence.tokens[keep:] = [token]

    @precondition(lambda self: self.live)
    @rule(pick=st.randoms(use_true_random=False))
    def free(self, pick: Random) -> None:
        sequence = pick.choice(self.live)
        self.blocks.free(sequence)
        assert (sequence.block_table, sequence.computed) == ([], 0)
        self.live.remove(sequence)

    @precondition(lambda self: not self.live)
    @rule()
    def forget(self) -> None:
        self.blocks.forget_prefixes()
        # whoever still finds a prefix will miss its slots
        self.slots.clear()

    @invariant()
    def books_agree(self) -> None:
        self.blocks.check_integrity(self.live)

    @invariant()
    def every_context_is_its_own(self) -> None:
        for sequence in self.live:
            for position in range(sequence.computed):
                held = self.slots[self.slot(sequence, position)]
                assert held == tuple(sequence.tokens[: position + 1])

    def teardown(self) -> None:
        for sequence in self.live:
            self.blocks.free(sequence)
        self.blocks.check_integrity([])
        assert self.blocks.num_free == BLOCKS


CacheMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestCacheMachine = CacheMachine.TestCase


def test_a_finished_prefix_is_found_again_and_one_token_is_left() -> None:
    blocks = BlockManager(8, BLOCK)
    first = sequence_of(list(range(12)))
    compute(blocks, first)
    table = list(first.block_table)
    blocks.free(first)
    again, longer = sequence_of(list(range(12))), sequence_of(list(range(13)))
    assert blocks.take_prefix(again) == 8
    assert blocks.take_prefix(longer) == 12
    assert longer.block_table == table
    blocks.check_integrity([again, longer])


def test_forgotten_prefixes_are_not_found() -> None:
    blocks = BlockManager(8, BLOCK)
    first = sequence_of(list(range(12)))
    compute(blocks, first)
    with pytest.raises(AssertionError, match="still holds"):
        blocks.forget_prefixes()
    blocks.free(first)
    blocks.forget_prefixes()
    assert blocks.take_prefix(sequence_of(list(range(12)))) == 0
    blocks.check_integrity([])
    assert blocks.num_free == 8


def test_sharing_while_the_first_is_running() -> None:
    blocks = BlockManager(8, BLOCK)
    first, second = sequence_of([7] * 9), sequence_of([7] * 9)
    compute(blocks, first)
    assert blocks.take_prefix(second) == 8
    assert second.block_table == first.block_table[:2]
    compute(blocks, second)
    assert blocks.num_free == 8 - 4
    blocks.free(first)
    assert blocks.num_free == 8 - 3
    blocks.check_integrity([second])


def test_the_same_tokens_behind_another_prefix_are_not_the_same() -> None:
    blocks = BlockManager(8, BLOCK)
    compute(blocks, first := sequence_of([1, 1, 1, 1, 2, 2, 2, 2, 0]))
    other = sequence_of([3, 3, 3, 3, 2, 2, 2, 2, 0])
    swapped = sequence_of([2, 2, 2, 2, 0])
    assert blocks.take_prefix(other) == 0
    assert blocks.take_prefix(swapped) == 0
    blocks.check_integrity([first, other, swapped])


def test_the_oldest_free_block_is_overwritten_first_and_ends_before_beginnings() -> None:
    blocks = BlockManager(6, BLOCK)
    old, new = sequence_of([1] * 12), sequence_of([2] * 12)
    compute(blocks, old)
    compute(blocks, new)
    blocks.free(old)
    blocks.free(new)
    compute(blocks, filler := sequence_of([3] * 8))
    # two blocks went: the last two of the older sequence
    blocks.free(filler)
    assert blocks.take_prefix(sequence_of([2] * 13)) == 12
    assert blocks.take_prefix(sequence_of([1] * 13)) == 4


def test_a_hit_makes_a_block_young_again() -> None:
    blocks = BlockManager(3, BLOCK)
    for token in (1, 2, 3):
        compute(blocks, one := sequence_of([token] * 4))
        blocks.free(one)
    hit = sequence_of([1] * 5)
    assert blocks.take_prefix(hit) == 4
    blocks.free(hit)
    compute(blocks, filler := sequence_of([4] * 4))
    blocks.free(filler)
    assert blocks.take_prefix(sequence_of([1] * 5)) == 4
    assert blocks.take_prefix(sequence_of([2] * 5)) == 0


def test_two_that_computed_the_same_side_by_side() -> None:
    blocks = BlockManager(6, BLOCK)
    first, second = sequence_of([5] * 8), sequence_of([5] * 8)
    assert blocks.take_prefix(first) == blocks.take_prefix(second) == 0
    compute(blocks, first)
    compute(blocks, second)
    assert not set(first.block_table) & set(second.block_table)
    blocks.check_integrity([first, second])
    table = list(first.block_table)
    blocks.free(first)
    blocks.free(second)
    third = sequence_of([5] * 9)
    assert blocks.take_prefix(third) == 8
    assert third.block_table == table


def test_truncate_never_writes_into_a_shared_block() -> None:
    blocks = BlockManager(6, BLOCK)
    first, second = sequence_of([5] * 9), sequence_of([5] * 9)
    compute(blocks, first)
    blocks.take_prefix(second)
    compute(blocks, second)
    blocks.truncate(second, 6)
    assert second.computed == 4
    assert second.block_table == first.block_table[:1]
    blocks.check_integrity([first, second])


def test_truncate_within_a_block_of_its_own_keeps_it() -> None:
    blocks = BlockManager(6, BLOCK)
    compute(blocks, one := sequence_of([5] * 7))
    blocks.truncate(one, 6)
    assert (one.computed, len(one.block_table)) == (6, 2)
    blocks.truncate(one, 0)
    assert (one.computed, one.block_table, blocks.num_free) == (0, [], 6)
