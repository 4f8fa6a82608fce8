"""A checkpoint gives back what it took, and nothing else gets in by it."""

import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.checkpoint import Checkpoint
from engine.errors import ConfigError
from tests.converter.jobs import Bench, disturb, trainable

JOB = {"model": "ab", "rank": 4, "selective layers": ["blk.0.attn_q.weight"], "reference": None, "seed": 0}


def saved(path: Path) -> Checkpoint:
    factors = {"blk.0.attn_q.weight": (torch.randn(4, 6), torch.randn(4, 5))}
    adam = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4, 6)}},
        "param_groups": [{"lr": 0.1}],
    }
    checkpoint = Checkpoint(JOB, blocks=2, steps=3, factors=factors, adam=adam)
    checkpoint.save(path)
    return checkpoint


def test_it_comes_back(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "c")
    loaded = Checkpoint.load(tmp_path / "c", dict(JOB))
    assert (loaded.job, loaded.blocks, loaded.steps) == (JOB, 2, 3)
    for one, other in zip(
        checkpoint.factors["blk.0.attn_q.weight"], loaded.factors["blk.0.attn_q.weight"], strict=True
    ):
        assert torch.equal(one, other)
    assert torch.equal(loaded.adam["state"][0]["exp_avg"], torch.ones(4, 6))
    assert list(tmp_path.iterdir()) == [tmp_path / "c"]


def test_it_takes_a_models_factors_and_gives_them_to_another(bench: Bench) -> None:
    one, other = trainable(bench.base), trainable(bench.base, seed=1)
    disturb(one)
    checkpoint = Checkpoint({})
    checkpoint.take(one)
    kept = [factor.clone() for factor in one.parameters]
    disturb(one, seed=5)  # what was taken does not change with the model
    checkpoint.give(other)
    for factor, expected in zip(other.parameters, kept, strict=True):
        assert torch.equal(factor, expected)


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"rank": 8}, "rank"), ({"seed": 1, "model": "cd"}, "model, seed"), ({"another": 1}, "another")],
)
def test_another_jobs_is_refused_by_what_differs(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    saved(tmp_path / "c")
    with pytest.raises(ConfigError, match=rf"another conversion \(different: {named}\)"):
        Checkpoint.load(tmp_path / "c", JOB | changes)


def refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="no checkpoint, or a damaged one") as caught:
        Checkpoint.load(path, JOB)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "raw", [b"", b"\0", b"garbage", b"PK\x03\x04", b"\x80\x02}q\0.", b"\x80\x04K\x01.", b"cos\nsystem\n."]
)
def test_garbage_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "c").write_bytes(raw)
    refused(tmp_path / "c")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_truncated_one_is_refused(tmp_path: Path, share: float) -> None:
    saved(tmp_path / "c")
    raw = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(raw[: int(share * len(raw))])
    refused(tmp_path / "c")


def test_flipped_bits_are_refused_or_were_of_no_account(tmp_path: Path) -> None:
    """Wherever they are: in the structure of the file, or in the middle of the factors."""
    u, _ = saved(tmp_path / "c").factors["blk.0.attn_q.weight"]
    raw = (tmp_path / "c").read_bytes()
    rng = random.Random(0)
    places = [raw.index(u.numpy().tobytes()) + 5, *(rng.randrange(len(raw)) for _ in range(150))]
    refusals = []
    for place in places:
        damaged = bytearray(raw)
        damaged[place] ^= 1 << rng.randrange(8)
        (tmp_path / "c").write_bytes(damaged)
        try:
            loaded = Checkpoint.load(tmp_path / "c", JOB)
        except ConfigError:
            refusals.append(place)
        else:  # padding
            assert torch.equal(loaded.factors["blk.0.attn_q.weight"][0], u)
    assert places[0] in refusals
    assert len(refusals) > 30


@pytest.mark.parametrize(
    "value",
    [
        5,
        [1, 2],
        {"job": 5},
        {"blocks": 1},
        {"job": JOB, "blocks": "two"},
        {"job": JOB, "steps": None},
        {"job": JOB, "factors": [1]},
        {"job": JOB, "factors": {"blk.0.attn_q.weight": 3}},
        {"job": JOB, "adam": 1},
        {"job": JOB, "surplus": 1},
    ],
    ids=str,
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "c")
    refused(tmp_path / "c")


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("as_zip", [True, False])
def test_code_in_it_does_not_run(tmp_path: Path, as_zip: bool) -> None:
    trap = tmp_path / "trap"
    value = {"job": JOB, "adam": {"state": Malicious(trap)}}
    torch.save(value, tmp_path / "c", _use_new_zipfile_serialization=as_zip)
    refused(tmp_path / "c")
    (tmp_path / "c").write_bytes(pickle.dumps(value))
    refused(tmp_path / "c")
    assert not trap.exists()
    pickle.loads(pickle.dumps(Malicious(trap)))  # it would have
    assert trap.exists()


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    refused(tmp_path / "c")
