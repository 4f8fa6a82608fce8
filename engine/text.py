"""Texts to measure a model with. Knows no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from engine.errors import RequestError

BUILT_IN = "pydoc_data.topics"
"""English prose that every CPython ships: the text of last resort."""
CODE = ("argparse", "tarfile", "ipaddress", "statistics")
"""Modules of the standard library: a text of another kind than prose."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text and what to call it in a report."""

    name: str
    content: str

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Self:
        """Several UTF-8 files as one text, line ends as they are. Raises `RequestError`."""
        return cls(", ".join(path.name for path in paths), "\n".join(map(_content, paths)))

    @classmethod
    def built_in(cls) -> Self:
        """CPython's own documentation of its language."""
        from pydoc_data.topics import topics

        return cls(BUILT_IN, "\n".join(topics[key] for key in sorted(topics)))

    @classmethod
    def code(cls) -> Self:
        """Source code of CPython's standard library."""
        specs = [find_spec(name) for name in CODE]
        paths = [Path(spec.origin) for spec in specs if spec is not None and spec.origin is not None]
        return cls(f"source code of {', '.join(CODE)}", "\n".join(map(_content, paths)))


def _content(path: Path) -> str:
    # Bytes, not text mode: line ends are tokens too.
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
