"""The command `nkat`: parses, calls, and turns errors into one line. Nothing heavy is imported for --help.

A subcommand is a function here and a module in `server.commands` that does the work.
"""

import typer

from server.options import with_settings
from server.settings import Settings

app = typer.Typer(
    help="NKAT: a KoboldCpp-compatible inference server for GGUF models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def serve(settings: Settings) -> None:
    """Serve a GGUF model over the Kobold and OpenAI APIs."""
    from server.commands.serve import serve

    serve(settings)


def demo(settings: Settings) -> None:
    """Serve a small model that is fetched when it is not there yet (98 MB)."""
    from server.commands.demo import demo

    demo(settings)


app.command("serve")(with_settings(serve))
app.command("demo")(with_settings(demo))


def main() -> None:
    """Entry of the console command: exit code 2 for what the user can mend, 130 after Ctrl-C."""
    app(prog_name="nkat")
