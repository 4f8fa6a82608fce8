"""docs/limits.md says what the source says."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from server.settings import Settings, flag

ROOT = Path(__file__).resolve().parents[2]
UNITS = {"": 1, "bytes": 1, "s": 1, "KB": 1 << 10, "MB": 1 << 20}
COMPLETE = (
    "server.guesses",
    "server.http.limits",
    "server.memory",
    "server.pools",
    "server.wire.body_budget",
    "server.wire.body_limits",
    "server.wire.json_size",
)
"""Modules each number of which has a row."""


def rows() -> dict[str, str]:
    """The bounds in the document by constant or flag."""
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return {row[2].strip("`"): row[1] for row in cells if len(row) == 4 and row[2].startswith("`")}


def value_of(name: str) -> float:
    """What the source says, in seconds, bytes or pieces."""
    if name.startswith("--"):
        fields = {flag(field): field for field in Settings.model_fields}
        return float(Settings.model_fields[fields[name]].default) * UNITS["MB"]
    module, _, constant = name.rpartition(".")
    return float(getattr(import_module(module), constant))


@pytest.mark.parametrize(("name", "bound"), rows().items())
def test_the_document_has_the_bound_of_the_source(name: str, bound: str) -> None:
    number, _, unit = bound.partition(" ")
    assert float(number) * UNITS[unit] == value_of(name)


@pytest.mark.parametrize("module", COMPLETE)
def test_every_bound_is_in_the_document(module: str) -> None:
    numbers = {
        f"{module}.{name}"
        for name, value in vars(import_module(module)).items()
        if re.fullmatch("[A-Z][A-Z_]+", name) and isinstance(value, int | float)
    }
    assert numbers
    assert numbers <= rows().keys()
