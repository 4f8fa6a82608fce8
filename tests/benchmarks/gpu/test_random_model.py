"""Random models: their blocks, their mix of types, and what a token reads of them. No kernel runs here."""

import os

import numpy as np
import pytest
import torch

# Triton looks at this when it is imported, and when kernels are defined.
os.environ.setdefault("TRITON_INTERPRET", "1")

from benchmarks.gpu.launches import launches
from benchmarks.gpu.model_shapes import SHAPES, q4_k_m
from benchmarks.gpu.random_blocks import DEVIATION, random_blocks
from benchmarks.gpu.random_model import GAMMA, random_factors, random_model
from engine.gguf import NATIVE_TYPES, GGMLType, dequantize
from engine.kernels import FeedForward, SelfAttention
from engine.kernels.cuda import CudaKernels

CPU = torch.device("cpu")
BITS = {GGMLType.Q4_K: 4.625, GGMLType.Q6_K: 6.5625}
"""Of a weight in planes."""


@pytest.mark.parametrize("kind", sorted(NATIVE_TYPES), ids=lambda kind: kind.name)
def test_blocks_have_the_deviation_of_weights_and_no_mean(kind: GGMLType) -> None:
    shape = 40, 1024
    blocks = random_blocks(kind, shape, torch.Generator().manual_seed(1))
    assert blocks.dtype == torch.uint8
    assert blocks.shape == (40, 1024 // kind.block_size * kind.type_size)
    values = dequantize(blocks.numpy(), kind, shape)
    assert np.isfinite(values).all()
    assert values.std() == pytest.approx(DEVIATION, rel=0.1)
    # Types without a minimum have one integer more below 0 than above.
    assert abs(values.mean()) < 0.15 * DEVIATION


def test_another_seed_makes_other_blocks() -> None:
    first, second, again = (
        random_blocks(GGMLType.Q4_K, (2, 256), torch.Generator().manual_seed(seed)) for seed in (1, 2, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_half_of_the_layers_have_better_values_as_llama_cpp_chooses_them() -> None:
    better = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    for part in ("attn_v", "ffn_down"):
        kinds = [q4_k_m(f"blk.{layer}.{part}", 32) for layer in range(32)]
        assert [layer for layer, kind in enumerate(kinds) if kind == GGMLType.Q6_K] == better
        assert set(kinds) == {GGMLType.Q4_K, GGMLType.Q6_K}
    for part in ("attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"):
        assert q4_k_m(f"blk.0.{part}", 32) == GGMLType.Q4_K
    assert q4_k_m("output", 32) == GGMLType.Q6_K
    assert q4_k_m("token_embd", 32) == GGMLType.Q4_K


def test_launches_are_the_matrices_of_the_model() -> None:
    config = SHAPES["llama2-7b"]
    found = launches(config)
    weights = sum(launch.times * sum(launch.rows) * launch.width for launch in found)
    named = {
        name: shape for name, shape in config.tensors() if len(shape) == 2 and name != "token_embd.weight"
    }
    assert weights == sum(rows * columns for rows, columns in named.values()) + 32000 * 4096
    assert sum(launch.times for launch in found) == 32 * 4 + 1
    by_name = {launch.name: launch.times for launch in found}
    assert by_name["q+k+v Q4_K"] == by_name["q+k+v Q4_K+Q6_K"] == 16
    assert by_name["output Q4_K"] == 32
    assert by_name["output Q6_K"] == 1


def test_the_bytes_of_a_token_are_those_of_the_planes() -> None:
    config = SHAPES["tiny"]
    model, loader = random_model(config, CudaKernels(CPU), positions=32)
    attention, feed_forward = model.layers
    assert isinstance(attention, SelfAttention)
    assert isinstance(feed_forward, FeedForward)
    matrices = [attention.q, attention.k, attention.v, attention.out]
    matrices += [feed_forward.gate, feed_forward.up, feed_forward.down]
    assert set(matrices) == {weight for name, weight in loader.weights.items() if name.startswith("blk.")}
    assert attention.v.shape == (128, 256)
    assert loader.weights["blk.0.attn_v"].planes.type == GGMLType.Q6_K
    planes = [weight.planes for name, weight in loader.weights.items() if name != "token_embd"]
    assert loader.read_bytes == sum(each.nbytes for each in planes)
    assert loader.read_bytes * 8 == sum(BITS[each.type] * each.shape[0] * each.shape[1] for each in planes)
    assert loader.flops == 2 * sum(each.shape[0] * each.shape[1] for each in planes)
    launched = [
        sum(weight.planes.nbytes for weight in launch.make(torch.Generator())) * launch.times
        for launch in launches(config)
    ]
    assert sum(launched) == loader.read_bytes


def test_theta_corrects_all_matrices_of_the_blocks() -> None:
    _, loader = random_model(SHAPES["tiny"], CudaKernels(CPU), positions=32, rank=4)
    assert loader.star is not None
    assert loader.star.rank == 4
    corrected = {name for name, weight in loader.weights.items() if weight.theta is not None}
    assert corrected == {name for name in loader.weights if name.startswith("blk.")}
    assert len(corrected) == 7
    theta = loader.weights["blk.0.attn_q"].theta
    assert theta is not None
    assert theta.v.dtype == torch.int8, "integers stay integers on the card"


def test_a_random_theta_adds_a_twentieth() -> None:
    generator = torch.Generator().manual_seed(3)
    u, v = random_factors(4, (600, 512), generator)
    x = torch.randn(20, 512, generator=generator)
    plain = x @ (DEVIATION * torch.randn(600, 512, generator=generator)).T
    added = 0.5 * GAMMA * (x @ v.T) @ u
    assert float(added.norm() / plain.norm()) == pytest.approx(0.05, rel=0.2)
