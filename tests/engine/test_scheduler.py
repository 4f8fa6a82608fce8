from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.block_manager import BlockManager
from engine.metrics import Counters
from engine.pace import Pace
from engine.plan import Plan
from engine.queue import MOST_PASSES, MOST_SENT_BACK
from engine.scheduler import Scheduler
from engine.sequence import Sequence, SequenceState
from engine.types import GenerationRequest, TokenPrompt

BLOCK = 4


def scheduler(blocks: int = 64, *, sequences: int = 8, budget: int = 16) -> Scheduler:
    return Scheduler(
        BlockManager(blocks, BLOCK), max_sequences=sequences, token_budget=budget, counters=Counters()
    )


def sequence(name: str, prompt: int, max_tokens: int = 8, client: str = "") -> Sequence:
    # the name is the first token, so that no two share a prefix by accident
    ids = (sum(map(ord, name)), *range(1, prompt))
    return Sequence.from_request(GenerationRequest(name, TokenPrompt(ids), max_tokens, client=client))


def shape(plan: Plan) -> list[tuple[str, int, int]]:
    return [(chunk.sequence.id, chunk.start, chunk.count) for chunk in plan]


def step(what: Scheduler) -> Plan:
    """Plan, compute nothing, and let every sequence that has caught up make a token."""
    plan = what.plan()
    what.check_integrity()
    assert sum(chunk.count for chunk in plan) <= what.token_budget
    assert len({chunk.sequence.id for chunk in plan}) == len(plan)
    completes = [chunk.sequence for chunk in plan if chunk.completes]
    for chunk in plan:
        assert chunk.count > 0
        assert chunk.start == chunk.sequence.computed
        assert len(chunk.sequence.block_table) * BLOCK >= chunk.start + chunk.count
    what.advance(plan)
    for one in completes:
        one.tokens.append(500 + one.generated)
        if one.generated >= one.request.max_tokens:
            what.finish(one)
    what.check_integrity()
    return plan


def test_long_prompts_go_in_chunks() -> None:
    it = scheduler(budget=16)
    it.add(sequence("a", 40))
    assert [shape(step(it)) for _ in range(4)] == [
        [("a", 0, 16)],
        [("a", 16, 16)],
        [("a", 32, 8)],
        [("a", 40, 1)],
    ]


def test_decoding_goes_before_prompts_and_short_prompts_before_long_ones() -> None:
    it = scheduler(budget=16)
    it.add(sequence("a", 20))
    it.add(sequence("b", 3))
    it.add(sequence("c", 40))
    assert shape(step(it)) == [("b", 0, 3), ("a", 0, 13)]
    assert shape(step(it)) == [("b", 3, 1), ("a", 13, 7), ("c", 0, 8)]
    it.add(sequence("d", 4))
    assert shape(step(it)) == [("a", 20, 1), ("b", 4, 1), ("d", 0, 4), ("c", 8, 10)]
    assert shape(step(it)) == [("a", 21, 1), ("b", 5, 1), ("d", 4, 1), ("c", 18, 13)]


def test_a_younger_one_that_needs_a_single_token_goes_before_an_older_one_that_reads() -> None:
    it = scheduler(budget=16)
    it.add(old := sequence("a", 12))
    it.add(sequence("b", 3))
    step(it)
    it.blocks.truncate(old, 0)
    it.token_budget = 6
    assert shape(step(it)) == [("b", 3, 1), ("a", 0, 5)]


def test_a_single_token_goes_before_the_few_that_an_older_one_computes_again() -> None:
    it = scheduler(budget=16)
    it.add(old := sequence("a", 12))
    it.add(sequence("b", 3))
    step(it)
    step(it)
    it.blocks.truncate(old, 12)
    old.drawn = 1
    it.token_budget = 2
    assert shape(step(it)) == [("b", 4, 1), ("a", 12, 1)]


def test_no_more_sequences_than_allowed_and_first_come_first_served() -> None:
    it = scheduler(sequences=2)
    for name in "abc":
        it.add(sequence(name, 4, max_tokens=3))
    assert shape(step(it)) == [("a", 0, 4), ("b", 0, 4)]
    step(it)
    assert shape(step(it)) == [("a", 5, 1), ("b", 5, 1)]
    assert shape(step(it)) == [("c", 0, 4)]


def test_a_sequence_without_room_is_passed_only_so_often() -> None:
    it = scheduler(blocks=12, budget=40)
    it.add(sequence("a", 12, max_tokens=36))
    big = sequence("big", 40, max_tokens=1)
    it.add(big)
    arrived = 0
    while big.state is not SequenceState.FINISHED:
        if not any(one is not big for one in it.waiting):
            arrived += 1
            it.add(sequence(f"z{arrived}", 2, max_tokens=1))
        step(it)
        assert arrived < 20, "it is passed for ever"
    assert big.passed == MOST_PASSES


def test_tokens_of_running_prompts_keep_their_blocks() -> None:
    it = scheduler(blocks=8, budget=4)
    it.add(sequence("a", 20, max_tokens=1))
    it.add(sequence("b", 20, max_tokens=1, client="other"))
    while it.has_work:
        step(it)
    assert it.counters.preemptions == 0


def test_the_youngest_gives_its_blocks_to_the_oldest() -> None:
    it = scheduler(blocks=6)
    old, young = sequence("a", 8, max_tokens=9), sequence("b", 8, max_tokens=9)
    it.add(old)
    it.add(young)
    order = []
    while it.has_work:
        order.append([name for name, _, _ in shape(step(it))])
    assert it.counters.preemptions == 1
    assert (old.generated, young.generated) == (9, 9)
    alone = order.index(["a"])
    assert set(map(tuple, order[:alone])) == {("a", "b")}
    assert it.blocks.num_free == 6


def test_a_preempted_sequence_keeps_its_tokens_and_goes_to_the_head() -> None:
    it = scheduler(blocks=5)
    old, young, later = sequence("a", 8), sequence("b", 8), sequence("c", 1)
    it.add(old)
    it.add(young)
    step(it)
    it.add(later)
    while not it.counters.preemptions:
        step(it)
    assert [one.id for one in it.waiting] == ["b", "c"]
    assert young.state is SequenceState.WAITING
    assert (young.computed, young.block_table) == (0, [])
    assert young.tokens[:8] == [98, *range(1, 8)]
    assert young.generated >= 1


def test_a_restart_computes_everything_again_in_the_same_order() -> None:
    it = scheduler(sequences=2, budget=16)
    names = ("a", "b", "c")
    for name in names:
        it.add(sequence(name, 8))
    first = step(it)
    step(it)
    running = [chunk.sequence for chunk in first]
    tokens = [list(one.tokens) for one in running]
    it.restart()
    it.check_integrity()
    assert it.blocks.num_free == it.blocks.num_blocks
    assert [one.id for one in it.waiting] == list(names)
    assert [one.tokens for one in running] == tokens
    assert shape(step(it)) == [("a", 0, 10), ("b", 0, 6)]
    assert it.counters.preemptions == 0


def test_nobody_is_let_in_where_somebody_had_to_go() -> None:
    """The blocks that come free have room for one that waits: it is let in a step later."""
    it = scheduler(blocks=6, budget=4)
    it.add(old := sequence("a", 4, max_tokens=30))
    while old.computed < 11:
        step(it)
    it.add(young := sequence("b", 11, max_tokens=1))
    young.anew = True
    step(it)
    it.add(small := sequence("c", 3, max_tokens=1))
    assert shape(step(it)) == [("a", 12, 1), ("b", 3, 3)]
    assert shape(step(it)) == [("a", 13, 1)]
    assert it.counters.preemptions == 1
    assert list(it.waiting) == [young, small]
    assert it.blocks.num_free == 2
    assert shape(step(it)) == [("a", 14, 1), ("c", 0, 3)]


def test_nobody_is_let_in_where_a_reply_has_taken_the_blocks_of_a_prompt() -> None:
    it = scheduler(blocks=6, sequences=2, budget=2)
    it.add(old := sequence("a", 4, max_tokens=30))
    while old.computed < 11:
        step(it)
    it.add(young := sequence("b", 11, max_tokens=1))
    step(it)
    it.add(small := sequence("c", 3, max_tokens=1))
    while old.computed < 16:
        assert step(it)[1].sequence is young
    assert shape(step(it)) == [("a", 16, 1)]
    assert it.counters.preemptions == 1
    assert list(it.waiting) == [young, small]
    assert it.blocks.num_free == 1
    assert shape(step(it)) == [("a", 17, 1), ("c", 0, 1)]


def test_two_that_fill_the_cache_do_not_chase_each_other_out() -> None:
    it = scheduler(blocks=16, budget=8)
    for name in "ab":
        it.add(sequence(name, 4, max_tokens=60))
    computed = 0
    while it.has_work:
        computed += sum(count for _, _, count in shape(step(it)))
    assert it.counters.preemptions <= 3
    # nothing is computed twice but what the cache has lost
    assert computed <= 2 * 63 + 64


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_finish_in_any_state_gives_everything_back(steps: int) -> None:
    it = scheduler(blocks=16, budget=8)
    one = sequence("a", 20)
    it.add(one)
    for _ in range(steps):
        step(it)
    assert one.state is (SequenceState.RUNNING if steps else SequenceState.WAITING)
    it.finish(one)
    it.check_integrity()
    assert one not in (*it.running, *it.waiting)
    assert (it.has_work, it.blocks.num_free) == (False, 16)
    assert it.plan() == []


def test_cached_tokens_are_those_of_the_first_start() -> None:
    it = scheduler(blocks=16)
    it.add(first := sequence("a", 12, max_tokens=1))
    while it.has_work:
        step(it)
    it.add(second := sequence("a", 12, max_tokens=1))
    assert shape(step(it)) == [("a", 8, 4)]
    assert (first.cached_tokens, second.cached_tokens) == (0, 8)
    assert it.counters.prompt_tokens_cached == 8


@pytest.mark.parametrize(("prompt", "max_tokens", "cached"), [(40, 1, 8), (7, 35, 4)])
def test_what_a_preempted_sequence_finds_of_its_own_was_not_cached(
    prompt: int, max_tokens: int, cached: int
) -> None:
    it = scheduler(blocks=12, budget=8)
    it.add(sequence("b", 9, max_tokens=1))
    while it.has_work:
        step(it)
    it.add(sequence("a", 5, max_tokens=35))
    it.add(young := sequence("b", prompt, max_tokens))
    while not it.counters.preemptions:
        step(it)
    assert young.state is SequenceState.WAITING
    assert (young.generated > 0) == (prompt == 7)
    it.finish(it.running[0])
    assert shape(step(it))[0][1] > 8, "it finds its own tokens"
    assert young.cached_tokens == cached
    assert it.counters.prompt_tokens_cached == cached


def test_clients_share_a_step() -> None:
    it = scheduler(budget=96)
    for name in ("a1", "a2", "a3"):
        it.add(sequence(name, 60, client="a"))
    it.add(sequence("b1", 60, client="b"))
    it.add(sequence("c1", 10, client="c"))
    plan = step(it)
    spent = dict.fromkeys("abc", 0)
    for chunk in plan:
        spent[chunk.sequence.client] += chunk.count
    assert spent == {"a": 43, "b": 43, "c": 10}


def test_a_client_without_a_place_is_let_in_before_those_with_one() -> None:
    it = scheduler(sequences=3, budget=64)
    for name in ("a1", "a2", "a3", "a4"):
        it.add(sequence(name, 4, client="a", max_tokens=2 if name == "a1" else 9))
    step(it)
    it.add(sequence("b1", 4, client="b"))
    assert [name for name, _, _ in shape(step(it))] == ["a1", "a2", "a3"]
    assert [name for name, _, _ in shape(step(it))] == ["a2", "a3", "b1"]


def test_a_place_is_given_up_for_a_client_without_any() -> None:
    it = scheduler(blocks=200, sequences=3, budget=48)
    its = [sequence("a1", 4, client="a"), sequence("a2", 100, client="a"), sequence("c", 100, client="c")]
    for one in its:
        it.add(one)
    step(it)
    assert len(it.running) == 3
    it.add(sequence("b", 4, client="b", max_tokens=1))
    plan = step(it)
    assert [one.id for one in it.waiting] == ["a2"], "c has no other place, and a1 makes tokens"
    assert ("b", 0, 4) in shape(plan)


def test_places_that_were_given_up_cost_little_and_come_to_an_end() -> None:
    it = scheduler(blocks=400, sequences=2, budget=32)
    long = [sequence("a0", 200, client="a", max_tokens=1), sequence("a1", 120, client="a", max_tokens=1)]
    computed = 0
    for one in long:
        it.add(one)
        computed += sum(chunk.count for chunk in step(it))
    assert it.running == long
    arrived = 0
    while it.has_work:
        if arrived < 12 and not it.waiting:
            it.add(sequence(f"b{arrived}", 5, client=f"b{arrived}", max_tokens=1))
            arrived += 1
        computed += sum(chunk.count for chunk in step(it))
    given_up = sum(one.sent_back for one in long)
    assert 0 < given_up <= MOST_SENT_BACK * len(long)
    assert computed <= 200 + 120 + 12 * 5 + given_up * BLOCK
    assert all(one.cached_tokens == 0 for one in long), "its own tokens are not found, but kept"


def test_who_needs_the_same_tokens_waits_for_them() -> None:
    it = scheduler(budget=64)
    ids = tuple(range(1, 101))
    for name in "abc":
        it.add(Sequence.from_request(GenerationRequest(name, TokenPrompt((*ids, ord(name))), 1, client=name)))
    computed = 0
    while it.has_work:
        computed += sum(chunk.count for chunk in step(it))
    assert computed == 101 + 2
    assert it.counters.prompt_tokens_cached == 200


def test_prompts_beside_replies_go_by_the_pace() -> None:
    pace = Pace()
    it = Scheduler(
        BlockManager(400, BLOCK), max_sequences=8, token_budget=256, counters=Counters(), pace=pace
    )
    it.add(sequence("a", 4, max_tokens=100))
    step(it)
    it.add(sequence("b", 900, max_tokens=1))
    assert shape(step(it)) == [("a", 4, 1)], "nobody knows yet how long a step without b takes"
    pace.learn(it.load, 0.01)
    for count in (32, 40, 40, 40):
        assert shape(step(it))[1][2] == count
        assert (it.load.rows, it.load.prompt) == (1, count)
        # 0.3 ms for each token: 1.2 steps' time is enough for 40 of them
        pace.learn(it.load, 0.01 + count * 0.0003)
    it.finish(it.running[0])
    assert shape(step(it)) == [("b", 152, 256)]


@dataclass(frozen=True)
class Job:
    prompt: int
    max_tokens: int
    family: int
    arrives: int
    leaves: int | None
    client: int


jobs = st.lists(
    st.builds(
        Job,
        prompt=st.integers(1, 30),
        max_tokens=st.integers(1, 12),
        family=st.integers(0, 2),
        arrives=st.integers(0, 12),
        leaves=st.none() | st.integers(0, 25),
        client=st.integers(0, 3),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(jobs, st.integers(11, 30), st.integers(1, 5), st.integers(5, 40), st.sets(st.integers(0, 30)))
def test_whatever_comes_is_served_and_leaves_nothing_behind(
    work: list[Job], blocks: int, sequences: int, budget: int, restarts: set[int]
) -> None:
    it = scheduler(blocks, sequences=sequences, budget=budget)
    present: list[tuple[Job, Sequence]] = []
    clock = 0
    while it.has_work or clock <= 12:
        for number, job in enumerate(work):
            if job.arrives == clock:
                ids = (job.family, *range(1, job.prompt))
                one = Sequence.from_request(
                    GenerationRequest(str(number), TokenPrompt(ids), job.max_tokens, client=f"{job.client}")
                )
                present.append((job, one))
                it.add(one)
        for job, one in present:
            if job.leaves == clock and one.state is not SequenceState.FINISHED:
                it.finish(one)
        if clock in restarts:
            it.restart()
        waiting = it.has_work
        assert bool(step(it)) == waiting, "work, but no progress"
        assert len(it.running) <= sequences
        assert all(one.sent_back <= MOST_SENT_BACK for _, one in present)
        clock += 1
        assert clock < 5000, "does not end"
    for job, one in present:
        assert one.state is SequenceState.FINISHED
        assert job.leaves is not None or one.generated == job.max_tokens
    assert it.blocks.num_free == blocks


def extend(it: Scheduler, plan: Plan, **counts: int) -> None:
    """Offers a draft of so many tokens for the sequence of each name."""
    running = {one.id: one for one in it.running}
    it.extend(plan, {running[name]: list(range(900, 900 + count)) for name, count in counts.items()})


def test_a_draft_goes_behind_a_chunk_that_completes_its_sequence() -> None:
    it = scheduler(budget=16)
    it.add(sequence("a", 3))
    it.add(sequence("b", 40))
    plan = it.plan()
    extend(it, plan, a=2, b=2)
    assert shape(plan) == [("a", 0, 3), ("b", 0, 13)]
    assert [chunk.draft for chunk in plan] == [(), ()], "nothing was left of the budget"
    it.advance(plan)
    it.running[0].tokens.append(500)
    it.finish(it.running[1])
    plan = it.plan()
    extend(it, plan, a=5)
    assert [(chunk.completes, chunk.draft) for chunk in plan] == [(True, (900, 901, 902, 903, 904))]
    # 4 known tokens and 5 that may come
    assert len(it.running[0].block_table) == 3
    it.advance(plan)
    assert it.running[0].computed == 4, "a draft is not the sequence's"
    it.check_integrity()


def test_a_draft_is_cut_to_what_is_free() -> None:
    it = scheduler(blocks=3, budget=10)
    it.add(sequence("a", 4, max_tokens=8))
    it.add(sequence("b", 4, max_tokens=4))
    plan = it.plan()
    extend(it, plan, a=9)
    assert [chunk.draft for chunk in plan] == [(900, 901), ()], "the budget of 10 has 2 left"
    it.advance(plan)
    for one in it.running:
        one.tokens.append(500)
    # b needs the block that the draft of a took
    plan = it.plan()
    assert it.counters.preemptions == 1, "a keeps what it needs for its own token"
    extend(it, plan, a=9)
    assert [chunk.draft for chunk in plan] == [tuple(range(900, 907))], "8 tokens fit the two last blocks"
    it.check_integrity()


def test_blocks_of_rejected_drafts_are_there_for_others() -> None:
    it = scheduler(blocks=4, budget=40)
    it.add(sequence("a", 2, max_tokens=6))
    plan = it.plan()
    extend(it, plan, a=14)
    assert it.blocks.num_free == 0
    it.advance(plan)
    it.running[0].tokens.append(500)
    it.add(sequence("b", 12))
    assert shape(it.plan()) == [("a", 2, 1), ("b", 0, 12)]
    assert [len(one.block_table) for one in it.running] == [1, 3]
    assert it.counters.preemptions == 0
    it.check_integrity()


def test_accepted_tokens_are_computed_and_found_by_others() -> None:
    it = scheduler(budget=40)
    it.add(sequence("a", 3))
    plan = it.plan()
    extend(it, plan, a=4)
    it.advance(plan)
    (a,) = it.running
    a.tokens.append(900)
    it.accept(a)
    assert a.computed == len(a.tokens) == 4
    a.tokens.append(500)
    other = Sequence.from_request(GenerationRequest("b", TokenPrompt((*a.tokens[:4], 7)), 8))
    it.add(other)
    assert shape(it.plan()) == [("a", 4, 1), ("b", 4, 1)]
    it.check_integrity()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 12)), min_size=1, max_size=6),
    st.integers(9, 16),
    st.integers(8, 20),
    st.integers(1, 12),
)
def test_rejected_drafts_make_no_sequence_go_earlier(
    work: list[tuple[int, int]], blocks: int, budget: int, most: int
) -> None:
    """Up to the first preemption, which then comes in the same step, every plan is the one without drafts."""
    plain, drafted = (scheduler(blocks, sequences=4, budget=budget) for _ in range(2))
    for it in (plain, drafted):
        for number, (prompt, max_tokens) in enumerate(work):
            it.add(sequence(chr(ord("a") + number), prompt, max_tokens))
    while plain.has_work and not plain.counters.preemptions:
        plans = []
        for it in (plain, drafted):
            plan = it.plan()
            plans.append(shape(plan))
            if it is drafted:
                it.extend(plan, {chunk.sequence: [900] * most for chunk in plan})
            it.check_integrity()
            assert sum(chunk.count + len(chunk.draft) for chunk in plan) <= budget
            it.advance(plan)
            for one in [chunk.sequence for chunk in plan if chunk.completes]:
                one.tokens.append(500 + one.generated)
                if one.generated >= one.request.max_tokens:
                    it.finish(one)
        assert plans[0] == plans[1]
        assert plain.counters.preemptions == drafted.counters.preemptions
