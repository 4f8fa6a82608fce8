"""Token probabilities on the wire."""

import json
import math

import pytest

from engine.types import TokenLogprob
from server.wire.logprobs import LOWEST, chat_logprobs, completion_logprobs, kobold_logprobs

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
