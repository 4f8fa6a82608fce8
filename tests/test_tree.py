"""What may lie in the repository."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 1 << 20
"""Bytes of the largest file: a repository is downloaded whole by everybody."""


def tracked() -> list[Path]:
    """Files in git's index, and those that `git add .` would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def is_text(data: bytes) -> bool:
    """Whether all of it is UTF-8 without control characters of binary formats."""
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def test_no_binary_is_in_the_tree() -> None:
    files = tracked()
    assert len(files) > 500
    assert [str(path.relative_to(ROOT)) for path in files if not is_text(path.read_bytes())] == []


def test_no_large_file_is_in_the_tree() -> None:
    assert [str(path.relative_to(ROOT)) for path in tracked() if path.stat().st_size > LARGEST] == []


@pytest.mark.parametrize("data", [b"\x7fELF\0", b"PK\3\4\xff", b"\x89PNG"])
def test_binaries_are_recognised(data: bytes) -> None:
    assert not is_text(data)


def test_wheels_are_ignored() -> None:
    command = ["git", "check-ignore", "--quiet", "some-1.0-py3-none-any.whl"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode == 128:
        pytest.skip("not a git checkout")
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
