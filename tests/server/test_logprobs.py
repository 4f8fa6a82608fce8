"""Token probabilities on the wire."""

import json
import math

import pytest

from engine.types import TokenLogprob
from server.wire.logprobs import (
    LOWEST,
    chat_logprobs,
    completion_logprobs,
    echo_logprobs,
    joined,
    kobold_logprobs,
)

IMPOSSIBLE = TokenLogprob(1, b"a", -math.inf, (TokenLogprob(1, b"a", -math.inf), TokenLogprob(2, b"b", -0.5)))


def test_a_probability_of_zero_can_be_said_in_json() -> None:
    [entry] = chat_logprobs([IMPOSSIBLE])
    assert [entry["logprob"], *(other["logprob"] for other in entry["top_logprobs"])] == [
        LOWEST,
        LOWEST,
        -0.5,
    ]
    older = completion_logprobs([IMPOSSIBLE])
    assert (older["token_logprobs"], older["top_logprobs"]) == ([LOWEST], [{"a": LOWEST, "b": -0.5}])
    json.dumps([entry, older, kobold_logprobs((IMPOSSIBLE,))], allow_nan=False)


@pytest.mark.parametrize("logprob", [0.0, -1e-9, -12.5])
def test_others_are_told_as_they_are(logprob: float) -> None:
    assert completion_logprobs([TokenLogprob(1, b"a", logprob)])["token_logprobs"] == [logprob]


def prompt(*pieces: bytes) -> list[TokenLogprob]:
    first, *others = pieces
    return [TokenLogprob(1, first, math.nan), *(TokenLogprob(2, raw, -1.0, (IMPOSSIBLE,)) for raw in others)]


@pytest.mark.parametrize(
    ("echo", "pieces", "offsets"),
    [
        ("ab c", (b"a", b"b", b" c"), [0, 1, 2]),
        ("ab c", (b"<s>", b"ab", b" c"), [0, 0, 2]),
        ("ab c", (b" ab", b" c"), [0, 2]),
        ("cut, ab c", (b"ab", b" c"), [5, 7]),
        ("é日x", (b"\xc3", b"\xa9", b"\xe6\x97", b"\xa5", b"x"), [0, 0, 1, 1, 2]),
        ("", (b"<s>",), [0]),
    ],
)
def test_offsets_of_a_prompt(echo: str, pieces: tuple[bytes, ...], offsets: list[int]) -> None:
    told = echo_logprobs(prompt(*pieces), len(echo))
    assert told["text_offset"] == offsets
    count = len(pieces)
    assert told["token_logprobs"] == [None] + [-1.0] * (count - 1)
    assert told["top_logprobs"] == [None] + [{"a": LOWEST}] * (count - 1)
    json.dumps(told, allow_nan=False)
    both = joined(told, completion_logprobs([IMPOSSIBLE], len(echo)))
    assert both["text_offset"] == [*offsets, len(echo)]
    assert {len(part) for part in both.values()} == {count + 1}
