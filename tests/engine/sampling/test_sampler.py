from collections import Counter

import pytest
import torch

from engine.sampling import MersenneTwister, Sampler, fresh_seed
from engine.types import GenerationRequest, SamplingParams, TokenPrompt


def request(name: str, **params: object) -> GenerationRequest:
    return GenerationRequest(name, TokenPrompt((0,)), 1, SamplingParams(**params))  # type: ignore[arg-type]


def mt19937(seed: int, count: int) -> list[int]:
    """The generator from its definition (Matsumoto and Nishimura 1998)."""
    state = [seed]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ state[-1] >> 30) + i) & 0xFFFFFFFF)
    out = []
    for number in range(count):
        i = number % 624
        mixed = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7FFFFFFF)
        state[i] = state[(i + 397) % 624] ^ mixed >> 1 ^ (0x9908B0DF if mixed & 1 else 0)
        y = state[i]
        y ^= y >> 11
        y ^= y << 7 & 0x9D2C5680
        y ^= y << 15 & 0xEFC60000
        out.append(y ^ y >> 18)
    return out


@pytest.mark.parametrize("seed", [0, 1, 5489, 2**32 - 1])
def test_uniform_is_two_outputs_of_mt19937(seed: int) -> None:
    outputs = mt19937(seed, 1400)
    twister = MersenneTwister(seed)
    for low, high in zip(outputs[::2], outputs[1::2], strict=True):
        assert twister.uniform() == min((low + high * 2**32) / 2**64, 1 - 2**-53)


@pytest.mark.parametrize("seed", [-1, 2**32 + 7, -(2**63)])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    assert 0 <= MersenneTwister(seed).uniform() < 1


def test_fresh_seeds_differ_and_are_positive() -> None:
    seeds = {fresh_seed() for _ in range(50)}
    assert len(seeds) > 45
    assert all(0 < seed < 2**31 for seed in seeds)


def test_rows_are_drawn_independently_of_their_company() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(5))
    names = ["a", "b", "c"]
    together, alone = Sampler(frozenset()), Sampler(frozenset())
    for number, name in enumerate(names):
        together.add(request(name, seed=number))
        alone.add(request(name, seed=number))
    for _ in range(5):
        drawn = together.sample(logits, [(name, [1, 2]) for name in names])
        one_by_one = [alone.sample(logits[i : i + 1], [(name, [1, 2])])[0] for i, name in enumerate(names)]
        assert drawn == one_by_one


def test_draws_follow_the_probabilities() -> None:
    sampler = Sampler(frozenset())
    sampler.add(request("a", seed=11))
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    counts = Counter(sampler.sample(probabilities.log()[None], [("a", [])])[0] for _ in range(2000))
    for token, p in enumerate(probabilities.tolist()):
        assert abs(counts[token] / 2000 - p) < 4 * (p * (1 - p) / 2000) ** 0.5


def test_the_seed_can_be_asked_for() -> None:
    sampler = Sampler(frozenset())
    sampler.add(request("given", seed=42))
    sampler.add(request("drawn", seed=None))
    assert sampler.seed("given") == 42
    assert sampler.seed("drawn") > 0
    sampler.remove("given")
    with pytest.raises(KeyError):
        sampler.seed("given")


def test_no_rows_no_tokens() -> None:
    assert Sampler(frozenset()).sample(torch.zeros(0, 10), []) == []
