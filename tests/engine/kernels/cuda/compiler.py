"""Ahead-of-time compilation in a process of its own, where kernels are not defined for the interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[4]


class Compiler:
    """Has `aot` compile one Spec after another; ends with the `with` block."""

    def __enter__(self) -> Self:
        environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
        environment["TRITON_DEFAULT_FP_FUSION"] = "1"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.kernels.cuda.aot"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def report(self, name: str, arch: int) -> dict[str, Any]:
        """What `aot` says of a Spec on an architecture."""
        asked, said = self._process.stdin, self._process.stdout
        assert asked
        assert said
        asked.write(f"{name} {arch}\n")
        asked.flush()
        line = said.readline()
        assert line, "the compiler's process has ended"
        report: dict[str, Any] = json.loads(line)
        return report
