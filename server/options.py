"""Command-line options made from the settings, so that names, types and help are said once."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import SecretStr

from engine.errors import NkatError
from server.settings import Settings, flag, load_settings

INTERRUPTED = 130


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the program with code 2 and one line for what the user can mend, with 130 after Ctrl-C."""
    try:
        yield
    except NkatError as error:
        typer.echo(f"nkat: {error}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def with_settings(run: Callable[[Settings], None]) -> Callable[..., None]:
    """A typer command that takes every setting as an option and hands the result to `run`.

    Options that were not given stay unset, so that file and environment count. KoboldCpp's
    `--skiplauncher` is taken and means nothing: there is no launcher.
    """

    def command(**options: Any) -> None:
        config = options.pop("config")
        options.pop("skiplauncher")
        given = {name: value for name, value in options.items() if value is not None}
        with errors_in_one_line():
            run(load_settings(given, config))

    parameters = [_parameter(name, _kind(name), _help(name), _flags(name)) for name in Settings.model_fields]
    parameters += [
        _parameter("config", Path, "TOML file with settings; see configs/nkat.example.toml", ("--config",)),
        _parameter("skiplauncher", bool, "taken for KoboldCpp's sake; no effect", ("--skiplauncher",)),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__name__ = run.__name__
    command.__doc__ = run.__doc__
    return command


def _parameter(name: str, kind: Any, text: str, flags: tuple[str, ...]) -> inspect.Parameter:
    option = typer.Option(*flags, help=text, show_default=False)
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flags(name: str) -> tuple[str, ...]:
    yes = flag(name)
    return (f"{yes}/--no-{yes.removeprefix('--')}",) if _kind(name) is bool else (yes,)


def _kind(name: str) -> type:
    annotation = Settings.model_fields[name].annotation
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)] or [annotation]
    kind = get_args(kinds[0])[0] if get_args(kinds[0]) else kinds[0]
    return str if kind is SecretStr else kind


def _help(name: str) -> str:
    field = Settings.model_fields[name]
    default = "" if field.default is None else f" (default: {field.default})"
    return f"{field.description}{default}"
