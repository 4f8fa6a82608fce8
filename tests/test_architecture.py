"""The layering: every module has a floor and imports only from its own floor or below.

The imports are read from the source, so that imports inside functions and under `TYPE_CHECKING`
count like any other. Modules that no row places fail the test: a new module needs a place.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("engine", "server", "converter", "backend_selector")

FLOORS: Mapping[str, int] = {
    "engine.gguf.*": 0,
    "engine.types": 0,
    "engine.collector": 0,
    "engine.config": 0,
    "engine.errors": 0,
    "engine.metrics": 0,
    "engine.printable": 0,
    "engine.text": 0,
    "engine.embedding": 0,
    "engine": 0,
    "engine.native.*": 0,
    "engine.architectures.*": 1,
    "engine.theta.*": 1,
    "engine.kernels.*": 1,
    "engine.batch": 1,
    "engine.kv_cache": 1,
    "engine.memory": 1,
    "engine.device": 1,
    "engine.transfer": 1,
    "engine.templates.*": 0,
    "engine.tokenizer.*": 1,
    "engine.grammar.*": 1,
    "engine.sequence": 1,
    "engine.layers.*": 2,
    "engine.sampling.*": 2,
    "engine.block_manager": 2,
    "engine.context_shift": 2,
    "engine.embedding_queue": 2,
    "engine.prompt": 2,
    "engine.preparation": 2,
    "engine.fair_share": 2,
    "engine.pace": 2,
    "engine.plan": 2,
    "engine.queue": 2,
    "engine.models.*": 3,
    "engine.scheduler": 3,
    "engine.batch_builder": 4,
    "engine.model_runner": 4,
    "engine.cuda_graphs": 4,
    "engine.paged_batch_builder": 4,
    "engine.output": 4,
    "engine.thinking": 4,
    "engine.generation": 4,
    "engine.prompt_scores": 4,
    "engine.theta_setting": 0,
    "engine.theta_switch": 4,
    "engine.loading": 4,
    "engine.lookahead": 4,
    "engine.speculation.*": 4,
    "engine.engine": 5,
    "engine.worker": 6,
    "engine.perplexity": 6,
    "engine.benchmark": 6,
    "engine.bench_report": 6,
    "engine.bench_table": 6,
    "engine.cli": 6,
    "engine.__main__": 6,
    "converter.*": 6,
    "backend_selector.*": 6,
    "converter.tuning.*": 7,
    "server.*": 7,
    "server.cli": 8,
    "server.app": 8,
    "server.__main__": 8,
    "server.commands.*": 8,
    "server.dialects.*": 8,
}
"""`name.*` is a module or package with all that is below it; the longest row that fits counts."""

BENEATH: Mapping[str, set[str]] = {
    "engine": set(),
    "backend_selector": {"engine"},
    "converter": {"engine"},
    "server": {"engine", "backend_selector", "converter"},
}
"""The other packages that each package may import at all."""

FACADE = {
    f"engine.{name}"
    for name in (
        "architectures",
        "cli",
        "collector",
        "config",
        "embedding",
        "engine",
        "errors",
        "metrics",
        "native",
        "perplexity",
        "preparation",
        "templates.limits",
        "text",
        "types",
        "worker",
    )
}
DOORS = ("server.cli", "server.app", "server.dialects")
SEEN_FROM_DOORS = {"engine.types", "engine.errors"}
TORCH_FREE = (
    "engine.types",
    "engine.config",
    "engine.errors",
    "engine.metrics",
    "engine.gguf",
    "engine.architectures",
    "engine.preparation",
    "engine.theta",
    "engine.templates",
    "engine.tokenizer",
    "engine.grammar",
    "engine.sequence",
    "engine.fair_share",
    "engine.pace",
    "engine.plan",
    "engine.queue",
    "engine.block_manager",
    "engine.context_shift",
    "engine.embedding",
    "engine.embedding_queue",
    "engine.native",
    "engine.scheduler",
    "engine.text",
)
HTTP_AND_ASYNC = {
    "asyncio",
    "anyio",
    "fastapi",
    "starlette",
    "uvicorn",
    "http",
    "httpx",
    "requests",
    "socket",
}

Graph = Mapping[str, frozenset[str]]
"""Each module of the project and the names that it imports, its own packages resolved to modules."""


def inside(name: str, package: str) -> bool:
    """Whether `name` is `package` or below it."""
    return name == package or name.startswith(package + ".")


def floor(name: str) -> int | None:
    """The floor of a module, None if no row places it."""
    exact = FLOORS.get(name)
    if exact is not None:
        return exact
    rows = [row for row in FLOORS if row.endswith(".*") and inside(name, row.removesuffix(".*"))]
    return FLOORS[max(rows, key=len)] if rows else None


def find_modules(root: Path) -> dict[str, Path]:
    """All modules of the four packages by dotted name."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imported_names(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every dotted name that the source imports; `from a import b` gives `a.b`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                base = node.module or ""
                if node.level:
                    parts = module.split(".")
                    kept = parts[: len(parts) - node.level + is_package]
                    base = ".".join([*kept, base] if base else kept)
                yield from (f"{base}.{alias.name}" for alias in node.names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def import_graph(root: Path) -> Graph:
    """Who imports what. Importing a module also runs the `__init__` of each package above it."""
    modules = find_modules(root)

    def resolve(name: str) -> set[str]:
        if name.split(".")[0] not in PACKAGES:
            return {name}
        parts = name.split(".")
        prefixes = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        known = [prefix for prefix in prefixes if prefix in modules]
        return set(known[-1:] or [name])

    return {
        module: frozenset(
            target
            for name in imported_names(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
            for target in resolve(name)
            if target != module
        )
        for module, path in modules.items()
    }


def reachable(graph: Graph, start: str) -> dict[str, str]:
    """All that importing `start` may import, directly or not: name -> the module that imports it."""
    found: dict[str, str] = {}
    todo = [start]
    while todo:
        module = todo.pop()
        parents = {module.rsplit(".", count)[0] for count in range(1, module.count(".") + 1)}
        for target in graph.get(module, frozenset()) | (parents & graph.keys()):
            if target not in found and target != start:
                found[target] = module
                todo.append(target)
    return found


def dialect(module: str) -> str | None:
    """The dialect that a module belongs to, if any."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["server", "dialects"] and len(parts) > 2 else None


def climbs(graph: Graph) -> Iterator[str]:
    """Modules without a place, and imports from a higher floor."""
    for module in graph:
        own = floor(module)
        if own is None:
            yield f"{module} has no floor: give it a row in FLOORS"
            continue
        for target in sorted(graph[module]):
            if target.split(".")[0] in PACKAGES:
                other = floor(target)
                if other is None:
                    yield f"{module} imports {target}, which has no floor"
                elif other > own:
                    yield f"{module} (floor {own}) imports {target} (floor {other})"


def trespasses(graph: Graph) -> Iterator[str]:
    """Imports that go down, but to what the module must not know."""
    for module, targets in graph.items():
        for target in sorted(targets):
            home, package = module.split(".")[0], target.split(".")[0]
            if package in BENEATH and package != home and package not in BENEATH[home]:
                yield f"{module} imports {target}: {home} may import {sorted(BENEATH[home]) or 'itself only'}"
            if dialect(module) and dialect(target) and dialect(module) != dialect(target):
                yield f"{module} imports {target}: dialects never import each other"
            if inside(module, "server") and inside(target, "engine"):
                at_the_door = any(inside(module, door) for door in DOORS)
                allowed = SEEN_FROM_DOORS if at_the_door else FACADE
                if target not in allowed:
                    yield f"{module} imports {target}: of the engine it may see {sorted(allowed)}"
            if inside(module, "engine") and package in HTTP_AND_ASYNC:
                yield f"{module} imports {target}: the engine knows no HTTP and no asyncio"


def impurities(graph: Graph) -> Iterator[str]:
    """Modules that must stay light and reach more than they may, directly or through others."""
    for module in graph:
        if not any(inside(module, package) for package in TORCH_FREE):
            continue
        for target, importer in sorted(reachable(graph, module).items()):
            package = target.split(".")[0]
            if package == "torch":
                yield f"{module} reaches torch through {importer}"
            if (
                inside(module, "engine.gguf")
                and package not in sys.stdlib_module_names
                and package != "numpy"
                and target not in {"engine", "engine.errors", "engine.printable"}
                and not inside(target, "engine.gguf")
                and not inside(target, "engine.native")
            ):
                yield f"{module} reaches {target} through {importer}: numpy, errors, printable, native only"


def all_faults(root: Path) -> list[str]:
    graph = import_graph(root)
    return [*climbs(graph), *trespasses(graph), *impurities(graph)]


def test_imports_go_down_only() -> None:
    assert find_modules(ROOT), "no modules found: the test looks in the wrong place"
    assert all_faults(ROOT) == []


def run_python(code: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


NOTHING_HAPPENED = f"""
import logging, threading
loggers = [logging.getLogger(), *(logging.getLogger(name) for name in logging.Logger.manager.loggerDict
                                  if name.split(".")[0] in {(*PACKAGES, "nkat")!r})]
busy = [logger.name for logger in loggers if logger.handlers or (logger.name != "root" and logger.level)]
assert not busy, f"import set up logging: {{busy}}"
assert threading.active_count() == 1, threading.enumerate()
"""


def test_light_packages_import_without_torch() -> None:
    run_python(
        "import sys, engine, engine.gguf, engine.config, engine.metrics, backend_selector, server\n"
        "assert 'torch' not in sys.modules\n" + NOTHING_HAPPENED
    )


def test_nothing_happens_at_import() -> None:
    names = sorted(name for name in find_modules(ROOT) if not name.endswith("__main__"))
    run_python("".join(f"import {name}\n" for name in names) + NOTHING_HAPPENED)


def plant(root: Path, files: Mapping[str, str]) -> None:
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")


SOUND_TREE = {
    "engine/__init__.py": "",
    "engine/errors.py": "",
    "engine/types.py": "from engine import errors\n",
    "engine/gguf/__init__.py": "import struct\nimport numpy as np\nfrom engine.gguf.reader import read\n",
    "engine/gguf/reader.py": "from ..errors import ModelFileError\nfrom . import codec\n",
    "engine/gguf/codec.py": "from engine.errors import ModelFileError\n",
    "engine/sequence.py": "from engine.types import Event\n",
    "engine/kv_cache.py": "import torch\n",
    "engine/scheduler.py": "from engine.sequence import Sequence\n",
    "engine/worker.py": "import threading\n",
    "server/client.py": "from engine.worker import Worker\nimport backend_selector\n",
    "server/app.py": "from engine.types import Event\nfrom server.dialects.kobold import routes\n",
    "server/dialects/kobold/routes.py": "from . import schemas\nfrom server.client import Client\n",
    "server/dialects/kobold/schemas.py": "import pydantic\n",
    "server/dialects/openai/routes.py": "",
    "backend_selector/__init__.py": "",
}


def test_a_sound_tree_has_no_faults(tmp_path: Path) -> None:
    plant(tmp_path, SOUND_TREE)
    assert all_faults(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("engine/sequence.py", "from engine import scheduler", "floor 1) imports engine.scheduler (floor 3)"),
        ("engine/sequence.py", "from .scheduler import Scheduler", "imports engine.scheduler (floor 3)"),
        ("engine/sequence.py", "def f():\n    import engine.worker", "imports engine.worker (floor 6)"),
        ("engine/worker.py", "if TYPE_CHECKING:\n    from server.client import Client", "server.client"),
        ("engine/worker.py", "importlib.import_module('server.client')", "imports server.client (floor 7)"),
        ("engine/gguf/codec.py", "from ..sequence import Sequence", "imports engine.sequence (floor 1)"),
        (
            "engine/gguf/codec.py",
            "from engine.types import Event",
            "numpy, errors, printable, native only",
        ),
        ("engine/gguf/codec.py", "import rich", "engine.gguf.reader reaches rich through engine.gguf.codec"),
        ("engine/scheduler.py", "import torch.nn", "engine.scheduler reaches torch through engine.scheduler"),
        ("engine/scheduler.py", "from engine.kv_cache import KvCache", "through engine.kv_cache"),
        ("engine/__init__.py", "import torch", "engine.sequence reaches torch through engine"),
        ("engine/worker.py", "import asyncio", "no asyncio"),
        ("engine/worker.py", "import backend_selector", "engine may import itself only"),
        ("engine/novelty.py", "", "engine.novelty has no floor"),
        ("server/client.py", "from engine.scheduler import Scheduler", "of the engine it may see"),
        ("server/client.py", "from server.app import create_app", "imports server.app (floor 8)"),
        ("server/app.py", "from engine.worker import Worker", "['engine.errors', 'engine.types']"),
        (
            "server/dialects/kobold/routes.py",
            "from engine import worker",
            "['engine.errors', 'engine.types']",
        ),
        ("server/dialects/kobold/routes.py", "from ..openai import routes", "never import each other"),
        ("backend_selector/__init__.py", "import converter.tuning.study", "converter.tuning.study (floor 7)"),
    ],
)
def test_each_fault_is_found(tmp_path: Path, path: str, source: str, fault: str) -> None:
    plant(tmp_path, SOUND_TREE | {path: SOUND_TREE.get(path, "") + source + "\n"})
    found = all_faults(tmp_path)
    assert any(fault in line for line in found), found
