"""Faults as data: what each changes, and which tests should notice. The lists are the files in `lists`."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path(__file__).with_name("lists")


class MutantError(Exception):
    """What is wrong with a mutant, with its name in front."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The tests to run: paths or node ids, and pytest's `-k` among them, empty for all."""

    tests: tuple[str, ...]
    only: str = ""

    def __str__(self) -> str:
        return " ".join((*self.tests, *(("-k", repr(self.only)) if self.only else ())))


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: in `file`, `old`, which must occur there exactly once, becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    selection: Selection

    @property
    def native(self) -> bool:
        """Whether the compiled library has to be built for it."""
        return self.file.startswith("native/")

    def mutated(self, root: Path) -> str:
        """The file's text with the fault. Raises `MutantError` unless the snippet occurs exactly once."""
        path = root / self.file
        if not path.is_file():
            raise MutantError(f"{self.name}: there is no {self.file}")
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise MutantError(f"{self.name}: its snippet occurs {count} times in {self.file}, not once")
        if self.old == self.new:
            raise MutantError(f"{self.name}: changes nothing")
        return text.replace(self.old, self.new)


def read_mutants(lists: Path = LISTS) -> list[Mutant]:
    """All mutants, list by list. Raises `MutantError` for an entry that is none and for a name used twice."""
    mutants = [mutant for path in sorted(lists.glob("*.toml")) for mutant in _read(path)]
    names = [mutant.name for mutant in mutants]
    for name in names:
        if names.count(name) > 1:
            raise MutantError(f"{name}: two mutants have this name")
    return mutants


def _read(path: Path) -> Iterable[Mutant]:
    for name, fields in tomllib.loads(path.read_text(encoding="utf-8")).items():
        match fields:
            case {"file": str(file), "old": str(old), "new": str(new), "tests": list(tests), **rest}:
                if tests and not rest.keys() - {"only"}:
                    selection = Selection(tuple(map(str, tests)), str(rest.get("only", "")))
                    yield Mutant(name, file, old, new, selection)
                    continue
        raise MutantError(f"{name}: {path.name} must give it file, old, new and tests, and maybe only")
