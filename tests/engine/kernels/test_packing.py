"""Matrices of the native kernels while they are packed behind everybody's back."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from engine.gguf import GGMLType
from engine.kernels.native import NativeKernels
from engine.native import native_kernels
from tests.engine.kernels.operands import batch_of, feed_forward, random
from tests.engine.kernels.test_native import NAMES, SLOTS, SPANS, TYPES
from tests.support.gguf_files import random_tensor

pytestmark = pytest.mark.skipif(not native_kernels(), reason="the native library is not built")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_matrix_of_many_parts_is_packed_whole(threads: int) -> None:
    """Three megabytes, which are packed in parts, while others are still being added."""
    rng = np.random.default_rng(threads)
    values = [rng.standard_normal((3 * 4096 + 5, 64), np.float32) for _ in range(3)]
    kernels = NativeKernels(NAMES[0], threads)
    weights = [kernels.pack(v.view(np.uint8), GGMLType.F32, (len(v), 64)) for v in values]
    kernels.settle()
    ids = torch.arange(len(values[0]))
    for weight, should in zip(weights, values, strict=True):
        assert torch.equal(kernels.embed(ids, weight), torch.from_numpy(should))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", TYPES)
def test_a_matrix_can_be_used_before_it_is_packed(name: str, kind: str) -> None:
    kernels, shape = NativeKernels(name, 2), (45, 256)
    first = np.zeros((1 << 12, 1 << 12), np.float32)  # which keeps the packer busy
    kernels.pack(first.view(np.uint8), GGMLType.F32, first.shape)
    data = np.ascontiguousarray(random_tensor(np.random.default_rng(1), kind, shape).data).view(np.uint8)
    weight = kernels.pack(data, GGMLType[kind], shape)
    x, ids = random(2, 9, 256), torch.arange(45)
    early = kernels.linear(x, weight), kernels.embed(ids[:30], weight), kernels.linear(x[:1], weight)
    kernels.settle()
    late = kernels.linear(x, weight), kernels.embed(ids[:30], weight), kernels.linear(x[:1], weight)
    for one, other in zip(early, late, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("threads", [1, 3])
def test_matrices_and_engines_may_go_while_they_are_packed(threads: int) -> None:
    values = np.ones((1 << 12, 1 << 12), np.float32)
    kernels = NativeKernels(NAMES[0], threads)
    others = [kernels.pack(values.view(np.uint8), GGMLType.F32, values.shape) for _ in range(4)]
    wanted = kernels.pack(values[:9].view(np.uint8), GGMLType.F32, (9, 1 << 12))
    with ThreadPoolExecutor(1) as beside:
        settled = beside.submit(kernels.settle)
        while others:
            others.pop(0)
        settled.result()
    assert torch.equal(kernels.embed(torch.arange(9), wanted), torch.ones(9, 1 << 12))
    others.append(kernels.pack(values.view(np.uint8), GGMLType.F32, values.shape))
    del kernels, wanted
    others.clear()


@pytest.mark.parametrize("threads", [1, 2])
def test_files_are_let_go_when_all_is_packed(threads: int) -> None:
    kernels = NativeKernels(NAMES[0], threads)
    values = np.ones((1 << 12, 1 << 12), np.float32)
    weight = kernels.pack(values.view(np.uint8), GGMLType.F32, values.shape)
    told: list[str] = []
    kernels.when_settled(lambda: told.append("once"))
    assert torch.equal(kernels.embed(torch.arange(3), weight), torch.ones(3, 1 << 12))
    kernels.settle()
    assert told == ["once"]
    kernels.when_settled(lambda: told.append("at once"))
    kernels.settle()
    assert told == ["once", "at once"]


def test_a_step_lets_go_of_files() -> None:
    kernels = NativeKernels(NAMES[0], 2)
    layer = feed_forward(kernels, 256, 512)
    kernels.pack(np.zeros(1024, np.uint8), GGMLType.F32, (1, 256))
    told: list[str] = []
    kernels.when_settled(lambda: told.append("once"))
    batch = batch_of(SPANS, SLOTS)
    deadline = time.monotonic() + 10
    while not told and time.monotonic() < deadline:
        kernels.forward(random(1, len(batch.slots), 256), (layer,), batch, None)
    assert told == ["once"]
