import json
from pathlib import Path

import pytest

from engine.errors import ConfigError
from server import story
from server.story import read_story


def test_a_story(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text('\ufeff{"prompt": "Once \u2028 é"}', encoding="utf-8")
    assert read_story(path) == {"prompt": "Once \u2028 é"}
    assert read_story(None) == {}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff{}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no JSON object"),
        (b'{"a": "' + b"x" * 100 + b'"}', "larger than"),
    ],
)
def test_what_is_no_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes, words: str) -> None:
    if words == "larger than":
        monkeypatch.setattr(story, "LIMIT", 107)
    path = tmp_path / "s.json"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=words) as caught:
        read_story(path)
    assert "\n" not in str(caught.value)


def test_the_limit_itself_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"a": "b"}), encoding="utf-8")
    monkeypatch.setattr(story, "LIMIT", path.stat().st_size)
    assert read_story(path) == {"a": "b"}


@pytest.mark.parametrize("name", ["none.json", "."])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the story"):
        read_story(tmp_path / name)
