"""What `nkat serve` looks at before it loads a model."""

from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from server.commands.serve import check_files
from server.settings import Settings


@pytest.mark.parametrize("name", ["ssl", "lite", "preloadstory", "savedatafile", "chatcompletionsadapter"])
def test_a_file_that_is_not_there_is_told_by_name(tmp_path: Path, name: str) -> None:
    missing = tmp_path / "no such folder" / "file.json"
    value: Any = (missing, missing) if name == "ssl" else str(missing)
    with pytest.raises(ConfigError) as caught:
        check_files(Settings(**{name: value}))
    assert str(missing) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sound_files_pass(tmp_path: Path) -> None:
    page, story, adapter = tmp_path / "lite.html", tmp_path / "story.json", tmp_path / "adapter.json"
    page.write_text("<html>")
    story.write_text('{"gamestarted": true}')
    adapter.write_text('{"user_start": "U"}')
    saves = tmp_path / "saves.json"
    check_files(
        Settings(lite=page, preloadstory=story, savedatafile=saves, chatcompletionsadapter=str(adapter))
    )
    assert saves.read_text() == "{}", "a place for saves that cannot be written to is told at the start"


@pytest.mark.parametrize("settings", [Settings(), Settings(jinja=False)], ids=["template", "guessed"])
def test_the_defaults_need_no_files(settings: Settings) -> None:
    check_files(settings)
