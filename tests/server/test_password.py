"""The key in a file."""

import os
from pathlib import Path

import pytest

from engine.errors import ConfigError
from server.commands.serve import check_files
from server.password import LONGEST_LINE, key_of, readable_by_all
from server.settings import Settings, load_settings
from tests.server.conftest import KEY
from tests.server.live import LiveServer, serving
from tests.server.test_auth import RAW_KEY
from tests.server.test_cli import run


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("NKAT_") or name == "KCPP_PASSWORD":
            monkeypatch.delenv(name)


def write(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", ["{}", "{}\n", "{}\r\n"])
def test_the_line_is_the_key(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, content.format(KEY).encode())
    assert key_of(load_settings({"password_file": path})) == KEY


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NKAT_PASSWORD_FILE", str(write(tmp_path, b"key\n")))
    monkeypatch.setenv("KCPP_PASSWORD", "kobold")
    settings = load_settings({})
    assert settings.protected
    assert key_of(settings) == "key"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"  \n", "is empty"),
        (b"one\ntwo\n", "several lines"),
        (b"one\n\n", "several lines"),
        (b"\xff", "is not UTF-8"),
        (b"x" * (LONGEST_LINE + 1), "larger than"),
        (None, "No such file"),
    ],
)
def test_files_without_a_key(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "none" if content is None else write(tmp_path, content)
    with pytest.raises(ConfigError, match=words) as caught:
        check_files(load_settings({"password_file": path}))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_password_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, b"key")
    file = tmp_path / "settings.toml"
    file.write_text('password = "x"\n')
    with pytest.raises(ConfigError, match=r"password in .*settings.toml and --password-file both"):
        load_settings({"password_file": path}, file)
    monkeypatch.setenv("NKAT_PASSWORD_FILE", str(path))
    with pytest.raises(ConfigError, match="--password and NKAT_PASSWORD_FILE both"):
        load_settings({"password": "x"})


@pytest.mark.parametrize(("mode", "open_to_all"), [(0o600, False), (0o640, False), (0o604, True)])
def test_a_file_that_all_can_read_is_told(tmp_path: Path, mode: int, open_to_all: bool) -> None:
    path = write(tmp_path, b"key", mode)
    assert readable_by_all(path) is open_to_all
    done = run("serve", "--model", "/no/such.gguf", "--port", "0", "--password-file", str(path))
    assert done.returncode == 2
    assert ("every user of this machine can read" in done.stderr) is open_to_all
    assert "key\n" not in done.stderr


def test_a_server_with_the_key_in_a_file(server: LiveServer, tiny_settings: Settings, tmp_path: Path) -> None:
    settings = tiny_settings.model_copy(update={"password_file": write(tmp_path, KEY.encode() + b"\n")})
    with serving(server.worker, settings) as locked:
        assert locked.get("/api/extra/version").json["protected"] is True
        assert locked.post("/api/extra/abort", {}).status == 401
        assert locked.post("/api/extra/abort", {}, Authorization=f"Bearer {RAW_KEY}").status == 200
