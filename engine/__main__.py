"""`python -m engine`: the same as `nkat bench`, or with `--compare` as `nkat compare`."""

import typer

from engine.cli import bench

if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(bench)
    app(prog_name="python -m engine")
