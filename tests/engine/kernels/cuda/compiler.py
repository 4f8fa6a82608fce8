"""Ahead-of-time compilation in processes of its own, beside whatever else is tested."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]
_SECONDS = 900

Reports = Mapping[tuple[str, int], Mapping[str, Any]]
"""What `aot` says of a Spec on an architecture."""


class Compiler:
    """Has `aot` compile Specs; begins when it is made."""

    def __init__(self, names: Sequence[str], processes: int) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
        environment["TRITON_DEFAULT_FP_FUSION"] = "1"
        shares = [share for share in (names[at::processes] for at in range(processes)) if share]
        # Nobody reads a pipe while other tests run.
        self._files = [tempfile.TemporaryFile() for _ in range(2 * len(shares))]  # noqa: SIM115 -- `stop` closes them
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.engine.kernels.cuda.aot", *share],
                cwd=ROOT,
                env=environment,
                stdout=self._files[2 * at],
                stderr=self._files[2 * at + 1],
            )
            for at, share in enumerate(shares)
        ]

    def reports(self) -> Reports:
        """What came of all, when that is known."""
        found = []
        for at, process in enumerate(self._processes):
            code = process.wait(_SECONDS)
            said, failed = (self._read(2 * at + part) for part in range(2))
            assert code == 0, failed
            found += [json.loads(line) for line in said.splitlines()]
        return {(report["name"], report["arch"]): report for report in found}

    def stop(self) -> None:
        """End what still runs."""
        for process in self._processes:
            process.kill()
            process.wait()
        for file in self._files:
            file.close()

    def _read(self, number: int) -> str:
        self._files[number].seek(0)
        return self._files[number].read().decode()
