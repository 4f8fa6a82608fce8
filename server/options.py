"""Command-line options made from the settings, so that names, types and help are said once."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic import SecretStr

from engine.errors import NO_MEMORY, NkatError
from server.settings import Settings, flag, load_settings
from server.settings_export import export_settings

INTERRUPTED = 130


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the program with code 2 and one line for what the user can mend, with 130 after Ctrl-C."""
    try:
        yield
    except NkatError as error:
        typer.echo(f"nkat: {error}", err=True)
        raise SystemExit(2) from None
    except MemoryError:
        typer.echo(f"nkat: {NO_MEMORY}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def with_settings(run: Callable[[Settings], None]) -> Callable[..., None]:
    """A typer command that takes every setting as an option and hands the result to `run`.

    Options that were not given stay unset, so that file and environment count. With `--exportconfig` the
    settings are written and nothing runs. The context's object holds the names of KoboldCpp's flags that
    were taken off the command line, as `server.kobold_flags` does it.
    """

    def command(context: typer.Context, **options: Any) -> None:
        config, export = options.pop("config"), options.pop("exportconfig")
        given = {name: value for name, value in options.items() if value is not None}
        with errors_in_one_line():
            settings = load_settings(given, config, context.obj or ())
            if export is None:
                run(settings)
            else:
                export_settings(settings, export)
                typer.echo(f"settings written to {export}")

    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    ]
    parameters += [_parameter(name, _kind(name), _help(name), _flags(name)) for name in Settings.model_fields]
    parameters += [
        _parameter("config", Path, "file with settings: TOML, or KoboldCpp's .kcpps", ("--config",)),
        _parameter(
            "exportconfig",
            Path,
            "write these settings, without the password, to FILE.toml or FILE.kcpps and end",
            ("--exportconfig",),
        ),
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


def _kind(name: str) -> Any:
    """What the command line gives for a setting: a type, or a tuple of them for so many values.

    As many values as there are come as one text.
    """
    annotation = Settings.model_fields[name].annotation
    kinds = get_args(annotation)
    if type(None) in kinds:
        annotation = next(kind for kind in kinds if kind is not type(None))
    if get_origin(annotation) is tuple and Ellipsis in get_args(annotation):
        return str
    if get_origin(annotation) is tuple:
        return tuple[tuple(_plain(kind) for kind in get_args(annotation))]  # type: ignore[misc]
    return _plain(annotation)


def _plain(annotation: Any) -> Any:
    """The type without its conditions, which the settings check themselves."""
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return str if kind is SecretStr else kind


def _help(name: str) -> str:
    field = Settings.model_fields[name]
    default = "" if field.default in (None, "") else f" (default: {field.default})"
    return f"{field.description}{default}"
