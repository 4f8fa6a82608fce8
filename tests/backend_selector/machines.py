"""Facts to choose from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from backend_selector.facts import (
    NOTHING,
    CpuFacts,
    CudaDevice,
    FileFacts,
    MachineFacts,
    PartSizes,
    ThetaFacts,
    Widths,
)
from engine.architectures import CacheShape

KIB, MIB, GIB = 2**10, 2**20, 2**30

CPU = CpuFacts("A processor", physical_cores=8, features=("avx2", "fma", "f16c"))
LAPTOP = MachineFacts(CPU, 32 * GIB, 24 * GIB, python="3.11.9", torch="2.13.0")
SMALL_GPU = CudaDevice(0, "Small", 8 * GIB, 7 * GIB, (7, 5))
LARGE_GPU = CudaDevice(1, "Large", 80 * GIB, 78 * GIB, (9, 0))
WORKSTATION = replace(LAPTOP, cuda_driver=True, cuda=(SMALL_GPU, LARGE_GPU))

SHA, OTHER_SHA = "a" * 64, "b" * 64
THETA = ThetaFacts(rank=4, gamma=0.97, method="train", base_sha256=SHA, tensors=210)

TINY = FileFacts(
    path=Path("models/tiny.gguf"),
    architecture="llama",
    name="Tiny",
    size=94 * MIB,
    quantisation="Q4_1",
    tensor_types=("F32", "Q4_1"),
    parameters=135_000_000,
    trained_context=8192,
    cache_shape=CacheShape(30, 3, 64, 64),
    widths=Widths(576, 960, 1536, 49152),
    embedding=PartSizes(120 * MIB, 15 * MIB, 15 * MIB, 0),
    blocks=(PartSizes(14 * MIB, 2560 * KIB, 2560 * KIB, 0),) * 30,
    output=replace(NOTHING, other=MIB),
    tied=True,
)
"""About SmolLM2-135M: matrices of 540 MiB in float32, 90 MiB in the file; 45 KiB a token in float32."""
LARGE = replace(
    TINY,
    path=Path("models/large.gguf"),
    trained_context=131072,
    cache_shape=CacheShape(32, 8, 128, 128),
    widths=Widths(4096, 6144, 14336, 128256),
    embedding=PartSizes(2 * GIB, 300 * MIB, 300 * MIB, 0),
    blocks=(PartSizes(872 * MIB, 120 * MIB, 124 * MIB, MIB),) * 32,
    output=PartSizes(2 * GIB, 400 * MIB, 400 * MIB, MIB),
    tied=False,
)
"""About Llama 3 8B in Q4_K_M: 128 KiB a token in float16; one layer more than blocks, 33."""
TRITON = ("triton", "reference")
NATIVE = ("avx2", "portable", "reference")


def with_cards(*free: int, available: int = 24 * GIB) -> MachineFacts:
    """A machine with cards for the Triton kernels, that have so much memory free."""
    cards = (
        CudaDevice(number, f"Card {number}", 80 * GIB, size, (9, 0), TRITON)
        for number, size in enumerate(free)
    )
    return replace(WORKSTATION, kernels=NATIVE, cuda=tuple(cards), available_memory=available)


def scaled(dense: int) -> FileFacts:
    """The tiny model with so many bytes of matrices in float32, all in its blocks."""
    block = replace(TINY.blocks[0], dense=dense // 30)
    return replace(TINY, embedding=replace(TINY.embedding, dense=dense % 30), blocks=(block,) * 30)


def machine(available: int, **changes: Any) -> MachineFacts:
    """The laptop with so much memory available."""
    return replace(LAPTOP, available_memory=available, **changes)
