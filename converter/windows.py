"""Windows of token ids, cut from text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.errors import RequestError
from engine.tokenizer import Tokenizer

BUILT_IN = "pydoc_data.topics"
"""English prose that every CPython ships: the text of last resort."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text and what to call it in a report."""

    name: str
    content: str

    @classmethod
    def read(cls, paths: Sequence[Path]) -> "Text":
        """Several UTF-8 files as one text, line ends as they are. Raises `RequestError`."""
        return cls(", ".join(path.name for path in paths), "\n".join(map(_content, paths)))

    @classmethod
    def built_in(cls) -> "Text":
        """CPython's own documentation of its language."""
        from pydoc_data.topics import topics

        return cls(BUILT_IN, "\n".join(topics[key] for key in sorted(topics)))


def cut(text: Text, tokenizer: Tokenizer, length: int, *, most: int | None = None) -> torch.Tensor:
    """Consecutive windows, int64 [windows, length], each beginning with BOS where the model wants one.

    Raises `RequestError` for a text shorter than one window.
    """
    ids = torch.tensor(tokenizer.encode(text.content), dtype=torch.int64)
    count = len(ids) // length if most is None else min(most, len(ids) // length)
    if count < 1:
        raise RequestError(f"the text {text.name} has {len(ids)} tokens; at least {length} are needed")
    windows = ids[: count * length].view(count, length).clone()
    if tokenizer.add_bos and tokenizer.bos_id is not None:
        windows[:, 0] = tokenizer.bos_id
    return windows


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
