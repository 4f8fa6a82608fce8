"""The command `select`: probes, chooses, tells. What it needs is imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from backend_selector.plain_text import plain
from engine.errors import NkatError


def select(
    model: Annotated[Path, typer.Option(help="GGUF or .nkat file; the first part of a split model")],
    theta_path: Annotated[Path | None, typer.Option(help="sidecar file with theta for the model")] = None,
    no_theta: Annotated[bool, typer.Option("--no-theta", help="leave theta out")] = False,
    theta_gamma: Annotated[
        float | None, typer.Option(help="strength of theta, 0 to 1; unset: its file's")
    ] = None,
    contextsize: Annotated[int | None, typer.Option(min=1, help="tokens a request may span")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; unset: the physical cores")] = None,
    kernels: Annotated[
        str, typer.Option(envvar="NKAT_KERNELS", help="auto for the fastest, or avx2, portable or reference")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print facts and choice as JSON")] = False,
) -> None:
    """Say how a model would best run on this machine, and why."""
    try:
        _select(model, theta_path, no_theta, theta_gamma, contextsize, device, threads, kernels, as_json)
    except NkatError as error:
        typer.echo(f"nkat: {plain(str(error))}", err=True)
        raise SystemExit(2) from None


def _select(
    model: Path,
    theta_path: Path | None,
    no_theta: bool,
    gamma: float | None,
    contextsize: int | None,
    device: str,
    threads: int | None,
    kernels: str,
    as_json: bool,
) -> None:
    import json

    from backend_selector.facts import Wishes
    from backend_selector.probe import probe_file, probe_machine
    from backend_selector.report import as_dict, print_report
    from backend_selector.select import select_backend

    wishes = Wishes(
        device=device,
        kernels=kernels,
        contextsize=contextsize,
        threads=threads,
        theta=not no_theta,
        theta_path=theta_path,
        gamma=gamma,
    )
    file = probe_file(model, None if no_theta else theta_path)
    machine = probe_machine()
    choice = select_backend(file, machine, wishes)
    if as_json:
        print(json.dumps(as_dict(file, machine, choice), indent=2))
    else:
        print_report(file, machine, choice)
