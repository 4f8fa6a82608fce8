import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.architectures import open_model
from engine.errors import ModelFileError
from tests.support.gguf_files import Tensor, random_tensor, write_gguf, write_llama


def refusal(path: Path) -> str:
    """The message for a file, which must be one line that names it."""
    with pytest.raises(ModelFileError) as caught:
        open_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < 300 + len(str(path))
    return message


def test_a_good_file(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "x.gguf", n_kv_heads=1, head_dim=32, rope_scaling="yarn")
    model = open_model(path)
    config = model.config
    assert model.architecture == "llama"
    assert (config.layers, config.width, config.feed_forward) == (2, 64, 128)
    assert (config.heads, config.kv_heads, config.key_dim, config.value_dim) == (4, 1, 32, 32)
    assert config.vocab_size == len(model.file.metadata["tokenizer.ggml.tokens"])
    assert (config.rope.scaling, config.rope.factor, config.rope.original_context) == ("yarn", 4.0, 64)


def test_defaults_for_what_a_file_may_leave_out(tmp_path: Path) -> None:
    left_out = ("attention.head_count_kv", "rope.dimension_count", "rope.freq_base", "vocab_size")
    keys: dict[str, Any] = {f"llama.{name}": None for name in left_out}
    path = write_llama(tmp_path / "x.gguf", n_kv_heads=4, metadata=keys)
    config = open_model(path).config
    assert (config.kv_heads, config.rope.dimensions, config.rope.base) == (4, 16, 10000.0)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ("none", 1.0)),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}, ("linear", 2.0)),
        ({"rope.scale_linear": 4.0}, ("linear", 4.0)),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 1.0}, ("none", 1.0)),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 8.0}, ("none", 8.0)),
    ],
)
def test_rope_scaling(keys: Mapping[str, Any], expected: tuple[str, float], tmp_path: Path) -> None:
    metadata = {f"llama.{name}": value for name, value in keys.items()}
    rope = open_model(write_llama(tmp_path / "x.gguf", metadata=metadata)).config.rope
    assert (rope.scaling, rope.factor) == expected


@pytest.mark.parametrize("name", ["mamba", "llama4", "x" * 500])
def test_unknown_architecture(name: str, tmp_path: Path) -> None:
    message = refusal(write_llama(tmp_path / "x.gguf", architecture=name))
    assert repr(name)[:40] in message
    assert "supported: llama" in message


def test_mixture_of_experts(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "x.gguf", metadata={"llama.expert_count": 8})
    assert "mixture-of-experts" in refusal(path)


@pytest.mark.parametrize(
    "tensor",
    [
        "token_embd.weight",
        "output_norm.weight",
        "blk.0.attn_norm.weight",
        "blk.1.attn_q.weight",
        "blk.1.ffn_down.weight",
    ],
)
def test_missing_tensor(tensor: str, tmp_path: Path) -> None:
    path = write_llama(tmp_path / "x.gguf", drop=[tensor])
    assert refusal(path).endswith(f"the tensor {tensor} is missing")


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"llama.feed_forward_length": 96}, "blk.0.ffn_gate.weight has the shape 128 x 64"),
        ({"llama.attention.head_count_kv": 4}, "blk.0.attn_k.weight has the shape 32 x 64"),
        ({"llama.embedding_length": 128}, "token_embd.weight has the shape"),
        ({"llama.block_count": 3}, "blk.2.attn_norm.weight is missing"),
        ({"llama.attention.value_length": 8}, "blk.0.attn_v.weight has the shape"),
        ({"llama.rope.dimension_count": 8}, None),
    ],
)
def test_tensors_that_contradict_the_settings(
    metadata: dict[str, Any], named: str | None, tmp_path: Path
) -> None:
    path = write_llama(tmp_path / "x.gguf", metadata=metadata)
    if named is None:
        open_model(path)
    else:
        assert named in refusal(path)


OPTIONAL = (
    "output.weight",
    "output.bias",
    "token_embd.bias",
    "rope_freqs.weight",
    *(f"blk.1.{name}.bias" for name in ("attn_q", "attn_k", "attn_v", "attn_output")),
    *(f"blk.0.{name}.bias" for name in ("ffn_gate", "ffn_up", "ffn_down")),
)


@pytest.mark.parametrize("tensor", OPTIONAL)
def test_a_misshapen_optional_tensor(tensor: str, tmp_path: Path) -> None:
    path = write_llama(
        tmp_path / "x.gguf", tied=False, bias=True, rope_scaling="llama3", drop=[tensor], type="F32"
    )
    assert tensor not in open_model(path).tensors
    with_bad = add_tensor(path, tmp_path / "bad.gguf", tensor, (3, 64))
    assert f"{tensor} has the shape 3 x 64" in refusal(with_bad)


def test_a_bias_of_one_value(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "x.gguf", tied=False)
    vocab = open_model(path).config.vocab_size
    with_bad = add_tensor(path, tmp_path / "bad.gguf", "output.bias", (1,))
    assert f"output.bias has the shape 1; the file's own settings ask for {vocab}" in refusal(with_bad)


def test_what_no_model_is_made_of_is_left_alone(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "x.gguf", bias=True)
    other = add_tensor(path, tmp_path / "other.gguf", "blk.0.attn_q_norm.weight", (3, 64))
    model = open_model(other)
    assert "blk.0.attn_q_norm.weight" in model.file.tensors
    assert set(model.tensors) == set(open_model(path).tensors)
    assert "blk.1.attn_v.bias" in model.tensors


def add_tensor(source: Path, path: Path, name: str, shape: tuple[int, ...]) -> Path:
    """A copy of the file with one tensor more."""
    with open_model(source).file as file:
        metadata = dict(file.metadata)
        tensors = {
            info.name: random_tensor(np.random.default_rng(0), info.type.name, info.shape, "x.weight")
            for info in file.tensors.values()
        }
    tensors[name] = Tensor(np.zeros(shape, np.float32), tensors["output_norm.weight"].type)
    return write_gguf(path, metadata, tensors)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", "two"),
        ("block_count", 2.5),
        ("block_count", True),
        ("block_count", 0),
        ("block_count", -1),
        ("block_count", 2**31),
        ("block_count", None),
        ("embedding_length", 0),
        ("embedding_length", 2**31),
        ("feed_forward_length", None),
        ("context_length", None),
        ("context_length", 0),
        ("attention.head_count", 0),
        ("attention.head_count_kv", 3),
        ("attention.head_count_kv", 8),
        ("attention.head_count_kv", [2, 2]),
        ("attention.layer_norm_rms_epsilon", None),
        ("attention.layer_norm_rms_epsilon", -1e-5),
        ("attention.layer_norm_rms_epsilon", float("nan")),
        ("attention.layer_norm_rms_epsilon", "small"),
        ("attention.key_length", 0),
        ("attention.key_length", 2**14 + 2),
        ("attention.value_length", 2**14 + 2),
        ("rope.dimension_count", 7),
        ("rope.dimension_count", 18),
        ("rope.dimension_count", 0),
        ("rope.freq_base", 0.0),
        ("rope.freq_base", float("inf")),
        ("rope.scaling.type", "longrope"),
        ("rope.scaling.type", 5),
        ("rope.scaling.factor", -2.0),
        ("rope.scaling.factor", float("nan")),
    ],
)
def test_settings_that_make_no_sense(key: str, value: Any, tmp_path: Path) -> None:
    message = refusal(write_llama(tmp_path / "x.gguf", metadata={f"llama.{key}": value}))
    assert key.removeprefix("attention.").split("_kv")[0] in message or "key-value heads" in message


@pytest.mark.parametrize("tokens", [None, "words", 5])
def test_no_vocabulary(tokens: Any, tmp_path: Path) -> None:
    path = write_llama(tmp_path / "x.gguf", metadata={"tokenizer.ggml.tokens": tokens})
    assert "no vocabulary" in refusal(path)


def test_a_file_without_an_architecture(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "x.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"general.architecture", b"general.architecturE", 1))
    assert "does not name its architecture" in refusal(path)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "x.gguf")
    whole = path.read_bytes()
    for size in (0, 3, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refusal(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    refusal(tmp_path / "none.gguf")
    refusal(tmp_path)


def test_judging_does_without_torch(tmp_path: Path) -> None:
    good = write_llama(tmp_path / "good.gguf")
    bad = write_llama(tmp_path / "bad.gguf", drop=["output_norm.weight"])
    script = (
        "import sys\nfrom pathlib import Path\nfrom engine.architectures import open_model\n"
        "from engine.errors import ModelFileError\n"
        "open_model(Path(sys.argv[1]))\n"
        "try:\n    open_model(Path(sys.argv[2]))\n    sys.exit('accepted')\n"
        "except ModelFileError:\n    pass\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(good), str(bad)], check=True, timeout=60)
