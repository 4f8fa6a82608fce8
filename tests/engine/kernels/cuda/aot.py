"""Compiles the Triton kernels ahead of time, without a card, and reads the machine code that comes out.

How to add a kernel: give a module `tests/engine/kernels/cuda/specs_NAME.py` a list `SPECS` of `Spec`s. A Spec
names one variant of a kernel: the types of its arguments (`"*fp32"`, `"i32"`; `":16"` at the end says that an
integer is a multiple of 16, as Triton finds at a launch; pointers always are), the values of its constexpr
parameters, the number of warps and the architectures. Arguments that are tuples take tuples of types, and
None stands for None. `hot` sets a ceiling for the innermost loop that holds the named instruction.

Kernels defined under TRITON_INTERPRET=1 cannot be compiled: `compiler` runs this file in a process without
it:

    python -m tests.engine.kernels.cuda.aot     one line of JSON for each line on stdin: NAME ARCHITECTURE
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler as nvidia
from triton.compiler import ASTSource

ARCHITECTURES = (80, 89, 90)


@dataclass(frozen=True)
class Hot:
    """At most `ceiling` instructions per weight, no barrier, in the loop of `mnemonic`s, each for `weights`.

    Both counts are of one lane: `weights` is how many weights pass through one such instruction.
    """

    mnemonic: str
    weights: float
    ceiling: float


@dataclass(frozen=True)
class Spec:
    """One variant of a kernel to compile."""

    name: str
    function: Any
    signature: Mapping[str, Any]
    constexprs: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 3
    archs: tuple[int, ...] = ARCHITECTURES
    hot: Hot | None = None


@dataclass(frozen=True)
class Result:
    """What became of a Spec on one architecture. The last two are of the hot loop, where the Spec has one."""

    registers: int
    spilled_bytes: int
    shared_bytes: int
    instructions: int
    per_weight: float | None
    barriers: int


def specs() -> dict[str, Spec]:
    """All Specs by name, of the modules `specs_*` beside this file."""
    found: dict[str, Spec] = {}
    for path in sorted(Path(__file__).parent.glob("specs_*.py")):
        for spec in import_module(f"{__package__}.{path.stem}").SPECS:
            assert spec.name not in found, f"two Specs are called {spec.name}"
            found[spec.name] = spec
    return found


def compile_spec(spec: Spec, arch: int) -> Result:
    """Compile for sm_`arch`. Raises what the compiler raises."""
    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}

    def typed(path: tuple[int, ...], given: Any) -> Any:
        if isinstance(given, tuple):
            parts = [typed((*path, at), part) for at, part in enumerate(given)]
            return type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
        if given is None:
            constants[path] = None
            return "constexpr"
        kind, _, divisor = str(given).partition(":")
        if kind.startswith("*") or divisor == "16":
            attributes[path] = [["tt.divisibility", 16]]
        return kind

    for at, name in enumerate(spec.function.arg_names):
        if name in spec.constexprs:
            constants[(at,)] = spec.constexprs[name]
            signature[name] = "constexpr"
        else:
            signature[name] = typed((at,), spec.signature[name])
    source = ASTSource(spec.function, signature, constants, attributes)
    options = {"num_warps": spec.num_warps, "num_stages": spec.num_stages}
    kernel = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(kernel.asm["cubin"])
        cubin.flush()
        usage = _run("cuobjdump", "-res-usage", cubin.name)
        code = _run("nvdisasm", "-c", cubin.name)
    registers, stack, shared, local = (
        int(_found(rf"\b{name}:(\d+)", usage)) for name in ("REG", "STACK", "SHARED", "LOCAL")
    )
    lines = code.splitlines()
    loop = [] if spec.hot is None else hot_loop(lines, spec.hot.mnemonic)
    per_weight = None
    if spec.hot is not None:
        per_weight = len(loop) / (_count(loop, spec.hot.mnemonic) * spec.hot.weights)
    return Result(
        registers,
        max(stack, local),
        max(shared, kernel.metadata.shared),
        sum(_opcode(line) is not None for line in lines),
        per_weight,
        _count(loop, "BAR"),
    )


def hot_loop(code: list[str], mnemonic: str) -> list[str]:
    """The instructions of the innermost loop with the most `mnemonic`s. Raises ValueError if none has any.

    `code`: lines of nvdisasm. A loop is what lies between a label and a branch back to it.
    """
    labels = {
        line.split(":")[0].strip(): at for at, line in enumerate(code) if re.match(r"\s*\.L_\w+:", line)
    }
    loops = []
    for at, line in enumerate(code):
        target = re.search(r"\bBRA\b.*`\((\.L_\w+)\)", line)
        start = labels.get(target[1], at) if target else at
        if start < at:
            loops.append((start, at))
    innermost = [
        list(_opcodes(code[start : stop + 1]))
        for start, stop in loops
        if not any(other != (start, stop) and start <= other[0] and other[1] <= stop for other in loops)
    ]
    hottest = max(innermost, key=lambda loop: _count(loop, mnemonic), default=[])
    if not _count(hottest, mnemonic):
        raise ValueError(f"no loop holds {mnemonic}")
    return hottest


def _count(opcodes: list[str], mnemonic: str) -> int:
    return sum(opcode.startswith(mnemonic) for opcode in opcodes)


def _opcodes(lines: list[str]) -> Iterator[str]:
    return (opcode for line in lines if (opcode := _opcode(line)) is not None)


def _opcode(line: str) -> str | None:
    """The instruction on a line such as `/*0130*/ @P0 IDP.4A.S8.S8 R2, R3, R4, R2 ;`, NOPs aside."""
    match = re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", line)
    return None if match is None or match[1] == "NOP" else match[1]


def _run(tool: str, *arguments: str) -> str:
    path = Path(nvidia.__file__).parent / "bin" / tool
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"no {pattern} in {text!r:.400}"
    return match[1]


def main() -> None:
    """Print one line of JSON for each that is asked for: a Result, or an error."""
    known = specs()
    with tempfile.TemporaryDirectory() as cache:
        triton.knobs.cache.dir = cache
        for line in sys.stdin:
            name, _, arch = line.rstrip().rpartition(" ")
            try:
                found = asdict(compile_spec(known[name], int(arch)))
            except Exception as error:  # the test of this kernel fails with it, the others go on
                found = {"error": f"{type(error).__name__}: {error}".strip()[-2000:]}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
