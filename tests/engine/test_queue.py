"""Who is let in next, and who gives up a place."""

from engine.queue import MOST_PASSES, MOST_SENT_BACK, Queue, follows, gives_way
from engine.sequence import Sequence
from engine.types import GenerationRequest, TokenPrompt


def sequence(name: str, client: str = "", tokens: int = 8) -> Sequence:
    ids = tuple(range(tokens))
    return Sequence.from_request(GenerationRequest(name, TokenPrompt(ids), 8, client=client))


def queue(*sequences: Sequence) -> Queue:
    found = Queue()
    for one in sequences:
        found.add(one)
    return found


def names(sequences: list[Sequence]) -> str:
    return " ".join(one.id for one in sequences)


def test_clients_with_fewer_places_go_first_then_who_came_earlier() -> None:
    running = [sequence("r1", "a"), sequence("r2", "a"), sequence("r3", "b")]
    it = queue(*(sequence(f"{client}{at}", client) for client in "abc" for at in (1, 2)))
    assert names(it.next(running, 6)) == "c1 b1 c2 a1 b2 a2"
    assert names(it.next(running, 2)) == "c1 b1"
    assert it.next(running, 0) == []


def test_one_that_has_made_tokens_goes_first() -> None:
    preempted = sequence("p", "a")
    preempted.tokens.append(5)
    it = queue(sequence("b", "b"), preempted)
    assert names(it.next([sequence("r", "a")], 2)) == "p b"
    assert it.next([], 2, stuck=[preempted]) == []


def test_nobody_passes_one_that_was_passed_often() -> None:
    first, second = sequence("x"), sequence("y")
    it = queue(first, second)
    assert names(it.next([], 2, stuck=[first])) == "y"
    assert names(it.next([], 2, following=[first])) == "y"
    first.passed = MOST_PASSES
    assert it.next([], 2, stuck=[first]) == []
    assert names(it.next([], 2)) == "x y"


def test_who_was_sent_back_keeps_its_age() -> None:
    first, second = sequence("x"), sequence("y")
    it = queue(first, second)
    it.remove(first)
    it.put_back(first)
    assert names(list(it)) == "x y"


def test_the_youngest_reader_of_the_client_with_the_most_places_gives_way() -> None:
    running = [sequence(f"{client}{at}", client) for client, at in ("a1", "a2", "b1", "b2", "a3", "c1")]
    for at, one in enumerate(running):
        one.arrival = at
    a1, a2, b1, b2, a3, c1 = running
    assert gives_way(running, running) is a3
    assert gives_way(running, [a1, a2, b2, c1]) is a2
    for one in (a1, a2, a3):
        one.sent_back = MOST_SENT_BACK
    assert gives_way(running, running) is b2
    b2.shifted_from, b1.anew = 3, True
    assert gives_way(running, running) is None, "c has no other place"


def test_who_follows_whom() -> None:
    reader, other = sequence("r", tokens=20), sequence("o", tokens=12)
    assert follows(other, [reader], 4)
    reader.computed = 8
    assert not follows(other, [reader], 4), "the last token is computed by each"
    reader.computed = 4
    other.tokens[5] = 99
    assert not follows(other, [reader], 4)
    other.tokens[5] = 5
    other.anew = True
    assert not follows(other, [reader], 4)
