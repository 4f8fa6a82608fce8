"""One request's books: its times, and what a way back leaves of its bans."""

from engine.sequence import Sequence
from engine.types import GenerationRequest, TokenPrompt, Usage


def sequence(prompt: int = 4, max_tokens: int = 9) -> Sequence:
    request = GenerationRequest("x", TokenPrompt(tuple(range(prompt))), max_tokens)
    return Sequence.from_request(request)


def test_times_are_those_of_the_prompt_and_of_the_tokens_behind_it() -> None:
    one = sequence()
    assert one.usage(50.0, seed=7) == Usage(4, 0, seed=7)
    one.started_at = 20.0
    assert one.usage(50.0, seed=7) == Usage(4, 0, prompt_seconds=30.0, seed=7)
    one.first_token_at = 24.0
    one.tokens += [5, 6]
    expected = Usage(4, 2, prompt_seconds=4.0, decode_seconds=26.0, seed=7)
    assert one.usage(50.0, seed=7) == expected
    # a clock may begin at 0
    one.started_at = 0.0
    assert one.usage(50.0, seed=7).prompt_seconds == 24.0
    one.first_token_at = 0.0
    assert one.usage(50.0, seed=7).decode_seconds == 50.0


def test_the_first_of_the_tokens_that_go_back_is_banned_there() -> None:
    one = sequence()
    one.tokens += [10, 11, 12]
    one.take_back(2)
    assert (one.tokens, one.banned_at) == ([0, 1, 2, 3, 10], {5: {11}})
    one.tokens += [13]
    one.take_back(1)
    assert one.banned_at == {5: {11, 13}}


def test_bans_further_on_go_with_the_tokens_in_front_of_them() -> None:
    one = sequence()
    one.tokens += [10, 11, 12]
    one.take_back(1)
    one.tokens += [14]
    one.take_back(2)
    assert one.banned_at == {5: {11}}
    one.tokens += [15, 16]
    one.take_back(1)
    # that ban in front still holds
    assert one.banned_at == {5: {11}, 6: {16}}


def test_tokens_that_were_taken_back_stay_drawn() -> None:
    one = sequence(max_tokens=3)
    one.tokens += [10, 11]
    one.drawn = 2
    one.take_back(2)
    assert (one.generated, one.left) == (0, 1)


def test_moved_tokens_count_once_those_in_front_do() -> None:
    one = sequence(12)
    one.moved = range(4, 10)
    assert (one.missing, one.remaining) == (4, 12)
    one.advance(3)
    assert (one.computed, one.missing) == (3, 1)
    one.advance(1)
    assert (one.computed, one.missing) == (10, 2)
