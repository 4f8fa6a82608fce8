"""`python -m backend_selector`: the same as `nkat select`."""

import typer

from backend_selector.cli import select

if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(select)
    app(prog_name="python -m backend_selector")
