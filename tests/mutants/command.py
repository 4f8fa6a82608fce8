"""Puts one fault after the other into a copy of the tree, and sees whether the tests notice."""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from threading import Event, Lock

from tests.mutants.mutant import LISTS, ROOT, Mutant, MutantError, Selection, read_mutants
from tests.mutants.running import Finished
from tests.mutants.tree import Tree

_LEAST_SHARE = 0.95
"""Of the mutants that must be killed."""
_MOST_JOBS = 4
_LIMIT_SECONDS, _LIMIT_TIMES = 10.0, 3.0
"""A mutant has so much longer than its tests take without it: the machine may be busy."""
_CLEAN_SECONDS = 300.0

_PASSED = re.compile(r"\b[1-9]\d* passed")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", re.MULTILINE)

Group = Sequence[Mutant]
"""Mutants that are tried one after the other in one copy: what they need is prepared once."""


@dataclass(slots=True)
class Report:
    """What became of the mutants so far. Says so, line by line."""

    mutants: int
    killed: list[str] = field(default_factory=list)
    survived: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Names of those that could not be tried."""
    _lock: Lock = field(default_factory=Lock)

    def add(self, mutant: Mutant, finished: Finished) -> None:
        """The tests have ended with the mutant."""
        kills = finished.status != 0
        verdict = "killed" if kills else "SURVIVED"
        why = _why(finished) if kills else str(mutant.selection)
        text = f"{verdict:9} {mutant.name:50} {finished.seconds:5.1f} s  {why}"
        self._say(self.killed if kills else self.survived, mutant, text)

    def fail(self, mutant: Mutant, error: MutantError) -> None:
        """The mutant could not be tried."""
        self._say(self.errors, mutant, f"ERROR     {error}")

    def end(self) -> int:
        """The summary; the command's exit status."""
        tried = len(self.killed) + len(self.survived)
        print(f"\n{len(self.killed)} of {tried} mutants killed")
        for what, names in (("survived", self.survived), ("not tried", self.errors)):
            for name in sorted(names):
                print(f"{what}: {name}")
        figures = {"mutants": self.mutants, "killed": len(self.killed), "survived": sorted(self.survived)}
        print(json.dumps(figures | ({"errors": sorted(self.errors)} if self.errors else {})))
        if self.errors:
            return 2
        return 0 if len(self.killed) >= _LEAST_SHARE * tried else 1

    def _say(self, names: list[str], mutant: Mutant, text: str) -> None:
        with self._lock:
            names.append(mutant.name)
            done = len(self.killed) + len(self.survived) + len(self.errors)
            print(f"[{done:{len(str(self.mutants))}}/{self.mutants}] {text}", flush=True)


class Trials:
    """Runs the tests of mutants in one copy. Each selection of tests runs once without a mutant first."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._clean: dict[Selection, float] = {}
        """Seconds of selections that pass without a mutant."""

    def run(self, mutant: Mutant) -> Finished:
        """The tests with the mutant; their status is 0 if it survives.

        Raises `MutantError` where it cannot be put in, and where its tests fail, or run none, without it.
        """
        limit = _LIMIT_SECONDS + _LIMIT_TIMES * self._clean_seconds(mutant)
        with self._tree.changed(mutant):
            return self._test(mutant.selection, limit)

    def _clean_seconds(self, mutant: Mutant) -> float:
        selection = mutant.selection
        if selection not in self._clean:
            finished = self._test(selection, _CLEAN_SECONDS)
            if finished.status != 0 or _PASSED.search(finished.output) is None:
                raise MutantError(
                    f"{mutant.name}: without it, {selection} fails or runs no test\n{finished.output[-2000:]}"
                )
            self._clean[selection] = finished.seconds
        return self._clean[selection]

    def _test(self, selection: Selection, limit: float) -> Finished:
        command = [self._tree.python, "-m", "pytest", *selection.tests]
        command += ["-x", "-n0", "--color=no", "-p", "no:cacheprovider", "-p", "tests.mutants.quick_failures"]
        return self._tree.run([*command, *(("-k", selection.only) if selection.only else ())], limit)


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT, lists: Path = LISTS) -> int:
    """The command; its exit status: 1 where too many mutants survive, 2 where one could not be tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("-k", metavar="TEXT", default="", help="only mutants with this in their name or file")
    jobs = min(_MOST_JOBS, len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--jobs", metavar="N", type=int, default=jobs, help="at the same time, each in a copy"
    )
    given = parser.parse_args(arguments)
    try:
        mutants = [one for one in read_mutants(lists) if given.k in one.name or given.k in one.file]
        if not mutants:
            raise MutantError(f"no mutant has {given.k!r} in its name or file")
        return _try_all(mutants, root, max(1, given.jobs))
    except MutantError as error:
        print(f"ERROR     {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _try_all(mutants: Sequence[Mutant], root: Path, jobs: int) -> int:
    report = Report(len(mutants))
    groups: SimpleQueue[Group] = SimpleQueue()
    for group in _groups(mutants):
        groups.put(group)
    jobs = min(jobs, groups.qsize())
    stop = Event()

    def work(number: int) -> None:
        place = Path(folder, str(number))
        place.mkdir()
        trials = Trials(Tree(root, place, stop))
        with suppress(Empty):
            while True:
                for mutant in groups.get_nowait():
                    try:
                        report.add(mutant, trials.run(mutant))
                    except MutantError as error:
                        report.fail(mutant, error)

    with TemporaryDirectory(prefix="nkat-mutants-") as folder, ThreadPoolExecutor(jobs) as workers:
        try:
            for done in as_completed([workers.submit(work, number) for number in range(jobs)]):
                done.result()
        except BaseException:
            stop.set()
            raise
    return report.end()


def _groups(mutants: Sequence[Mutant]) -> Iterator[Group]:
    """Those that need the library built, which takes longest, then those of each selection of tests."""
    native = [mutant for mutant in mutants if mutant.native]
    if native:
        yield native
    others = [mutant for mutant in mutants if not mutant.native]
    for selection in dict.fromkeys(mutant.selection for mutant in others):
        yield [mutant for mutant in others if mutant.selection == selection]


def _why(finished: Finished) -> str:
    if finished.status is None:
        return "by the time limit"
    found = _FAILED.search(finished.output)
    return found[1] if found else f"by status {finished.status}"
