"""What a user sees at the terminal."""

from pathlib import Path

import rich.console
from rich.markup import escape
from rich.table import Table

from engine.types import ModelInfo
from server.settings import Settings


class Console:
    """Friendly words on stdout, or none."""

    def __init__(self, *, quiet: bool) -> None:
        self._out = rich.console.Console(quiet=quiet, highlight=False, soft_wrap=True)

    def loading(self, model: Path) -> None:
        """The model is being read."""
        self._out.print(f"[bold]NKAT[/bold] loading {escape(str(model))}")

    def ready(self, info: ModelInfo, settings: Settings, host: str, port: int) -> None:
        """The server answers now."""
        here = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        url = f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"
        table = Table(show_header=False, box=None, padding=(0, 2))
        size = f"{info.parameters / 1e6:,.0f} M parameters, {info.quantization}, {info.architecture}"
        rows = [
            ("model", f"{escape(info.name)} ({size})"),
            ("context", f"{info.context_length} tokens"),
            ("threads", "all physical cores" if settings.threads is None else str(settings.threads)),
            ("together", f"{settings.parallelrequests} generations"),
            ("address", f"[bold]{url}[/bold]"),
            ("connect", f"KoboldAI Lite, SillyTavern: {url}"),
            ("", f"OpenAI clients: {url}/v1"),
        ]
        if settings.password is not None:
            rows.append(("password", "required"))
        for row in rows:
            table.add_row(*row)
        self._out.print(table)
        self._out.print("Ready. Ctrl-C stops the server.")
