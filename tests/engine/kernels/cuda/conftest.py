"""The Triton kernels run in the interpreter, on tensors of the processor, unless TRITON_INTERPRET says no.

`triton.jit` decides by this variable when a kernel is defined: it is set before a test module imports one.
"""

import os
from importlib.util import find_spec

import pytest
import torch

from tests.engine.kernels.cuda.compiler import Compiler

os.environ.setdefault("TRITON_INTERPRET", "1")

collect_ignore_glob = [] if find_spec("triton") else ["test_*.py"]

COMPILER = pytest.StashKey[Compiler]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile what tests ask for from now on: other tests leave a core idle for most of their time."""
    compiled = [item for item in session.items if item.get_closest_marker("cuda_aot")]
    names = sorted({item.callspec.params["name"] for item in compiled if hasattr(item, "callspec")})
    if names and not session.config.option.collectonly:
        alone = len(compiled) == len(session.items)
        session.stash[COMPILER] = Compiler(names, processes=2 if alone else 1)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if COMPILER in session.stash:
        session.stash[COMPILER].stop()


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
