"""The Triton kernels run in the interpreter, on tensors of the processor, unless TRITON_INTERPRET says no.

`triton.jit` decides by this variable when a kernel is defined: it is set before a test module imports one.
"""

import os
from importlib.util import find_spec

import pytest
import torch

os.environ.setdefault("TRITON_INTERPRET", "1")

collect_ignore_glob = [] if find_spec("triton") else ["test_*.py"]


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where kernels run: on a card with TRITON_INTERPRET=0, else on the processor."""
    return torch.device("cpu" if os.environ["TRITON_INTERPRET"] == "1" else "cuda")


@pytest.fixture
def large_tiles(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """For whole models: the interpreter takes as long for a program of two rows as for one of all."""
    from engine.kernels.cuda import gemv

    if device.type == "cpu":
        monkeypatch.setattr(gemv, "tiling", lambda *_: gemv.Tiling(rows=128, warps=1, unroll=1))
