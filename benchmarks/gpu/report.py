"""What `benchmarks.gpu` found, as tables for people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.gpu.gates import Gate, failed_checks

_WIDTH = 110


def print_report(
    title: str,
    said: Mapping[str, Any],
    all_gates: Sequence[Gate],
    file: TextIO | None = None,
) -> None:
    """Write all tables to stdout, or, without colours, to a file."""
    console = Console(highlight=False, file=file)
    if not console.is_terminal:
        console = Console(highlight=False, file=file, width=_WIDTH)
    console.print(Text(title, style="bold"))
    for line in _limits(said):
        console.print(line)
    for table in (_gemv(said), _decode(said), _prefill(said), _gates(all_gates)):
        if table.row_count:
            console.print(table)
    for line in _remarks(said):
        console.print(Text(line))


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=Text(title), title_justify="left")


def _limits(said: Mapping[str, Any]) -> Iterator[str]:
    names = {
        "copy_bytes_per_second": ("copy, read and written", 1e12, "TB/s"),
        "read_bytes_per_second": ("reading alone", 1e12, "TB/s"),
        "bf16_flops_per_second": ("bfloat16 product", 1e12, "TFLOP/s"),
        "weight_bytes": ("weights read for a token", 1e9, "GB"),
        "record_seconds": ("recording of all steps", 1, "s"),
    }
    for key, (name, unit, text) in names.items():
        if key in said:
            yield f"{name}: {said[key] / unit:.3f} {text}"


def _gemv(said: Mapping[str, Any]) -> Table:
    table = _table("one row times packed matrices", "launch", "times", "us", "MB", "TB/s", "of the copy")
    for name, found in (said.get("gemv", {}) | said.get("gemv_types", {})).items():
        table.add_row(
            name,
            str(found["times"] or ""),
            f"{found['seconds'] * 1e6:.1f}",
            f"{found['bytes'] / 1e6:.1f}",
            f"{found['bytes_per_second'] / 1e12:.2f}",
            f"{100 * found['copy_fraction']:.0f} %",
        )
    return table


def _decode(said: Mapping[str, Any]) -> Table:
    columns = ("streams", "tokens/s", "ms a step", "model alone", "of the copy", "whole engine", "llama.cpp")
    table = _table("decode", *columns)
    engine = said.get("engine", {}).get("decode", {})
    peer = said.get("peer", {}).get("decode", {})
    copy = said.get("copy_bytes_per_second")
    for count in {**said.get("decode", {}), **engine}:
        found, whole = said.get("decode", {}).get(count), engine.get(count)
        row = [count, "", "", "", ""]
        if found is not None:
            share = copy and said["weight_bytes"] / found["model_seconds"] / copy
            row = [
                count,
                f"{found['tokens_per_second']:.1f}",
                f"{found['step_seconds'] * 1e3:.3f}",
                f"{found['model_seconds'] * 1e3:.3f}",
                f"{100 * share:.0f} %" if share else "",
            ]
        row.append(f"{whole['tokens_per_second']:.1f}" if whole else "")
        row.append(f"{peer[count]:.1f}" if count in peer else "")
        table.add_row(*row)
    return table


def _prefill(said: Mapping[str, Any]) -> Table:
    columns = ("prompt", "tokens/s", "ms to the first token", "whole engine", "its first token", "llama.cpp")
    table = _table("prompts", *columns)
    engine = said.get("engine", {}).get("prefill", {})
    peer = said.get("peer", {}).get("prefill", {})
    for name in {**said.get("prefill", {}), **engine}:
        row = [name]
        for found in (said.get("prefill", {}).get(name), engine.get(name)):
            if found is None:
                row += ["", ""]
            else:
                row.append(f"{found['tokens_per_second']:.0f}")
                row.append(f"{found['first_token_seconds'] * 1e3:.1f}")
        row.append(f"{peer[name]:.0f}" if name in peer else "")
        table.add_row(*row)
    return table


def _gates(all_gates: Sequence[Gate]) -> Table:
    table = _table("gates", "figure", "measured", "bound", "")
    for gate in all_gates:
        table.add_row(
            gate.name,
            "" if gate.value is None else f"{gate.value:.4g}",
            f"{'<=' if gate.most else '>='} {gate.bound:g}",
            "passed" if gate.passed else "not measured" if gate.value is None else "failed",
        )
    return table


def _remarks(said: Mapping[str, Any]) -> Iterator[str]:
    checks = said.get("checks", {})
    failed = failed_checks(said)
    yield f"kernel checks against float64: {len(checks) - len(failed)} of {len(checks)} passed"
    for name in failed:
        check = checks[name]
        error = "no number" if check["error"] is None else f"{check['error']:.3g}"
        yield f"  failed: {name}: " + check.get("failure", f"error {error}, at most {check['tolerance']:g}")
    theta = said.get("theta", {})
    for what in ("decode", "prefill"):
        if f"{what}_overhead" in theta:
            yield f"theta of rank {theta['rank']} adds {100 * theta[f'{what}_overhead']:.2f} % to {what}"
    quality = said.get("perplexity")
    if quality is not None:
        beside = f", processor {quality['cpu_perplexity']:g}" if "cpu_perplexity" in quality else ""
        yield (
            f"perplexity on {quality['kernels']} kernels: {quality['perplexity']:.4f} +- "
            f"{quality['error']:.4f} over {quality['windows']} windows{beside}"
        )
    for name, error in said.get("errors", {}).items():
        yield f"{name} ended early: {error}"
    for name in said.get("left_out", []):
        yield f"{name} was left out"
