"""The books of context shift; `test_model_runner` has the tensors, `test_shifted_chat` the replies."""

from itertools import count
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.block_manager import BlockManager
from engine.context_shift import ContextShift, Move
from engine.metrics import Counters
from engine.plan import Plan
from engine.scheduler import Scheduler
from engine.sequence import Sequence
from engine.types import GenerationRequest, TokenPrompt

BLOCK = 16


def scheduler(
    blocks: int = 256,
    *,
    block_size: int = BLOCK,
    least: int | None = None,
    shift: bool = True,
    budget: int = 4096,
) -> Scheduler:
    """`least` None: the engine's own figure, 200."""
    manager = BlockManager(blocks, block_size)
    finder = ContextShift(manager) if least is None else ContextShift(manager, least=least)
    return Scheduler(
        manager,
        max_sequences=4,
        token_budget=budget,
        counters=Counters(),
        shift=finder if shift else None,
    )


def sequence(tokens: list[int], max_tokens: int = 1) -> Sequence:
    return Sequence.from_request(GenerationRequest("x", TokenPrompt(tuple(tokens)), max_tokens))


def ids(seed: int, length: int) -> list[int]:
    """Text like no other."""
    rng = Random(seed)
    return [rng.randrange(10**6) for _ in range(length)]


def slots(one: Sequence, start: int, stop: int) -> list[int]:
    return [one.block_table[place // BLOCK] * BLOCK + place % BLOCK for place in range(start, stop)]


def serve(it: Scheduler, tokens: list[int]) -> tuple[Sequence, list[int], list[Move]]:
    """Compute a whole prompt and let it end: the sequence, its slots while it had some, its moves."""
    one = sequence(tokens)
    it.add(one)
    moves, where = [], []
    while one.remaining:
        plan = it.plan()
        moves += it.take_moves()
        it.check_integrity()
        it.advance(plan)
        where = slots(one, 0, one.computed)
    it.check_integrity()
    it.finish(one)
    return one, where, moves


SYSTEM, OLD, LATER, NEW = ids(1, 100), ids(2, 300), ids(3, 400), ids(4, 50)


def test_the_tail_behind_a_gap_is_moved() -> None:
    it = scheduler()
    _, before, moves = serve(it, SYSTEM + OLD + LATER)
    assert moves == []
    one, after, (move,) = serve(it, SYSTEM + LATER + NEW)
    # six blocks are an exact prefix, then come four tokens where they were, then the tail
    assert one.cached_tokens == 500
    assert (it.counters.prompt_tokens_cached, it.counters.prompt_tokens_shifted) == (96, 404)
    assert move.sources.tolist() == before[96:100] + before[400:800]
    assert move.targets.tolist() == after[96:500]
    assert move.distances.tolist() == [0] * 4 + [300] * 400


def test_only_what_comes_behind_is_computed() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    it.add(sequence(SYSTEM + LATER + NEW))
    assert [(chunk.start, chunk.count) for chunk in it.plan()] == [(500, 50)]


def test_one_token_is_left_to_compute() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    it.add(sequence(SYSTEM + LATER))
    assert [(chunk.start, chunk.count) for chunk in it.plan()] == [(499, 1)]


def test_the_beginning_alone_is_enough_of_a_prefix() -> None:
    it = scheduler()
    serve(it, [1, *OLD, *LATER])
    _, _, (move,) = serve(it, [1, *LATER, *NEW])
    assert move.distances.tolist() == [0] + [300] * 400


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (OLD + LATER[:203], LATER[:203] + NEW),
        (SYSTEM + OLD + LATER[:199], SYSTEM + LATER[:199] + NEW),
        (SYSTEM + OLD + LATER, SYSTEM + OLD + LATER + NEW),
        (SYSTEM + OLD + LATER, SYSTEM + OLD),
        (SYSTEM + OLD + LATER, SYSTEM + ids(5, 400)),
        (SYSTEM + OLD + LATER, SYSTEM + NEW + LATER),
        (SYSTEM + LATER, SYSTEM + OLD + LATER),
        ([7, *NEW[:3], *LATER], [8, *NEW[:3], *LATER, *NEW]),
    ],
    ids=[
        "short from the front",
        "short",
        "continued",
        "cut behind",
        "other text",
        "text in front",
        "inserted",
        "replaced in front",
    ],
)
def test_nothing_is_moved(before: list[int], now: list[int]) -> None:
    it = scheduler()
    serve(it, before)
    _, _, moves = serve(it, now)
    assert moves == []
    assert it.counters.prompt_tokens_shifted == 0


def test_where_not_even_the_first_token_has_stayed_a_few_are_computed() -> None:
    it = scheduler()
    _, before, _ = serve(it, OLD + LATER)
    it.add(one := sequence(LATER + NEW))
    plan = it.plan()
    assert [(chunk.start, chunk.count, chunk.completes) for chunk in plan] == [(0, 4, False)]
    (move,) = it.take_moves()
    assert move.sources.tolist() == before[304:700]
    assert move.targets.tolist() == slots(one, 4, 400)
    assert set(move.distances.tolist()) == {300}
    it.check_integrity()
    it.advance(plan)
    assert [(chunk.start, chunk.count) for chunk in it.plan()] == [(400, 50)]
    assert (one.shifted_from, one.cached_tokens, it.counters.prompt_tokens_shifted) == (4, 396, 396)


def test_the_first_tokens_may_take_several_steps() -> None:
    it = scheduler()
    serve(it, OLD + LATER)
    it.token_budget = 3
    it.add(sequence(LATER + NEW))
    for expected in ((0, 3), (3, 1), (400, 3)):
        plan = it.plan()
        assert [(chunk.start, chunk.count) for chunk in plan] == [expected]
        it.advance(plan)
        it.check_integrity()


def test_leaving_before_the_moved_tokens_count_leaves_nothing_behind() -> None:
    it = scheduler()
    serve(it, OLD + LATER)
    it.token_budget = 3
    it.add(one := sequence(LATER + NEW))
    it.advance(it.plan())
    it.restart()
    assert (one.computed, one.moved, one.shifted_from) == (0, None, None)
    it.check_integrity()
    it.finish(one)
    assert it.blocks.num_free == it.blocks.num_blocks


def test_two_hundred_are_enough() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER[:200])
    one, _, _ = serve(it, SYSTEM + LATER[:200] + NEW)
    assert one.cached_tokens == 300


@pytest.mark.parametrize(("length", "found"), [(9, 0), (10, 10), (11, 11)])
def test_a_past_of_the_least_length_is_worth_it(length: int, found: int) -> None:
    """It is shorter than a block, and hence nobody's prefix."""
    it = scheduler(least=10)
    serve(it, OLD[:length])
    one, _, _ = serve(it, OLD[:length] + NEW)
    assert (one.cached_tokens, it.counters.prompt_tokens_shifted) == (found, found)


def test_of_a_past_that_is_the_whole_prompt_one_token_is_left_to_compute() -> None:
    it = scheduler(least=10)
    serve(it, OLD[:12])
    it.add(sequence(OLD[:12]))
    assert [(chunk.start, chunk.count) for chunk in it.plan()] == [(11, 1)]


@pytest.mark.parametrize(("length", "found"), [(200, 96), (201, 300)])
def test_the_least_length_in_front_of_the_last_token_is_enough(length: int, found: int) -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    one, _, _ = serve(it, SYSTEM + LATER[:length])
    assert one.cached_tokens == found


@pytest.mark.parametrize(("others", "found"), [(31, 500), (32, 96)])
def test_the_last_32_sequences_are_remembered(others: int, found: int) -> None:
    it = scheduler(blocks=600)
    serve(it, SYSTEM + OLD + LATER)
    for number in range(others):
        serve(it, ids(100 + number, 200))
    one, _, _ = serve(it, SYSTEM + LATER + NEW)
    assert one.cached_tokens == found


def test_a_chat_is_remembered_once_however_many_turns_it_has_had() -> None:
    it = scheduler(blocks=600)
    serve(it, SYSTEM + OLD + LATER)
    other = ids(9, 400)
    for length in range(240, 400, 4):
        serve(it, other[:length])
    one, _, _ = serve(it, SYSTEM + LATER + NEW)
    assert one.cached_tokens == 500


def test_what_the_prefix_cache_has_of_shifted_text_is_exact() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    serve(it, SYSTEM + LATER + NEW)
    # too short to be shifted
    serve(it, SYSTEM + LATER[:45])
    it.add(one := sequence(SYSTEM + LATER + NEW + ids(6, 30)))
    assert [(chunk.start, chunk.count) for chunk in it.plan()] == [(550, 30)]
    assert one.shifted_from == 144
    it.check_integrity()


def test_tokens_in_front_of_moved_ones_are_found_by_others_when_they_are_computed() -> None:
    it = scheduler(blocks=1024, block_size=4)
    serve(it, OLD + LATER)
    it.token_budget = 3
    it.add(sequence(LATER + NEW))
    for found in (0, 4):
        it.advance(it.plan())
        other = sequence(LATER[:5])
        assert it.blocks.take_prefix(other) == found
        it.blocks.free(other)


def test_without_context_shift_nothing_is_moved() -> None:
    it = scheduler(shift=False)
    serve(it, SYSTEM + OLD + LATER)
    one, _, moves = serve(it, SYSTEM + LATER + NEW)
    assert (moves, one.cached_tokens, it.counters.prompt_tokens_shifted) == ([], 96, 0)


def test_shifted_tokens_are_nobodys_prefix() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    serve(it, SYSTEM + LATER + NEW)
    assert it.blocks.take_prefix(sequence(SYSTEM + LATER + NEW)) == 96


def test_a_chat_goes_on_from_its_shifted_tokens() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    _, before, _ = serve(it, SYSTEM + LATER + NEW)
    one, after, (move,) = serve(it, SYSTEM + LATER + NEW + ids(6, 30))
    assert one.cached_tokens == 550
    assert set(move.distances.tolist()) == {0}
    assert move.sources.tolist() == before[96:550]
    assert move.targets.tolist() == after[96:550]


def test_of_the_same_shifted_text_again_one_token_is_left_to_compute() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    serve(it, SYSTEM + LATER + NEW)
    it.add(sequence(SYSTEM + LATER + NEW))
    assert [(chunk.start, chunk.count) for chunk in it.plan()] == [(549, 1)]
    it.check_integrity()


def test_a_chat_that_was_cut_is_cut_again() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    _, before, _ = serve(it, SYSTEM + LATER + NEW)
    one, _, (move,) = serve(it, SYSTEM + LATER[100:] + NEW + ids(6, 30))
    assert one.cached_tokens == 450
    assert move.sources.tolist() == before[96:100] + before[200:550]
    assert move.distances.tolist() == [0] * 4 + [100] * 350


def test_a_part_may_be_cut_out_behind_shifted_tokens() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    _, before, _ = serve(it, SYSTEM + LATER)
    one, _, (move,) = serve(it, SYSTEM + LATER[:100] + LATER[150:] + NEW)
    assert one.cached_tokens == 450
    assert move.sources.tolist() == before[96:200] + before[250:500]
    assert move.distances.tolist() == [0] * 104 + [50] * 250


def test_the_longest_match_counts() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    serve(it, SYSTEM + OLD + LATER[:250])
    one, _, _ = serve(it, SYSTEM + LATER + NEW)
    assert one.cached_tokens == 500


def test_the_smallest_gap_is_taken() -> None:
    it = scheduler()
    _, before, _ = serve(it, SYSTEM + OLD + LATER + OLD + LATER)
    _, _, (move,) = serve(it, SYSTEM + LATER + NEW)
    assert move.sources[-1] == before[799]


def test_a_match_ends_where_a_block_has_been_handed_out_anew() -> None:
    it = scheduler(blocks=60)
    serve(it, SYSTEM + OLD + LATER)
    # ten blocks were never used; of the others the last ones go first
    serve(it, ids(7, 16 * 15))
    one, _, (move,) = serve(it, SYSTEM + LATER + NEW)
    assert one.cached_tokens == 800 - 5 * 16 - 300
    assert len(move.sources) == one.cached_tokens - 96
    serve(it, ids(8, 16 * 60))
    one, _, moves = serve(it, SYSTEM + LATER + NEW)
    assert (one.cached_tokens, moves) == (0, [])


def test_a_cache_of_one_context_is_enough() -> None:
    """Targets then lie in what were sources: the moves are read before they are written."""
    it = scheduler(blocks=50)
    serve(it, SYSTEM + OLD + LATER)
    one, _, (move,) = serve(it, SYSTEM + LATER + NEW)
    assert one.cached_tokens == 500
    assert set(move.sources.tolist()) & set(move.targets.tolist())


def test_a_waiting_sequence_moves_nothing() -> None:
    it = scheduler(blocks=60)
    serve(it, SYSTEM + OLD + LATER)
    it.add(other := sequence(ids(9, 16 * 30), max_tokens=2))
    it.plan()
    it.add(one := sequence(SYSTEM + LATER + NEW))
    it.check_integrity()
    assert [chunk.sequence for chunk in it.plan()] == [other]
    assert it.take_moves() == []
    assert (one.computed, one.shifted_from, one.block_table) == (0, None, [])


def test_what_must_be_computed_anew_takes_nothing_over() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    for tokens in (SYSTEM + OLD + LATER, SYSTEM + LATER + NEW):
        it.add(one := sequence(tokens))
        one.anew = True
        assert [(chunk.start, chunk.count) for chunk in it.plan()] == [(0, len(tokens))]
        it.finish(one)
    assert it.take_moves() == []


def test_what_was_computed_anew_is_not_remembered() -> None:
    it = scheduler()
    it.add(one := sequence(SYSTEM + OLD + LATER))
    one.anew = True
    it.advance(it.plan())
    it.finish(one)
    _, _, moves = serve(it, SYSTEM + LATER + NEW)
    assert moves == []


def test_a_sequence_that_has_made_tokens_goes_on_as_it_was() -> None:
    """It comes back from a preemption: a shift would be one more chance for its reply to change."""
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    it.add(one := sequence(SYSTEM + LATER))
    one.tokens += NEW
    assert [(chunk.start, chunk.count) for chunk in it.plan()] == [(96, 454)]
    assert it.take_moves() == []


def test_restart_forgets() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    it.restart()
    one, _, moves = serve(it, SYSTEM + LATER + NEW)
    assert (one.cached_tokens, moves) == (0, [])


def test_rewinding_to_in_front_of_shifted_tokens_makes_a_sequence_exact_again() -> None:
    it = scheduler()
    serve(it, SYSTEM + OLD + LATER)
    it.add(one := sequence(SYSTEM + LATER + NEW))
    it.advance(it.plan())
    assert one.shifted_from == 100
    it.blocks.truncate(one, 510)
    assert one.computed == 510
    assert one.shifted_from == 100
    it.blocks.truncate(one, 100)
    assert one.computed == 100
    assert one.shifted_from is None
    it.check_integrity()


class ShiftMachine(RuleBasedStateMachine):
    """The scheduler against a cache whose slots remember what they hold.

    That is a token, the position its key is turned to, and whether all that it was computed from was exact.
    Prompts are what chats make: earlier ones continued, with a part cut out, or cut short.
    """

    LEAST, SIZE, BLOCKS = 6, 4, 24

    def __init__(self) -> None:
        super().__init__()
        self.it = scheduler(self.BLOCKS, block_size=self.SIZE, least=self.LEAST, budget=16)
        self.cache: dict[int, tuple[int, int, bool]] = {}
        self.fresh = count(10)
        self.known = [[next(self.fresh) for _ in range(30)]]

    def slot(self, one: Sequence, place: int) -> int:
        return one.block_table[place // self.SIZE] * self.SIZE + place % self.SIZE

    @rule(
        pick=st.randoms(use_true_random=False),
        front=st.booleans(),
        cut=st.integers(0, 20),
        more=st.integers(1, 20),
        new=st.booleans(),
    )
    def add(self, pick: Random, front: bool, cut: int, more: int, new: bool) -> None:
        tokens = list(pick.choice(self.known[-4:]))
        at = 0 if front else pick.randrange(len(tokens) // 2 + 1)
        del tokens[at : at + cut]
        tokens += [next(self.fresh) if new else 5 for _ in range(more)]
        tokens = tokens[: self.SIZE * self.BLOCKS - 10]
        self.known.append(tokens)
        self.it.add(sequence(tokens, max_tokens=pick.randrange(1, 10)))

    @precondition(lambda self: self.it.has_work)
    @rule(steps=st.integers(1, 20))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            plan = self.it.plan()
            self.perform(self.it.take_moves())
            self.compute(plan)
            done = [chunk.sequence for chunk in plan if chunk.completes]
            self.it.advance(plan)
            self.every_context_is_its_own_and_as_exact_as_it_says()
            for one in done:
                one.tokens.append(next(self.fresh))
                if one.generated >= one.request.max_tokens:
                    self.known.append(one.tokens)
                    self.it.finish(one)

    def perform(self, moves: list[Move]) -> None:
        read = [self.cache[slot] for move in moves for slot in move.sources.tolist()]
        targets = [slot for move in moves for slot in move.targets.tolist()]
        distances = [distance for move in moves for distance in move.distances.tolist()]
        assert len(set(targets)) == len(targets)
        for (token, place, exact), target, distance in zip(read, targets, distances, strict=True):
            self.cache[target] = token, place - distance, exact and distance == 0

    def compute(self, plan: Plan) -> None:
        for chunk in plan:
            one, stop = chunk.sequence, chunk.start + chunk.count
            exact = all(self.cache[self.slot(one, place)][2] for place in range(chunk.start))
            for place in range(chunk.start, stop):
                self.cache[self.slot(one, place)] = one.tokens[place], place, exact

    @precondition(lambda self: self.it.has_work)
    @rule(pick=st.randoms(use_true_random=False))
    def leave(self, pick: Random) -> None:
        self.it.finish(pick.choice([*self.it.running, *self.it.waiting]))

    @rule(dice=st.integers(1, 8))
    def restart(self, dice: int) -> None:
        if dice > 1:
            return
        self.it.restart()
        # whoever still finds something will miss its slots
        self.cache.clear()

    @invariant()
    def books_agree(self) -> None:
        self.it.check_integrity()

    @invariant()
    def every_context_is_its_own_and_as_exact_as_it_says(self) -> None:
        for one in self.it.running:
            for place in range(one.computed):
                token, position, exact = self.cache[self.slot(one, place)]
                assert (token, position) == (one.tokens[place], place)
                assert exact or (one.shifted_from is not None and place >= one.shifted_from)
            for place in one.moved or ():
                assert self.cache[self.slot(one, place)][:2] == (one.tokens[place], place)


ShiftMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestShiftMachine = ShiftMachine.TestCase
