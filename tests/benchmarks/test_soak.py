"""The whole command on a tiny model, for seconds instead of minutes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak.watch import Sample, slope_per_minute
from tests.support.gguf_files import write_llama
from tests.support.stars import write_star_model


def test_a_server_holds_out(tmp_path: Path) -> None:
    model, _ = write_star_model(
        tmp_path / "tiny.nkat", write_llama(tmp_path / "tiny.gguf", context_length=8192)
    )
    command = [sys.executable, "-m", "benchmarks.soak", "--model", str(model), "--minutes", "0.1"]
    done = subprocess.run(
        [*command, "--clients", "4", "--threads", "1"], capture_output=True, text=True, check=False
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["first_faults"] == []
    assert result["greedy_unchanged"]
    assert result["requests"] > 20
    assert set(result["answers"]) <= {"200", "400", "404", "422", "503", "left"}
    assert (done.returncode == 0) == result["held"]
    assert "descriptors" in done.stderr


def test_the_slope_is_per_minute() -> None:
    samples = [Sample(float(second), 100 + second / 30, 1, 1) for second in range(60)]
    assert slope_per_minute(samples) == pytest.approx(2.0)
    assert slope_per_minute(samples[:1]) == 0
