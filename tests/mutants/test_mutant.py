from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant, MutantError, Selection, read_mutants

ENTRY = '[one]\nfile = "a.py"\nold = "1"\nnew = "2"\ntests = ["test_a.py"]\n'


def written(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


def mutant(**fields: str) -> Mutant:
    return Mutant(
        **{"name": "one", "file": "a.py", "old": "1", "new": "2", **fields}, selection=Selection(("t",))
    )


def test_an_entry(tmp_path: Path) -> None:
    lists = written(tmp_path, a=ENTRY + 'only = "b or c"\n')
    assert read_mutants(lists) == [Mutant("one", "a.py", "1", "2", Selection(("test_a.py",), "b or c"))]


@pytest.mark.parametrize(
    "text",
    [
        ENTRY.replace("old", "odd"),
        ENTRY.replace('["test_a.py"]', "[]"),
        ENTRY.replace('"2"', "2"),
        ENTRY + "more = 1\n",
        "one = 1\n",
    ],
)
def test_what_is_no_entry(tmp_path: Path, text: str) -> None:
    with pytest.raises(MutantError, match=r"^one: a\.toml must give it"):
        read_mutants(written(tmp_path, a=text))


def test_a_name_used_twice(tmp_path: Path) -> None:
    with pytest.raises(MutantError, match=r"^one: two mutants"):
        read_mutants(written(tmp_path, a=ENTRY, b=ENTRY))


def test_a_snippet_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    assert mutant().mutated(tmp_path) == "x = 2\n"


@pytest.mark.parametrize("text", ["x = 3\n", "x = 1 + 1\n"])
def test_a_snippet_must_occur_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    with pytest.raises(MutantError, match=r"^one: its snippet occurs \d times in a\.py, not once"):
        mutant().mutated(tmp_path)


def test_a_change_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(MutantError, match=r"^one: changes nothing"):
        mutant(new="1").mutated(tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MutantError, match=r"^one: there is no a\.py"):
        mutant().mutated(tmp_path)
