"""`nkat demo`: serve a small model that is fetched when it is not there."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from server.commands.serve import end_on_signals, serve
from server.demo import fetch_demo_model
from server.settings import Settings


def demo(settings: Settings) -> None:
    """Serve the demo model, or the one that `settings` names. Raises as `serve` does."""
    end_on_signals()
    if settings.model is None:
        settings = settings.model_copy(update={"model": _fetch_with_progress(quiet=settings.quiet)})
    serve(settings)


def _fetch_with_progress(*, quiet: bool) -> Path:
    columns = (TextColumn("fetching the demo model, once"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(quiet=quiet), transient=True) as progress:
        task = progress.add_task("download", total=None)
        return fetch_demo_model(lambda done, total: progress.update(task, completed=done, total=total))
