"""The rules for whole runs, tried on runs of small suites of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.settings import Settings
from tests.gate import read_rules
from tests.support import environment

ROOT = Path(__file__).resolve().parents[1]

PLUGIN = """
import pytest
from tests.gate import Rule, SkipGate

@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    rules = [Rule("always", "always"), Rule("browser", "outside CI"), Rule("kernels", "without kernels")]
    gate = SkipGate(config, rules, ci={ci}, kernels={kernels})
    config.pluginmanager.register(gate, "skip-gate")
"""
IN_A_TEST = "import pytest\ndef test_a(): pytest.skip('{reason}')\ndef test_b(): pass\n"
BY_A_MARK = "import pytest\n@pytest.mark.skip(reason='{reason}')\ndef test_a(): ...\ndef test_b(): pass\n"
IN_A_MODULE = "import pytest\npytest.skip('{reason}', allow_module_level=True)\n"
IN_A_FIXTURE = (
    "import pytest\n@pytest.fixture\ndef f(): pytest.skip('{reason}')\n"
    "def test_a(f): ...\ndef test_b(): pass\n"
)


def run(
    folder: Path, test: str, reason: str, *flags: str, ci: bool = False, kernels: bool = True
) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(PLUGIN.format(ci=ci, kernels=kernels))
    (folder / "test_skip.py").write_text(test.format(reason=reason))
    (folder / "test_pass.py").write_text("def test_passes(): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}", *flags]
    return subprocess.run(
        [*command, str(folder)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("test", [IN_A_TEST, BY_A_MARK, IN_A_MODULE, IN_A_FIXTURE])
@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_an_unexpected_skip_fails_the_run(tmp_path: Path, test: str, processes: str) -> None:
    done = run(tmp_path, test, "no such thing", processes)
    assert done.returncode == 1
    assert "NOT EXPECTED: no such thing (1, first test_skip.py" in done.stdout
    assert "passed" in done.stdout


@pytest.mark.parametrize("test", [IN_A_TEST, BY_A_MARK, IN_A_MODULE, IN_A_FIXTURE])
@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_an_expected_skip_is_named(tmp_path: Path, test: str, processes: str) -> None:
    done = run(tmp_path, test, "always so", processes, ci=True)
    assert done.returncode == 0
    assert "expected: always so (1, first test_skip.py" in done.stdout


@pytest.mark.parametrize(
    ("reason", "ci", "kernels", "code"),
    [
        ("browser", False, True, 0),
        ("browser", True, True, 1),
        ("kernels", False, True, 1),
        ("kernels", True, False, 0),
    ],
)
def test_where_a_skip_is_expected(tmp_path: Path, reason: str, ci: bool, kernels: bool, code: int) -> None:
    assert run(tmp_path, IN_A_TEST, reason, "-n0", ci=ci, kernels=kernels).returncode == code


def test_a_failure_stays_a_failure(tmp_path: Path) -> None:
    done = run(tmp_path, IN_A_TEST + "def test_c(): assert False\n", "no such thing", "-n0")
    assert done.returncode == 1
    assert "1 failed" in done.stdout


def test_the_list_is_whole() -> None:
    assert len({rule.reason for rule in read_rules()}) == len(read_rules()) >= 8


@pytest.mark.parametrize("rule", ['reason = "x"', 'reason = "x"\nwhy = "y"\nallowed = "perhaps"'])
def test_an_incomplete_rule_is_refused(tmp_path: Path, rule: str) -> None:
    path = tmp_path / "skips.toml"
    path.write_text(f"[[skip]]\n{rule}\n")
    with pytest.raises(ValueError, match="each skip has"):
        read_rules(path)


def test_a_run_without_kernels_fails(tmp_path: Path) -> None:
    """The library is hidden from this run alone: `native_kernels` finds none."""
    (tmp_path / "hide.py").write_text(
        "import engine.native as n\nn.native_kernels = lambda features=-1: ()\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "hide",
        "--collect-only",
        "-q",
        "-n0",
        "tests/test_tree.py",
    ]
    for native, code in (("1", 4), ("0", 0)):
        variables = {"PYTHONPATH": str(tmp_path), "NKAT_NATIVE": native}
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert ("make -B install" in done.stdout + done.stderr) == (code == 4)


def test_the_suite_hides_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NKAT_PORT", "99")
    monkeypatch.setenv("NKAT_REQUIRE_NATIVE", "1")
    monkeypatch.setenv("KCPP_PASSWORD", "secret")
    environment.clean_environment()
    assert not [name for name in os.environ if name.startswith("NKAT_") or name == "KCPP_PASSWORD"]
    assert Settings().port == 5001
