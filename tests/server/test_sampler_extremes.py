"""Numbers at their end in the fields of the samplers, as JSON writes them, against a live server."""

import json
from typing import get_args

import pytest

from server.wire.lenient import Count, Real
from server.wire.sampler_fields import SamplerFields
from tests.server.live import LiveServer

GENERATE = "/api/v1/generate"
KINDS = [get_args(kind) for kind in (Real, Count)]
NUMBERS = sorted(
    name
    for name, field in SamplerFields.model_fields.items()
    if (field.annotation, *field.metadata[-1:]) in KINDS
)


def body(**literals: str) -> bytes:
    """A request with literals of JSON's readers, which may be none of JSON's own."""
    told = {"prompt": json.dumps("the the the"), "max_length": "3", "logprobs": "true"} | literals
    return ("{" + ", ".join(f'"{name}": {literal}' for name, literal in told.items()) + "}").encode()


def test_the_numbers_are_found() -> None:
    assert len(NUMBERS) >= 28
    assert {"temperature", "top_k", "dry_base", "xtc_threshold", "adaptive_decay"} <= set(NUMBERS)


@pytest.mark.parametrize(
    "literal",
    ["0", "-0.0", "5e-324", "-5e-324", "1e-40", "1e39", "1e308", "1e400", "-1e400", "Infinity", "-Infinity"],
)
def test_every_number_has_a_meaning(server: LiveServer, literal: str) -> None:
    several = [dict.fromkeys(NUMBERS, literal), *({name: literal} for name in NUMBERS)]
    for literals in several:
        answer = server.post(GENERATE, body(**literals))
        assert answer.status == 200, (literals, answer.body)
        [made] = answer.json["results"]
        assert made["finish_reason"] in ("stop", "length")
        json.dumps(made, allow_nan=False)


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_refused_by_name(server: LiveServer, name: str) -> None:
    answer = server.post(GENERATE, body(**{name: "NaN"}))
    assert (answer.status, answer.json["detail"]["msg"]) == (422, f"{name}: must be a number")


@pytest.mark.parametrize(
    ("literals", "greedy"),
    [
        ({"temperature": "5e-324"}, True),
        ({"temperature": "1e-9"}, True),
        ({"top_p": "0"}, True),
        ({"min_p": "1e400"}, True),
        ({"temperature": "1e400", "top_k": "0", "top_p": "1"}, False),
    ],
)
def test_the_limit_is_that_of_greed_or_of_chance(
    server: LiveServer, literals: dict[str, str], greedy: bool
) -> None:
    def text(seed: int, **more: str) -> str:
        wanted = {"sampler_seed": str(seed), "max_length": "12", "ban_eos_token": "true"} | more
        return str(server.post(GENERATE, body(**wanted)).json["results"][0]["text"])

    texts = {text(seed, **literals) for seed in range(1, 5)}
    assert (texts == {text(1, temperature="0")}) is greedy
    assert len(texts) == (1 if greedy else 4)
