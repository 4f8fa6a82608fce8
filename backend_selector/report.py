"""Tells a choice, to people and to programs."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from backend_selector.choice import Choice, Decision
from backend_selector.facts import FileFacts, MachineFacts
from backend_selector.plain_text import plain
from backend_selector.sizes import gib


def as_dict(file: FileFacts, machine: MachineFacts, choice: Choice) -> dict[str, Any]:
    """Facts and choice as what JSON can hold; each decision has `value` and `reason`."""
    return {
        "model": asdict(file) | {"path": str(file.path), "layers": file.layers},
        "machine": asdict(machine),
        "choice": asdict(choice),
    }


def as_text(file: FileFacts, machine: MachineFacts, choice: Choice) -> RenderableType:
    """A table of the decisions, then the KoboldCpp command line with its needs, then the warnings."""
    table = Table("", "choice", "because", title=Text(f"{file.name}, {_model(file)}"), title_justify="left")
    for name, decision in _decisions(choice):
        table.add_row(name, Text(str(decision.value)), Text(plain(decision.reason)))
    for share in choice.shares:
        table.add_row(
            "memory" if len(choice.shares) == 1 else f"memory on {share.device}",
            gib(share.used),
            Text(share.describe()),
        )
    lines = [Text(plain(f"warning: {warning}"), style="yellow") for warning in choice.warnings]
    notes = [Text(plain(note)) for note in choice.koboldcpp_needs]
    return Group(table, Text(plain(f"KoboldCpp: {shlex.join(choice.koboldcpp)}")), *notes, *lines)


def print_report(file: FileFacts, machine: MachineFacts, choice: Choice) -> None:
    """Print the text to stdout, lines unbroken where stdout is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200, soft_wrap=True)
    console.print(as_text(file, machine, choice))


def _model(file: FileFacts) -> str:
    parameters = f"{file.parameters / 1e6:,.0f} million parameters"
    return f"{file.architecture}, {file.quantisation}, {parameters}, {gib(file.size)}"


def _decisions(choice: Choice) -> Iterator[tuple[str, Decision[object]]]:
    yield "engine", choice.engine
    if choice.gamma is not None:
        yield "gamma", choice.gamma
    yield "device", choice.device
    layers = ", ".join(f"{count} on {device}" for device, count in choice.layers.value)
    yield "layers", Decision(layers, choice.layers.reason)
    yield "kernels", choice.kernels
    yield "dtype", choice.dtype
    yield "context", choice.context
    yield "KV cache", choice.kv_tokens
    yield "threads", choice.threads
