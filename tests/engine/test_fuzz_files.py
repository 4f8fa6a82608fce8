"""Some hundred mutants of model files; `make fuzz` tries thousands."""

from pathlib import Path

from tests.fuzz_files.bases import write_bases
from tests.fuzz_files.fuzzer import fuzz
from tests.fuzz_files.mutations import mutate

MUTANTS = 240


def test_mutants_are_refused_or_reply() -> None:
    findings = fuzz(range(MUTANTS))
    assert not findings.failures, findings.failures
    assert findings.mutants == MUTANTS
    # A fuzzer that only makes what is refused at the first look finds nothing.
    for outcome in ("refused", "reply", "no numbers"):
        found = sum(count for name, count in findings.outcomes.items() if outcome in name)
        assert found > MUTANTS // 25, findings.outcomes


def test_a_seed_is_a_mutant(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    bases = [write_bases(folder) for folder in folders]
    for seed in range(200):
        first, second = (mutate(each, seed) for each in bases)
        assert (first.files, first.changes) == (second.files, second.changes)
