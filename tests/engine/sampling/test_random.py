import pytest

from engine.sampling.random import MersenneTwister, fresh_seed
from tests.engine.sampling.oracle import mt19937


@pytest.mark.parametrize("seed", [0, 1, 5489, 2**32 - 1])
def test_numbers_are_outputs_of_mt19937_in_turn(seed: int) -> None:
    outputs, twister = mt19937(seed), MersenneTwister(seed)
    for turn in range(1000):
        if turn % 3:
            low, high = next(outputs), next(outputs)
            assert twister.uniform() == min((low + high * 2**32) / 2**64, 1 - 2**-53)
        else:
            single = twister.single()
            assert single == pytest.approx(next(outputs) / 2**32, abs=2**-24)
            assert single * 2**32 == int(single * 2**32)
            assert 0 <= single < 1


@pytest.mark.parametrize("seed", [-1, 2**32 + 7, -(2**63)])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    assert MersenneTwister(seed).uniform() == MersenneTwister(seed % 2**32).uniform()


def test_fresh_seeds_differ_and_are_positive() -> None:
    seeds = {fresh_seed() for _ in range(50)}
    assert len(seeds) > 45
    assert all(0 < seed < 2**31 for seed in seeds)
