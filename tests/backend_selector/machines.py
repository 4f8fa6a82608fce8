"""Facts to choose from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from backend_selector.facts import CpuFacts, CudaDevice, FileFacts, MachineFacts, ThetaFacts

MIB, GIB = 2**20, 2**30

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
    layers=30,
    trained_context=8192,
    kv_bytes_per_token=45 * 1024,
    matrix_bytes=540 * MIB,
    packed_bytes=90 * MIB,
    other_bytes=MIB,
)
"""About SmolLM2-135M."""


def machine(available: int, **changes: Any) -> MachineFacts:
    """The laptop with so much memory available."""
    return replace(LAPTOP, available_memory=available, **changes)
