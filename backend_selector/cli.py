"""The command `select`: probes, chooses, tells. What it needs is imported when it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend_selector.plain_text import plain
from backend_selector.shares import read_shares
from engine.errors import ConfigError, NkatError
from engine.native import NATIVE_KERNELS

if TYPE_CHECKING:
    from backend_selector.facts import Wishes


def select(
    model: Annotated[Path, typer.Option(help="GGUF or .nkat file; the first part of a split model")],
    theta_path: Annotated[Path | None, typer.Option(help="sidecar file with theta for the model")] = None,
    no_theta: Annotated[bool, typer.Option("--no-theta", help="leave theta out")] = False,
    theta_gamma: Annotated[
        float | None, typer.Option(help="strength of theta, 0 to 1; unset: its file's")
    ] = None,
    contextsize: Annotated[int | None, typer.Option(min=1, help="tokens a request may span")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    gpulayers: Annotated[
        int | None,
        typer.Option(min=-1, help="layers on GPUs, the output is one; unset, -1: as many as fit"),
    ] = None,
    tensor_split: Annotated[
        str | None, typer.Option(help="shares of these layers by GPU, as in 7,3; unset: by free memory")
    ] = None,
    maingpu: Annotated[
        int | None, typer.Option(min=-1, help="the one GPU to use; unset or -1: whichever are best")
    ] = None,
    quantkv: Annotated[int, typer.Option(min=0, max=2, help="KV cache on GPUs: 0 f16, 1 q8, 2 q4")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; unset: the physical cores")] = None,
    kernels: Annotated[
        str,
        typer.Option(
            envvar="NKAT_KERNELS",
            help=f"auto for the fastest, or {', '.join(NATIVE_KERNELS)} or reference",
        ),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print facts and choice as JSON")] = False,
) -> None:
    """Say how a model would best run on this machine, and why."""
    from backend_selector.facts import Wishes

    try:
        try:
            shares = None if tensor_split is None else read_shares(tensor_split)
        except ValueError as error:
            raise ConfigError(f"--tensor-split: {error}") from None
        wishes = Wishes(
            device=device,
            gpulayers=gpulayers,
            tensor_split=shares,
            maingpu=maingpu,
            kernels=kernels,
            contextsize=contextsize,
            quantkv=quantkv,
            threads=threads,
            theta=not no_theta,
            theta_path=theta_path,
            gamma=theta_gamma,
        )
        _select(model, wishes, as_json=as_json)
    except NkatError as error:
        typer.echo(f"nkat: {plain(str(error))}", err=True)
        raise SystemExit(2) from None


def _select(model: Path, wishes: "Wishes", *, as_json: bool) -> None:
    import json

    from backend_selector.probe import probe_file, probe_machine
    from backend_selector.report import as_dict, print_report
    from backend_selector.select import select_backend

    file = probe_file(model, wishes.theta_path if wishes.theta else None)
    machine = probe_machine()
    choice = select_backend(file, machine, wishes)
    if as_json:
        print(json.dumps(as_dict(file, machine, choice), indent=2))
    else:
        print_report(file, machine, choice)
