"""The space of a search."""

from pathlib import Path

import pytest

from converter.tuning.plan import Layers, Mode
from engine.errors import ConfigError
from tests.converter.jobs import Bench
from tests.converter.tuning.searches import plan

TENSORS = [f"blk.{block}.{part}.weight" for block in range(2) for part in ("attn_q", "ffn_up", "ffn_down")]


@pytest.mark.parametrize(
    ("layers", "taken"),
    [
        (Layers.ALL, TENSORS),
        (Layers.ATTENTION, ["blk.0.attn_q.weight", "blk.1.attn_q.weight"]),
        (Layers.FEED_FORWARD, [name for name in TENSORS if "ffn" in name]),
        (Layers.FIRST_HALF, TENSORS[:3]),
        (Layers.SECOND_HALF, TENSORS[3:]),
    ],
)
def test_subsets_of_layers(layers: Layers, taken: list[str]) -> None:
    assert layers.take(list(TENSORS)) == taken


def test_the_halves_are_the_whole() -> None:
    for count in range(7):
        some = TENSORS[:count]
        assert Layers.FIRST_HALF.take(some) + Layers.SECOND_HALF.take(some) == some


def test_the_space(bench: Bench, tmp_path: Path) -> None:
    assert plan(bench, tmp_path).ranks == (2, 4, 6, 8)
    assert plan(bench, tmp_path, target_rank=4).ranks == (4,)
    for mode in Mode:
        layers = plan(bench, tmp_path, mode=mode).layers
        assert layers == (tuple(Layers) if mode is Mode.FULL else (Layers.ALL,))


def test_what_contradicts_itself(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1 trial, not 0"):
        plan(bench, tmp_path, trials=0)
    for changes in ({"theta_only": False}, {"choosing_windows": 0}, {"evaluate": False}):
        with pytest.raises(ConfigError, match="theta alone, windows for choosing, and a report"):
            plan(bench, tmp_path, **changes)
