"""`nkat doctor` on this machine, with files and ports that are well or not."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from backend_selector.facts import Wishes
from server.commands.doctor import doctor

CPU = Wishes(device="cpu", threads=1)


def findings(
    capsys: pytest.CaptureFixture[str], model: Path | None = None, *, wishes: Wishes = CPU, port: int = 0
) -> tuple[int, dict[str, Any], set[str]]:
    """Exit code, the JSON, and the subjects with a problem."""
    code = doctor(model, wishes, host="127.0.0.1", port=port, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] == (code == 0)
    return code, said, {one["subject"] for one in said["findings"] if one["verdict"] == "problem"}


def test_a_healthy_model(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, problems = findings(capsys, tiny_model)
    assert (code, problems) == (0, set())
    subjects = [one["subject"] for one in said["findings"]]
    assert subjects[:2] == ["python", "torch"]
    assert {"cuda", "kernels", "cpu", "memory", "port", "model", "theta", "fit"} <= set(subjects)


def test_no_model_is_no_problem(capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = findings(capsys)
    assert code == 0
    assert "model" not in {one["subject"] for one in said["findings"]}


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, problems = findings(capsys, port=taken.getsockname()[1])
    assert (code, problems) == (1, {"port"})


@pytest.mark.parametrize("content", [None, b"", b"GGUF\x03\x00\x00\x00", b"<html>\n\x1b[31m", b"\xff" * 100])
def test_bad_files_are_findings(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(content)
    assert findings(capsys, path)[0::2] == (1, {"model"})


def test_a_context_that_does_not_fit(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wishes = Wishes(device="cpu", contextsize=2**50)
    assert findings(capsys, tiny_model, wishes=wishes)[0::2] == (1, {"fit"})


def test_text_is_one_line_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two\nlines.gguf"
    assert doctor(path, CPU, host="127.0.0.1", port=0, as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 8
    assert all(line.split()[0] in ("ok", "warning", "problem") for line in lines)
    assert "two?lines.gguf" in lines[-1]
