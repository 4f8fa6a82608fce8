"""The lists keep up with the code: each snippet is where its mutant says, and its tests are there."""

import ast
import re

import pytest

from tests.mutants.mutant import ROOT, Mutant, read_mutants

MUTANTS = read_mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_can_be_put_in_and_tried(mutant: Mutant) -> None:
    text = mutant.mutated(ROOT)
    if mutant.file.endswith(".py"):
        ast.parse(text)
    for test in mutant.selection.tests:
        path, *names = test.split("::")
        assert (ROOT / path).is_file(), f"there is no {path}"
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in names:
            assert re.search(rf"\b(def|class) {name}\b", source), f"there is no {name} in {path}"


def test_there_are_some_of_every_package() -> None:
    assert {mutant.file.split("/")[0] for mutant in MUTANTS} == {
        "backend_selector",
        "converter",
        "engine",
        "native",
        "server",
    }
