"""How a budget of prompt tokens is divided among clients, in one step and over many."""

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.fair_share import OLDEST_EVERY, QUANTUM, FairShare
from engine.sequence import Sequence
from engine.types import GenerationRequest, TokenPrompt

STEPS = 40


def sequence(client: str, prompt: int, arrival: int) -> Sequence:
    request = GenerationRequest(f"{client}{arrival}", TokenPrompt(tuple(range(prompt))), 8, client=client)
    one = Sequence.from_request(request)
    one.arrival = arrival
    return one


def step(shares: FairShare, budget: int, sequences: list[Sequence]) -> dict[str, int]:
    """One step of those that have tokens left; what each client gets of it."""
    grants = shares.grant(budget, [one for one in sequences if one.remaining])
    shares.note([one for one in sequences if one.remaining], [one for one, _ in grants])
    spent: Counter[str] = Counter()
    for one, count in grants:
        assert 0 < count <= one.remaining
        one.advance(count)
        spent[one.client] += count
    return dict(spent)


def test_each_client_gets_the_same_however_much_it_asks_for() -> None:
    work = [sequence("a", 900, at) for at in range(5)] + [sequence("b", 900, 9), sequence("c", 10, 10)]
    assert step(FairShare(), 210, work) == {"a": 100, "b": 100, "c": 10}


def test_the_shortest_of_a_client_goes_first_and_the_oldest_now_and_then() -> None:
    shares, long = FairShare(), sequence("a", 1000, 0)
    first = []
    for at in range(1, 2 * OLDEST_EVERY + 1):
        work = [long, sequence("a", QUANTUM, at)]
        grants = shares.grant(QUANTUM, work)
        shares.note(work, [one for one, _ in grants])
        first.append(grants[0][0] is long)
    assert first == [False, False, False, True] * 2


def test_one_that_has_made_tokens_goes_first() -> None:
    reply = sequence("a", 500, 0)
    reply.tokens += [7, 7]
    grants = FairShare().grant(20, [sequence("a", 5, 1), reply])
    assert [(one, count) for one, count in grants] == [(reply, 20)]


def test_a_small_budget_is_not_broken_up() -> None:
    shares, work = FairShare(), [sequence(f"{at}", 100, at) for at in range(6)]
    found = [step(shares, 2 * QUANTUM + 3, work) for _ in range(3)]
    assert [set(each) for each in found] == [{"0", "1"}, {"2", "3"}, {"4", "5"}]
    assert all(count >= QUANTUM for each in found for count in each.values())


def test_new_clients_do_not_keep_one_from_its_share() -> None:
    """Each step brings a client, and serves one."""
    shares, work = FairShare(), [sequence("long", 1000, 0)]
    served: list[str] = []
    for at in range(1, 41):
        work.append(sequence(f"new{at}", QUANTUM, at))
        served += step(shares, QUANTUM, work)
    turns = [at for at, name in enumerate(served) if name == "long"]
    assert len(turns) >= 7
    # No more clients are in front of it than were there at its last turn.
    assert all(after - before <= before + 2 for before, after in pairwise(turns))


def test_a_new_client_does_not_wait_for_a_whole_round() -> None:
    shares, work = FairShare(), [sequence(f"{at}", 1000, at) for at in range(8)]
    for _ in range(11):
        step(shares, QUANTUM, work)
    work.append(sequence("new", 5, 99))
    assert "new" in {name for _ in range(2) for name in step(shares, QUANTUM, work)}


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 400)), min_size=1, max_size=12),
    st.integers(1, 300),
    st.data(),
)
def test_shares_are_fair_within_a_bound(
    work: list[tuple[int, int]], budget: int, data: st.DataObject
) -> None:
    """None of the clients with work all the time gets twice what another gets; all of the budget is used.

    What one leaves of its share goes to those that are served in the same step.

    Further requests come while the first ones are served, also such that are always shorter.
    """
    shares = FairShare()
    sequences = [sequence(f"{client}", size, at) for at, (client, size) in enumerate(work)]
    oldest = sequences[0]
    seen = 0
    clients = len({"0", "1", "new", *(one.client for one in sequences)})
    total: Counter[str] = Counter()
    first = {one.client for one in sequences}
    always = {name: sum(size for client, size in work if f"{client}" == name) >= budget for name in first}
    for at in range(STEPS):
        if data.draw(st.booleans()):
            client = data.draw(st.sampled_from(["0", "1", "new"]))
            sequences.append(sequence(client, data.draw(st.integers(1, 20)), 100 + at))
        left = sum(one.remaining for one in sequences)
        before = oldest.remaining
        spent = step(shares, budget, sequences)
        assert sum(spent.values()) == min(budget, left)
        total.update(spent)
        backlog: Counter[str] = Counter()
        for one in sequences:
            backlog[one.client] += one.remaining
        # Who has less than a budget may use less than a share.
        always = {client: known and backlog[client] >= budget for client, known in always.items()}
        seen = 0 if oldest.remaining <= max(0, before - min(QUANTUM, budget)) else seen + 1
        if oldest.remaining:
            assert seen < 2 * OLDEST_EVERY * clients
    known = [total[client] for client, busy in always.items() if busy]
    if known:
        assert max(known) <= 2 * min(known) + 2 * max(QUANTUM, budget)
