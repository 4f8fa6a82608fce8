"""The files that the pages consist of, and KoboldAI Lite where the user brings it. Read once, at start."""

from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError

STATIC = Path(__file__).with_name("static")

LITE_LIMIT = 64 << 20
"""Largest file, in bytes, that is taken for KoboldAI Lite; it is about 2 MB."""

LITE_LOCAL = "local"
"""The parameter of an address, `/?local=1`, with which Lite talks to the server that it comes from."""

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent."""

    body: bytes
    content_type: str


def read_assets() -> dict[str, Asset]:
    """Our own files by name: pages, style sheets, modules, icon. Folders below are not looked into."""
    return {
        path.name: Asset(path.read_bytes(), CONTENT_TYPES[path.suffix])
        for path in sorted(STATIC.iterdir())
        if path.is_file()
    }


def read_lite(path: Path) -> Asset:
    """The user's copy of KoboldAI Lite, byte for byte.

    Raises `ConfigError` in one line for what is no readable file of at most 64 MB.
    """
    path = path.expanduser()
    try:
        # A pipe or a device would never end; a folder has an error of its own.
        if not path.is_file() and not path.is_dir() and path.exists():
            raise ConfigError(f"--lite {path} is no regular file; give the HTML file of KoboldAI Lite")
        with path.open("rb") as stream:
            body = stream.read(LITE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"cannot read --lite {path}: {error.strerror}") from None
    if len(body) > LITE_LIMIT:
        raise ConfigError(
            f"--lite {path} is larger than {LITE_LIMIT >> 20} MB; KoboldAI Lite is one HTML file"
        )
    return Asset(body, CONTENT_TYPES[".html"])
