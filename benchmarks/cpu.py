"""Our engine on a CPU beside llama.cpp, measured in turn in one run.

python -m benchmarks.cpu --model M --llama-bench PATH [--llama-server PATH]

Each part is measured in pairs, ours and llama.cpp's back to back and in alternating order; while one side is
measured the other sleeps. A ratio is the median of the pairs' ratios, ours over llama.cpp's. Without
llama.cpp, decode and prefill are compared with what memory and torch's matrix product allow on this machine,
measured in the same way. What exactly is measured stands below the table. The last line of stdout is JSON.
"""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from benchmarks.ratios import take_turns
from benchmarks.report import FIGURES, Measured, as_json, print_profile, print_report, rss_limit
from benchmarks.sides import PARTS, Sides
from engine.errors import ConfigError
from engine.gguf import open_gguf
from engine.preparation import prepare_for_engine
from server.options import errors_in_one_line


def cpu(
    model: Annotated[Path, typer.Option(help="GGUF file")],
    llama_bench: Annotated[Path | None, typer.Option(help="llama.cpp's llama-bench")] = None,
    llama_server: Annotated[Path | None, typer.Option(help="llama.cpp's llama-server, for batch8")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="times that both sides are measured")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="of each side; unset: the cores allowed")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"part to run: {', '.join(PARTS)}")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="file for the JSON as well")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="only show where a step's time goes")] = False,
) -> None:
    """Measure our CPU engine beside llama.cpp; the last line is JSON."""
    signal.signal(signal.SIGTERM, _terminated)
    with errors_in_one_line(), ExitStack() as stack:
        prepare_for_engine(model)
        file = stack.enter_context(open_gguf(model))
        count = threads or len(os.sched_getaffinity(0))
        sides = Sides(file, count, stack, llama_bench, llama_server)
        if profile:
            parts = sides.ours.profile()
            print_profile(parts)
            print(json.dumps(parts))
            return
        names = _chosen(only, sides)
        if json_file is not None and not json_file.parent.is_dir():
            raise ConfigError(f"there is no directory {json_file.parent}")
        # Ours and llama.cpp's wait differently: what else runs does not cancel in their ratio.
        load_average = os.getloadavg()[0]
        measured = [each for name in names for each in _measure(name, sides, pairs)]
        hello, build = sides.ours.hello, None if sides.bench is None else sides.bench.build
        said: dict[str, Any] = {
            "model": model.name,
            "kernels": hello.get("kernels"),
            "threads": count,
            "llama_cpp": build,
            "load_average": load_average,
        }
        said |= as_json(measured)
        if "rss" in names:
            file_bytes = sum(path.stat().st_size for path in file.paths)
            said |= rss_limit(said["rss_mb"], file_bytes, hello["kv_bytes"])
        title = f"{model.name}, {hello.get('kernels', 'our')} kernels, {count} threads"
        print_report(title if build is None else f"{title}; llama.cpp {build}", measured, said)
        line = json.dumps(said)
        print(line, flush=True)
        if json_file is not None:
            _write(json_file, line)


def _chosen(only: Sequence[str] | None, sides: Sides) -> list[str]:
    """The parts to run, in their usual order. Raises `ConfigError`."""
    for name in only or ():
        if name not in PARTS:
            raise ConfigError(f"no part {name!r:.40}; there are: {', '.join(PARTS)}")
        if name not in sides.names:
            raise ConfigError(f"{name} needs --llama-server")
    return [name for name in sides.names if not only or name in only]


def _measure(name: str, sides: Sides, pairs: int) -> Iterator[Measured]:
    """The figures of one part; says on stderr how it goes."""
    console = Console(stderr=True, highlight=False)
    results: list[tuple[dict[str, float], ...]] = []
    with console.status(f"{name}: starting") as status:
        side = sides.of(name)
        for result in take_turns(pairs, [side.ours] if side.theirs is None else [side.ours, side.theirs]):
            results.append(result)
            console.print(_progress(name, result, len(results), pairs), soft_wrap=True)
            status.update(f"{name}: pair {len(results) + 1} of {pairs}")
    for figure in results[0][0]:
        ours, *theirs = ([result[at][figure] for result in results] for at in range(len(results[0])))
        yield Measured(figure, tuple(ours), tuple(theirs[0]) if theirs else (), side.other)


def _progress(name: str, result: Sequence[dict[str, float]], done: int, pairs: int) -> str:
    figure = FIGURES[name]
    values = " against ".join(f"{side[name]:.{figure.digits}f}" for side in result)
    return f"{name}, {done} of {pairs}: {values} {figure.unit}"


def _write(file: Path, line: str) -> None:
    try:
        file.write_text(f"{line}\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from None


def _terminated(sig: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + sig)


def main() -> None:
    """Entry of the command: exit code 2 for what the user can mend, 130 after Ctrl-C."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(cpu)
    app(prog_name="python -m benchmarks.cpu")


if __name__ == "__main__":
    main()
