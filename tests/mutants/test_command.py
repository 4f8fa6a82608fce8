"""The whole command, on a project of one module."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import pytest

from tests.mutants.command import Report, main
from tests.mutants.mutant import ROOT, Mutant, Selection
from tests.mutants.running import Finished
from tests.mutants.tree import Tree

MODULE = """
def larger(a, b):
    return max(a, b)
"""
TESTS = """
from pathlib import Path

import engine


def test_it_is_the_copy():
    assert engine.__file__ == str(Path(__file__).parent / "engine" / "__init__.py")


def test_larger():
    assert engine.larger(1, 2) == 2


def test_broken():
    assert False
"""
LIST = """
[noticed]
file = "engine/__init__.py"
old = "max(a, b)"
new = "min(a, b)"
tests = ["test_engine.py"]
only = "copy or larger"

[unnoticed]
file = "engine/__init__.py"
old = "max(a, b)"
new = "max(b, a)"
tests = ["test_engine.py"]
only = "copy or larger"

[tests-that-fail]
file = "engine/__init__.py"
old = "max(a, b)"
new = "min(a, b)"
tests = ["test_engine.py"]
only = "broken"

[tests-that-are-none]
file = "engine/__init__.py"
old = "max(a, b)"
new = "min(a, b)"
tests = ["test_engine.py"]
only = "nothing"
"""
HANGING = """
import os
import subprocess


def test_with_a_child():
    with open(os.environ["STARTED"], "w") as file:
        subprocess.Popen(["sleep", "600"], stdout=file)
        print("started", file=file, flush=True)
        while True:
            pass
"""
INTERRUPTED = """
import sys
from pathlib import Path
from tests.mutants.command import main
root = Path(sys.argv[1])
sys.exit(main(["--jobs", "1"], root=root, lists=root))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    plugin = (ROOT / "tests" / "mutants" / "quick_failures.py").read_text(encoding="utf-8")
    for name, text in {
        "engine/__init__.py": MODULE,
        "tests/__init__.py": "",
        "tests/mutants/__init__.py": "",
        "tests/mutants/quick_failures.py": plugin,
        "test_engine.py": TESTS,
        "list.toml": LIST,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    return root


def state(root: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in root.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_mutants_are_told_apart(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(project)
    assert main(["--jobs", "1"], root=project, lists=project) == 2
    *lines, summary = capsys.readouterr().out.splitlines()
    told = [line.partition("] ")[2].split() for line in lines if line.startswith("[")]
    by_name = {words[1].rstrip(":"): words for words in told}
    assert by_name["noticed"][0] == "killed"
    assert by_name["noticed"][-1] == "test_engine.py::test_larger"
    assert by_name["unnoticed"][0] == "SURVIVED"
    assert by_name["tests-that-fail"][0] == "ERROR"
    assert by_name["tests-that-are-none"][0] == "ERROR"
    assert json.loads(summary) == {
        "mutants": 4,
        "killed": 1,
        "survived": ["unnoticed"],
        "errors": ["tests-that-are-none", "tests-that-fail"],
    }
    assert state(project) == before


def test_a_mutant_is_compiled_in_the_second_of_the_original(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Tree(project, tmp_path, Event())
    file = copy.root / "engine" / "__init__.py"
    original = file.stat().st_mtime
    monkeypatch.setattr(time, "time", lambda: original)
    mutant = Mutant("one", "engine/__init__.py", "max(a, b)", "min(a, b)", Selection(("test_engine.py",)))
    for _ in range(2):
        # Python takes a compiled file for its source's where size and whole second are the same.
        with copy.changed(mutant):
            assert int(file.stat().st_mtime) > int(original)
        assert file.stat().st_mtime == original


def test_a_name_that_no_mutant_has(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-k", "nobody"], root=project, lists=project) == 2
    assert "no mutant has 'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("killed", "survived", "errors", "status"), [(19, 1, 0, 0), (18, 1, 0, 1), (20, 0, 1, 2), (0, 0, 1, 2)]
)
def test_the_status(killed: int, survived: int, errors: int, status: int) -> None:
    report = Report(killed + survived + errors, ["k"] * killed, ["s"] * survived, ["e"] * errors)
    assert report.end() == status


@pytest.mark.parametrize(
    ("finished", "reason"),
    [
        (Finished(None, "", 1.0), "by the time limit"),
        (Finished(-11, "", 1.0), "by status -11"),
        (Finished(1, "FAILED a.py::test[b c] - assert 1\n1 failed", 1.0), "a.py::test[b c]"),
    ],
)
def test_why_it_was_killed(finished: Finished, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    mutant = Mutant("one", "a.py", "1", "2", Selection(("a.py",)))
    Report(1).add(mutant, finished)
    assert capsys.readouterr().out.endswith(f"1.0 s  {reason}\n")


def test_an_interrupt_leaves_nothing(project: Path, tmp_path: Path) -> None:
    started, scratch = tmp_path / "started", tmp_path / "scratch"
    os.mkfifo(started)
    scratch.mkdir()
    (project / "test_engine.py").write_text(HANGING, encoding="utf-8")
    (project / "list.toml").write_text(
        LIST[: LIST.index("[unnoticed]")].replace("copy or larger", "child"), encoding="utf-8"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(project)],
        env=os.environ | {"TMPDIR": str(scratch), "STARTED": str(started)},
        cwd=ROOT,
    )
    with started.open(encoding="utf-8") as file:
        assert file.readline() == "started\n"
        assert list(scratch.iterdir())
        process.send_signal(signal.SIGINT)
        # The end comes once nobody is left who has it open: neither the tests nor their child.
        assert file.read() == ""
    assert process.wait() == 130
    assert list(scratch.iterdir()) == []
