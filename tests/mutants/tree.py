"""A copy of the working tree, with an interpreter that imports from it and a library that is built in it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from tests.mutants.mutant import Mutant, MutantError
from tests.mutants.running import Finished, run

_PACKAGES = ("engine", "server", "converter", "backend_selector", "benchmarks", "tests")
_LIBRARY = Path("engine", "native", "libnkat_kernels.so")
_BUILD_SECONDS = 600.0

_WHERE = """
from importlib.util import find_spec
for name in {names}:
    spec = find_spec(name)
    print(name, None if spec is None else spec.origin)
"""


class Tree:
    """The copy, in which one mutant at a time is put and taken out again.

    The environment that we run in imports the packages from the tree that they were installed from, by a
    finder that a `.pth` file installs. The interpreter here has that environment's packages in a folder on
    its path, where `.pth` files count for nothing, and the project's in the copy; so have its children.
    """

    def __init__(self, root: Path, folder: Path, stop: Event) -> None:
        """`root`: a git checkout, which is only read. `folder`: empty, for all that is made here."""
        self.root = folder / "tree"
        self._folder = folder
        self._stop = stop
        self._clock = 0
        _copy(root, self.root)
        self.python = _interpreter(folder / "venv", self.root)
        self._check_imports()
        self._library = self.root / _LIBRARY
        if (root / _LIBRARY).is_file():
            shutil.copy2(root / _LIBRARY, self._library)
        (folder / "tmp").mkdir()

    def run(self, command: list[str], limit: float) -> Finished:
        """Run a command in the copy; temporary files are made in our folder."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        env |= {"TMPDIR": str(self._folder / "tmp")}
        return run(command, cwd=self.root, env=env, limit=limit, log=self._folder / "log", stop=self._stop)

    @contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        """With the mutant in the copy. Raises `MutantError` where it cannot be put in, or not compiled."""
        text = mutant.mutated(self.root)
        path = self.root / mutant.file
        before, status = path.read_bytes(), path.stat()
        clean = self._built() if mutant.native else None
        try:
            path.write_text(text, encoding="utf-8")
            # Python knows a compiled file's source by whole seconds: no two states of a file have the same.
            self._clock = max(self._clock, int(time.time()), int(status.st_mtime)) + 1
            os.utime(path, (self._clock, self._clock))
            if clean is not None:
                self._build(mutant.name)
            yield
        finally:
            path.write_bytes(before)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            if clean is not None:
                shutil.rmtree(self._objects)
                shutil.copytree(clean / "objects", self._objects)
                shutil.copy2(clean / _LIBRARY.name, self._library)

    @property
    def _objects(self) -> Path:
        return self._folder / "build"

    def _built(self) -> Path:
        """A folder with the objects and the library of the unchanged sources, built at the first call."""
        clean = self._folder / "clean"
        if not clean.exists():
            # Where an editable installation has it: in the tree.
            settings = ["-DCMAKE_BUILD_TYPE=Release", "-DSKBUILD_STATE=editable"]
            generator = ["-G", "Ninja"] if shutil.which("ninja") else []
            command = [
                "cmake",
                *generator,
                *settings,
                "-S",
                str(self.root / "native"),
                "-B",
                str(self._objects),
            ]
            _check(self.run(command, _BUILD_SECONDS), "the unchanged library cannot be configured")
            self._build("the unchanged library")
            shutil.copytree(self._objects, clean / "objects")
            shutil.copy2(self._library, clean)
        return clean

    def _build(self, name: str) -> None:
        command = ["cmake", "--build", str(self._objects), "--parallel"]
        _check(self.run(command, _BUILD_SECONDS), f"{name}: does not compile")

    def _check_imports(self) -> None:
        """Raise `MutantError` if the interpreter would import any of our packages from elsewhere."""
        names = [name for name in _PACKAGES if (self.root / name).is_dir()]
        output = subprocess.run(
            [self.python, "-c", _WHERE.format(names=names)],
            cwd="/",
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        expected = [f"{name} {self.root / name / '__init__.py'}" for name in names]
        if output.splitlines() != expected:
            raise MutantError(f"the packages would be imported from elsewhere:\n{output}")


def _copy(root: Path, target: Path) -> None:
    """All files that git knows or would know, as they are in the working tree."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def _interpreter(folder: Path, tree: Path) -> str:
    """One that looks in the tree, then among the packages of the environment that we run in."""
    venv.create(folder, symlinks=True)
    paths = sysconfig.get_paths()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    lines = dict.fromkeys([str(tree), paths["purelib"], paths["platlib"]])
    (folder / "lib" / version / "site-packages" / "tree.pth").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / "bin" / "python")


def _check(finished: Finished, what: str) -> None:
    if finished.status != 0:
        raise MutantError(f"{what}\n{finished.output[-2000:]}")
