"""Our GPU engine on a random model: kernels against float64, then its speed against the card's limits.

python -m benchmarks.gpu [--out FOLDER] [--quick] [--device cuda:0] [--shape llama3-8b]
                         [--llama-bench PATH --peer-model FILE] [--model FILE --text FILE --cpu-perplexity X]

Needs a CUDA device, torch and Triton, and nothing from a network. Every part runs in a process of its own:
first, side by side, the checks of all kernels and the compilation of those that are timed; then, one after
the other, what must have the card for itself. Parts for which the run's eight minutes leave no time are left
out. The folder gets `gpu.json`, `gpu.txt` and `roofline.png`; the last line of stdout is the JSON. Exit code
1: a part or a check failed. Missed gates are told and change no exit code.
"""

import json
import os
import signal
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import torch
import typer
from rich.console import Console

from benchmarks.gpu.gates import failed_checks, gates, gates_as_json
from benchmarks.gpu.model_shapes import SHAPES
from benchmarks.gpu.report import print_report
from benchmarks.gpu.roofline import write_roofline
from benchmarks.gpu.run import ChildLauncher, Launcher, Run
from benchmarks.gpu.settings import QUICK, Settings, Sizes, path_text
from engine.device import torch_device
from engine.errors import ConfigError, NkatError

_BYTES_OF_A_PART = 4 * 2**30
"""Of the card's memory, for one of the parts that run side by side."""


def gpu(
    out: Annotated[Path, typer.Option(help="folder for the results")] = Path("gpu-benchmark"),
    device: Annotated[str, typer.Option(help="cuda:N")] = "cuda:0",
    shape: Annotated[str, typer.Option(help=f"of the model: {', '.join(SHAPES)}")] = "llama2-7b",
    quick: Annotated[bool, typer.Option("--quick", help="fewer sizes and repeats")] = False,
    llama_bench: Annotated[Path | None, typer.Option(help="llama.cpp's llama-bench with CUDA")] = None,
    peer_model: Annotated[Path | None, typer.Option(help="GGUF file for it")] = None,
    model: Annotated[Path | None, typer.Option(help="GGUF file whose perplexity is measured")] = None,
    text: Annotated[Path | None, typer.Option(help="text for that")] = None,
    windows: Annotated[int, typer.Option(min=1, help="of 512 tokens of the text, at most")] = 20,
    cpu_perplexity: Annotated[float | None, typer.Option(help="what the processor's kernels gave")] = None,
) -> None:
    """Check and measure our GPU engine; the last line is JSON."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        settings = Settings(
            device=device,
            shape=shape,
            sizes=QUICK if quick else Sizes(),
            model=path_text(model),
            text=path_text(text),
            windows=windows,
            cpu_perplexity=cpu_perplexity,
            llama_bench=path_text(llama_bench),
            peer_model=path_text(peer_model),
        )
        check_settings(settings)
        properties = _card(device)
        workers = min(len(os.sched_getaffinity(0)), properties.total_memory // _BYTES_OF_A_PART)
        code = benchmark(settings, ChildLauncher(max(1, workers)), out, _described(properties))
    except NkatError as error:
        typer.echo(f"nkat: {error}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(code)


def benchmark(settings: Settings, launcher: Launcher, out: Path, card: dict[str, Any]) -> int:
    """Carry out a run, print and write what it finds; the exit code.

    `card`: what it runs on, for the JSON. Raises `ConfigError` for a folder that cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {out}: {error.strerror}") from None
    progress = Console(stderr=True, highlight=False)
    run = Run(settings, launcher, lambda line: progress.print(line, markup=False, soft_wrap=True))
    run.carry_out()
    all_gates = gates(run.figures)
    said: dict[str, Any] = {"card": card, "settings": settings.as_json()} | run.figures
    said |= {"gates": gates_as_json(all_gates), "errors": run.errors, "left_out": run.left_out}
    title = f"{settings.shape} in Q4_K_M, random, on {card['name']}"
    picture = _picture(out / "roofline.png", said, settings, title)
    if picture is not None:
        said["left_out"].append(picture)
    said |= {"part_seconds": run.part_seconds, "seconds": run.elapsed}
    line = json.dumps(said)
    print_report(title, said, all_gates)
    try:
        with (out / "gpu.txt").open("w", encoding="utf-8") as file:
            print_report(title, said, all_gates, file)
        (out / "gpu.json").write_text(f"{line}\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write to {out}: {error.strerror}") from None
    print(line, flush=True)
    return 1 if run.errors or failed_checks(run.figures) else 0


def check_settings(settings: Settings) -> None:
    """Raise `ConfigError` for settings that no run could have."""
    if settings.shape not in SHAPES:
        raise ConfigError(f"no shape {settings.shape!r:.40}; there are: {', '.join(SHAPES)}")
    pairs = {
        "--model and --text": (settings.model, settings.text),
        "--llama-bench and --peer-model": (settings.llama_bench, settings.peer_model),
    }
    for names, values in pairs.items():
        if (values[0] is None) != (values[1] is None):
            raise ConfigError(f"{names} go together")
        for value in values:
            if value is not None and not Path(value).is_file():
                raise ConfigError(f"there is no file {value}")
    if settings.cpu_perplexity is not None and settings.model is None:
        raise ConfigError("--cpu-perplexity needs --model and --text")


def _card(device: str) -> Any:
    """torch's properties of the card. Raises `ConfigError` where there is none."""
    if not torch.cuda.is_available():
        raise ConfigError("this benchmark needs a CUDA device, and torch finds none")
    chosen = torch_device(device)
    if chosen.type != "cuda":
        raise ConfigError(f"this benchmark needs a CUDA device, not {device}")
    return torch.cuda.get_device_properties(chosen)


def _described(properties: Any) -> dict[str, Any]:
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cache_bytes": properties.L2_cache_size,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": version("triton"),
    }


def _picture(path: Path, said: dict[str, Any], settings: Settings, title: str) -> str | None:
    """Draw the roofline; or why there is none."""
    try:
        write_roofline(path, said, settings.sizes.context, title)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        return "roofline.png: matplotlib is not installed (pip install 'nkat[tuning]')"
    except KeyError:
        return "roofline.png: the card's limits were not measured"
    except OSError as error:
        return f"roofline.png: {error.strerror}"
    return None


def _terminated(sig: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + sig)


def main() -> None:
    """Entry of the command: exit code 2 for what the user can mend, 130 after Ctrl-C."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(gpu)
    app(prog_name="python -m benchmarks.gpu")
