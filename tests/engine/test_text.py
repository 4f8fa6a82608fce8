from pathlib import Path

import pytest

from engine.errors import RequestError
from engine.text import BUILT_IN, Text


def test_files_become_one_text_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("é\r\n".encode())
    (tmp_path / "b.txt").write_bytes(b"two\n")
    assert Text.read([tmp_path / "a.txt", tmp_path / "b.txt"]) == Text("a.txt, b.txt", "é\r\n\ntwo\n")


def test_the_built_in_text_is_long_prose() -> None:
    text = Text.built_in()
    assert text.name == BUILT_IN
    assert len(text.content) > 100_000
    assert text == Text.built_in()


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(RequestError, match="not UTF-8"):
        Text.read([tmp_path / "latin"])
    with pytest.raises(RequestError, match="cannot read"):
        Text.read([tmp_path / "none"])
