"""`python -m converter`: the same as `nkat convert`."""

import sys

import typer

from converter.cli import convert, several_values

if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(convert)
    app(prog_name="python -m converter", args=several_values(sys.argv[1:]))
