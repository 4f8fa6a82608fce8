"""The key in a file, where no list of processes shows it."""

import stat
from pathlib import Path

from engine.errors import ConfigError
from server.settings import Settings

LONGEST_LINE = 4096
"""Bytes of a password file: one line."""


def key_of(settings: Settings) -> str | None:
    """The key that clients must send; None without one. Raises `ConfigError` for a file that holds none."""
    if settings.password is not None:
        return settings.password.get_secret_value()
    return None if settings.password_file is None else read_password(settings.password_file)


def read_password(path: Path) -> str:
    """The one line of the file, without its end. Raises `ConfigError`."""
    try:
        # Not read_bytes: a device has no end.
        with path.open("rb") as file:
            raw = file.read(LONGEST_LINE + 1)
    except OSError as error:
        raise ConfigError(f"cannot read --password-file {path}: {error.strerror}") from None
    if len(raw) > LONGEST_LINE:
        raise ConfigError(f"--password-file {path} is larger than {LONGEST_LINE} bytes; it holds one line")
    try:
        key = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"--password-file {path} is not UTF-8") from None
    if not key.strip():
        raise ConfigError(f"--password-file {path} is empty; it holds the key in one line")
    if "\n" in key:
        raise ConfigError(f"--password-file {path} has several lines; it holds the key in one line")
    return key


def readable_by_all(path: Path) -> bool:
    """Whether every user of the machine may read the file."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)
