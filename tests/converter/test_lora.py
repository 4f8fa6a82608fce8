"""Theta as a LoRA adapter: the rules of llama.cpp's reader, checked with the reference package."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader

from converter.lora import write_lora
from engine.errors import ConfigError, ModelFileError
from engine.gguf import GGUFFile, open_gguf
from tests.converter.thetas import TENSORS, random_factors, random_theta
from tests.support.gguf_files import write_llama


@pytest.fixture
def base(tmp_path: Path) -> Iterator[GGUFFile]:
    with open_gguf(write_llama(tmp_path / "base.gguf")) as file:
        yield file


@pytest.mark.parametrize("rank", [2, 8])
def test_the_adapters_term_is_thetas(base: GGUFFile, tmp_path: Path, rank: int) -> None:
    theta = random_theta(base, rank=rank)
    write_lora(theta, 0.9, base, tmp_path / "lora.gguf")
    reader = GGUFReader(tmp_path / "lora.gguf")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    alpha = reader.fields["adapter.lora.alpha"].contents()
    assert tensors.keys() == {f"{name}.lora_{part}" for name in TENSORS for part in "ab"}
    for name, factors in theta.factors.items():
        a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        rows, columns = base.tensors[name].shape
        # llama.cpp wants a.ne[0] = inputs, b.ne[1] = outputs, a.ne[1] = b.ne[0] = rank
        assert (list(a.shape), list(b.shape)) == ([columns, rank], [rank, rows])
        assert a.tensor_type is b.tensor_type is GGMLQuantizationType.F32
        scale = alpha / b.shape[0]
        assert scale == 1
        term = scale * (b.data.astype(float) @ a.data.astype(float))
        expected = 0.5 * 0.9 * factors.matrix()
        np.testing.assert_allclose(term, expected, atol=1e-6 * np.abs(expected).max())
        assert np.abs(a.data).max() <= 1


def test_the_keys_are_those_that_llama_cpp_asks_for(base: GGUFFile, tmp_path: Path) -> None:
    write_lora(random_theta(base), 0.97, base, tmp_path / "lora.gguf")
    with open_gguf(tmp_path / "lora.gguf") as file:
        assert file.metadata == {
            "general.type": "adapter",
            "general.architecture": "llama",
            "adapter.type": "lora",
            "adapter.lora.alpha": 4.0,
        }
    # its reader takes a float32 and nothing else
    alpha = GGUFReader(tmp_path / "lora.gguf").fields["adapter.lora.alpha"]
    assert [kind.name for kind in alpha.types] == ["FLOAT32"]


def test_what_no_adapter_can_hold_is_refused(base: GGUFFile, tmp_path: Path) -> None:
    output = tmp_path / "lora.gguf"
    with pytest.raises(ConfigError, match=r"token_embd\.weight cannot become"):
        write_lora(random_theta(base, ["token_embd.weight"]), 0.97, base, output)
    with pytest.raises(ConfigError, match="input itself"):
        write_lora(random_theta(base), 0.97, base, base.path)
    theta = random_theta(base)
    for name, fault in (("blk.7.attn_q.weight", "does not have"), ("blk.0.ffn_up.weight", "shapes")):
        factors = {name: random_factors((64, 64), 4)}
        with pytest.raises(ModelFileError, match=fault):
            write_lora(replace(theta, factors=factors), 0.97, base, output)
    assert not output.exists()
