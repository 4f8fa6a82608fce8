"""The names that people know tensors by."""

from pathlib import Path

import pytest

from converter.selection import select_tensors
from engine.architectures import LlamaConfig, open_model
from engine.errors import ConfigError
from tests.support.gguf_files import write_llama

KINDS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
LAYERS = 12
LINEAR = [f"blk.{layer}.{kind}.weight" for layer in range(LAYERS) for kind in KINDS]
AVAILABLE = ["token_embd.weight", *LINEAR, "output.weight"]


def all_of(kind: str) -> list[str]:
    return [f"blk.{layer}.{kind}.weight" for layer in range(LAYERS)]


def test_every_linear_layer_is_the_default() -> None:
    assert select_tensors([], AVAILABLE, LAYERS) == LINEAR


@pytest.mark.parametrize("suffix", ["", ".weight"])
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("blk.0.ffn_gate", ["blk.0.ffn_gate.weight"]),
        ("output", ["output.weight"]),
        ("layers.0.feed_forward.w1", ["blk.0.ffn_gate.weight"]),
        ("layers.0.feed_forward.w2", ["blk.0.ffn_down.weight"]),
        ("layers.0.feed_forward.w3", ["blk.0.ffn_up.weight"]),
        ("layers.11.attention.wq", ["blk.11.attn_q.weight"]),
        ("layers.1.attention.wo", ["blk.1.attn_output.weight"]),
        ("model.layers.0.self_attn.q_proj", ["blk.0.attn_q.weight"]),
        ("model.layers.3.mlp.down_proj", ["blk.3.ffn_down.weight"]),
        ("blk.*.attn_k", all_of("attn_k")),
        ("*.ffn_up", all_of("ffn_up")),
        ("layers.*.feed_forward.w1", all_of("ffn_gate")),
        ("*.w1", all_of("ffn_gate")),
        ("model.layers.*.self_attn.v_proj", all_of("attn_v")),
        ("blk.?.attn_q", all_of("attn_q")[:10]),
        ("blk.[01].attn_q", all_of("attn_q")[:2]),
        ("layers.1[01].attention.wv", all_of("attn_v")[10:]),
    ],
)
def test_names_and_globs(pattern: str, suffix: str, expected: list[str]) -> None:
    assert select_tensors([pattern + suffix], AVAILABLE, LAYERS) == expected


def test_the_order_is_the_models_and_nothing_comes_twice() -> None:
    patterns = ["blk.1.attn_q", "blk.0.*", "layers.0.attention.wq"]
    expected = [name for name in LINEAR if name.startswith("blk.0.")] + ["blk.1.attn_q.weight"]
    assert select_tensors(patterns, AVAILABLE, LAYERS) == expected


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("blk.0.ffn_gte.weight", "blk.0.ffn_gate"),
        ("layers.0.feedforward.w1", "layers.0.feed_forward.w1"),
        ("model.layers.0.self_attn.qproj", "model.layers.0.self_attn.q_proj"),
        ("layers.12.attention.wq.weight", "layers.1.attention.wq"),
        ("blk.0.attn_norm.weight", "blk.0.attn_"),
    ],
)
def test_a_name_without_a_match_tells_what_is_near(pattern: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        select_tensors(["*.attn_q", pattern], AVAILABLE, LAYERS)
    message = str(caught.value)
    assert pattern in message
    assert near in message.split("did you mean")[1]
    assert "\n" not in message


def test_a_name_far_from_all_gets_no_advice() -> None:
    with pytest.raises(ConfigError, match=r"is called zzz$"):
        select_tensors(["zzz"], AVAILABLE, LAYERS)


def test_the_default_finds_all_matrices_of_a_models_blocks(tmp_path: Path) -> None:
    model = open_model(write_llama(tmp_path / "tiny.gguf"))
    assert isinstance(model.config, LlamaConfig)
    expected = {name for name, shape in model.config.tensors() if len(shape) == 2 and name.startswith("blk.")}
    assert set(select_tensors([], list(model.file.tensors), model.config.layers)) == expected
    model.file.close()
