"""Settings as files: the sample that is generated from the defaults, and those of one run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from server.atomic_file import write_atomically
from server.kcpps import kcpps_text
from server.settings import Settings

TOML = ".toml"
KCPPS = ".kcpps"


def sample_settings() -> str:
    """A settings file that says what the defaults say, generated from the typed defaults."""
    return toml_text(
        {name: field.default for name, field in Settings.model_fields.items()},
        [
            "Settings of the NKAT server: nkat serve --config THIS_FILE",
            "Environment variables (NKAT_PORT, ...) and flags (--port, ...) go before this file.",
        ],
    )


def export_settings(settings: Settings, path: Path) -> None:
    """Write all settings but the password to `path`, whose ending says how: `.toml` or `.kcpps`.

    A file that is there is replaced in one step. `load_settings` with the file gives the same settings.
    Raises `ConfigError`.
    """
    values = settings.model_dump(mode="json", exclude={"password"})
    match path.suffix.lower():
        case ".toml":
            text = toml_text(values, ["Settings of the NKAT server, without the password."])
        case ".kcpps":
            text = kcpps_text({name: value for name, value in values.items() if value is not None})
        case _:
            raise ConfigError(f"--exportconfig writes FILE{TOML} or FILE{KCPPS}, not {path}")
    try:
        write_atomically(path.expanduser(), text.encode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot write the settings to {path}: {error.strerror}") from None
    except UnicodeEncodeError:
        raise ConfigError(f"cannot write the settings to {path}: a file's name is not UTF-8") from None


def toml_text(values: Mapping[str, Any], heading: list[str]) -> str:
    """The settings as TOML, each below its description; what is unset stands there as a comment.

    `values`: settings by name, as JSON has them.
    """
    lines = [f"# {line}" for line in heading]
    for name, value in values.items():
        lines += ["", f"# {Settings.model_fields[name].description}"]
        lines.append(f"# {name} =" if value is None else f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON's literals are TOML's too, except that TOML has no raw DEL in texts.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
