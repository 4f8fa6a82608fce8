"""What a user sees at the terminal."""

from pathlib import Path

import rich.console
from rich.markup import escape
from rich.table import Table

from backend_selector.choice import Choice
from backend_selector.facts import FileFacts
from backend_selector.plain_text import plain
from server.settings import Settings
from server.webui.assets import LITE_LOCAL


class Console:
    """Friendly words on stdout, or none."""

    def __init__(self, *, quiet: bool) -> None:
        self._out = rich.console.Console(quiet=quiet, highlight=False, soft_wrap=True)

    def loading(self, model: Path) -> None:
        """The model is being read."""
        self._out.print(f"[bold]NKAT[/bold] loading {escape(str(model))}")

    def ready(self, file: FileFacts, choice: Choice, settings: Settings, host: str, port: int) -> None:
        """The server answers now."""
        here = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        scheme = "http" if settings.ssl is None else "https"
        url = f"{scheme}://[{here}]:{port}" if ":" in here else f"{scheme}://{here}:{port}"
        page = "" if settings.lite is None else f"/?{LITE_LOCAL}=1"
        table = Table(show_header=False, box=None, padding=(0, 2))
        size = f"{file.parameters / 1e6:,.0f} M parameters, {file.quantisation}, {file.architecture}"
        rows = [
            ("model", f"{escape(plain(file.path.stem))} ({size})"),
            ("engine", _engine(file, choice)),
            ("device", f"{choice.device.value}, {choice.kernels.value} kernels"),
            ("context", f"{choice.context.value} tokens"),
            ("threads", f"{choice.threads.value}"),
            ("together", f"{settings.parallelrequests} generations"),
            ("address", f"[bold]{url}{page}[/bold]"),
            ("connect", f"KoboldAI Lite, SillyTavern: {url}"),
            ("", f"OpenAI clients: {url}/v1"),
        ]
        if settings.protected:
            rows.append(("password", "required"))
        for row in rows:
            table.add_row(*row)
        self._out.print(table)
        self._out.print("Ready. Ctrl-C stops the server.")


def _engine(file: FileFacts, choice: Choice) -> str:
    if file.theta is None or choice.gamma is None:
        return f"baseline: {choice.engine.reason}"
    return f"nkat, rank {file.theta.rank}, gamma {choice.gamma.value:g}"
