"""Memory that ends while a model is loaded: one line, wherever it happens."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gguf_files import write_llama
from tests.support.kernels import FASTEST_AND_REFERENCE

CHILD = """
import resource, sys
from pathlib import Path
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError

path, kernels = Path(sys.argv[1]), sys.argv[2]
Engine.load(EngineConfig(path, kernels=kernels, threads=2))  # all that is imported at the first use
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
refused = loaded = 0
for more in range(0, 160, 10):
    resource.setrlimit(resource.RLIMIT_AS, (used + (more << 20), resource.RLIM_INFINITY))
    try:
        engine = Engine.load(EngineConfig(path, kernels=kernels, threads=2))
        loaded += 1
    except ConfigError as error:
        assert "there is not enough memory: choose a smaller context" in str(error), error
        assert "\\n" not in str(error)
        refused += 1
    engine = None
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(refused, loaded)
"""


@pytest.mark.parametrize("kernels", FASTEST_AND_REFERENCE)
def test_the_address_space_ends(tmp_path: Path, kernels: str) -> None:
    path = write_llama(tmp_path / "x.gguf", type="Q8_0", n_embd=512, n_layers=3, context_length=4096)
    command = [sys.executable, "-c", CHILD, str(path), kernels]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    refused, loaded = map(int, done.stdout.split())
    assert refused > 0
    assert loaded > 0
